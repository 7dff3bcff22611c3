"""Payloads and bodies of webhooks, field by field as the contract has them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from arkrelay.model.attempt import WEBHOOK_CLASS, BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient
from arkrelay.model.tenant import WEBHOOK_EVENTS
from arkrelay.policy.payloads import OUTPUT_CHARS, body_of, message_object, payload_of, refreshed
from arkrelay.policy.samples import sample

NOW = 1_800_000_000.0
SERVER = {"uuid": "u", "name": "Acme Inc", "permalink": "acme", "organization": "relay.test"}
MESSAGE = Message(
    id=7,
    tenant_id="acme",
    door=Door.SMTP,
    credential="app",
    accepted_at=NOW - 60,
    message_id="<m@sender.test>",
    author="app@sender.test",
    author_domain="sender.test",
    return_path="bounces@sender.test",
    subject="Grüße",
    tag="news",
    metadata={"order": "7"},
)
RECIPIENT = Recipient(9, MESSAGE, "token-of-the-email", "ann@rcpt.test", "rcpt.test", "rcpt.test")

DELIVERY = {"message", "status", "details", "output", "sent_with_ssl", "timestamp", "time"}
CLASSIFIED = DELIVERY | {"classification", "classification_code", "smtp_enhanced_code", "remote_host"}
MESSAGE_KEYS = {
    "id", "token", "direction", "message_id", "to", "from", "subject", "timestamp", "spam_status", "tag", "metadata",
}  # fmt: skip
DOMAIN = {"server", "domain", "uuid", "dns_checked_at"} | {
    f"{part}_{what}" for part in ("spf", "dkim", "mx", "return_path") for what in ("status", "error")
}
FAMILIES = {
    "MessageSent": DELIVERY,
    "MessageDelayed": CLASSIFIED,
    "MessageDeliveryFailed": CLASSIFIED,
    "MessageHeld": DELIVERY,
    "MessageBounced": {"original_message", "bounce"},
    "MessageLoaded": {"message", "ip_address", "user_agent"},
    "MessageLinkClicked": {"message", "url", "token", "ip_address", "user_agent"},
    "DomainDNSError": DOMAIN,
}
STATUSES = {
    "MessageSent": "Sent",
    "MessageDelayed": "SoftFail",
    "MessageDeliveryFailed": "HardFail",
    "MessageHeld": "Held",
}


def payload(
    kind: EventKind, data: Mapping[str, Any] | None = None, recipient: Recipient | None = RECIPIENT
) -> dict[str, Any]:
    found = payload_of(Event(kind, NOW, "acme", 7, 9, data or {}), recipient, SERVER)
    assert found is not None
    return found


def test_a_message_is_told_with_its_rest_id_and_without_brackets() -> None:
    assert message_object(RECIPIENT) == {
        "id": 9,
        "token": "token-of-the-email",
        "direction": "outgoing",
        "message_id": "m@sender.test",
        "to": "ann@rcpt.test",
        "from": "app@sender.test",
        "subject": "Grüße",
        "timestamp": NOW - 60,
        "spam_status": "NotChecked",
        "tag": "news",
        "metadata": {"order": "7"},
    }
    bare = replace(RECIPIENT, message=replace(MESSAGE, tag=None, metadata={}))
    assert (message_object(bare)["tag"], message_object(bare)["metadata"]) == (None, None)


@pytest.mark.parametrize("event", WEBHOOK_EVENTS)
def test_a_sample_has_the_fields_of_its_family_and_so_has_an_event_that_says_nothing(event: str) -> None:
    shown = sample(event, NOW, SERVER)
    assert set(shown) == FAMILIES[event]
    assert set(payload(EventKind(event))) == FAMILIES[event]
    for key in ("message", "original_message", "bounce"):
        if key in shown:
            assert set(shown[key]) == MESSAGE_KEYS
            assert shown[key]["direction"] == ("incoming" if key == "bounce" else "outgoing")
            assert NOW - 10 < shown[key]["timestamp"] < NOW
    if event in STATUSES:
        assert shown["status"] == payload(EventKind(event))["status"] == STATUSES[event]
        assert NOW - 10 < shown["timestamp"] < NOW
    if event == "DomainDNSError":
        assert shown["server"] == SERVER
        assert NOW - 10 < shown["dns_checked_at"] < NOW


@pytest.mark.parametrize("event", ["SendLimitApproaching", "SendLimitExceeded"])
def test_limits_are_told_with_volume_and_limit(event: str) -> None:
    assert payload(EventKind(event), {"volume": 910, "limit": 1000}, None) == {
        "server": SERVER,
        "volume": 910,
        "limit": 1000,
    }
    assert set(sample(event, NOW, SERVER)) == {"server", "volume", "limit"}


@pytest.mark.parametrize("kind", [EventKind.ACCEPTED, EventKind.SUPPRESSED, EventKind.DOMAIN_VERIFIED])
def test_our_own_events_are_not_told(kind: EventKind) -> None:
    assert payload_of(Event(kind, NOW), RECIPIENT, SERVER) is None
    with pytest.raises(ValueError, match="told"):
        sample(kind.value, NOW, SERVER)


def test_an_event_whose_recipient_is_gone_is_not_told() -> None:
    assert payload_of(Event(EventKind.SENT, NOW), None, SERVER) is None


def test_a_delivery_says_what_the_event_knows() -> None:
    data = {"details": "so", "output": "x" * 600, "sent_with_ssl": True, "time": 1.5, "remote_host": "mx.rcpt.test"}
    found = payload(EventKind.DELAYED, data | {"class": "no_mailbox", "smtp_enhanced_code": "4.2.1"})
    assert found["output"] == "x" * OUTPUT_CHARS
    assert (found["details"], found["sent_with_ssl"], found["time"]) == ("so", True, 1.5)
    assert (found["timestamp"], found["message"]["token"]) == (NOW, "token-of-the-email")
    assert (found["smtp_enhanced_code"], found["remote_host"]) == ("4.2.1", "mx.rcpt.test")


@pytest.mark.parametrize("blamed", BounceClass)
def test_the_classification_is_the_webhooks_own_and_not_rests(blamed: BounceClass) -> None:
    found = payload(EventKind.FAILED, {"class": blamed.value, "classification": "other", "classification_code": 1})
    assert (found["classification"], found["classification_code"]) == WEBHOOK_CLASS[blamed]


def test_mail_given_up_without_an_attempt_is_classified_by_what_was_known() -> None:
    assert payload(EventKind.FAILED)["classification"] == "unclassified"
    known = replace(RECIPIENT, bounce_class=BounceClass.MAILBOX_FULL)
    assert payload(EventKind.FAILED, recipient=known)["classification"] == "mailbox_full"


def test_a_bounce_names_the_report() -> None:
    found = payload(EventKind.BOUNCED, {"from": "mailer-daemon@mx.test", "id": 4, "tag": "forged"})
    assert found["bounce"]["from"] == "mailer-daemon@mx.test"
    assert (found["bounce"]["id"], found["bounce"]["to"]) == (4, "bounces@sender.test")
    assert (found["bounce"]["direction"], found["bounce"]["tag"]) == ("incoming", None)


PAYLOAD = {"message": {"id": 1}, "status": "Sent", "timestamp": NOW - 30, "uuid": "of the payload"}


def test_the_three_forms_of_a_body() -> None:
    outer = {"event": "MessageSent", "timestamp": NOW, "uuid": "u", "payload": PAYLOAD}
    assert body_of("MessageSent", PAYLOAD, uuid="u", at=NOW) == outer
    assert list(body_of("MessageSent", PAYLOAD, uuid="u", at=NOW)) == ["event", "timestamp", "uuid", "payload"]
    assert body_of("MessageSent", PAYLOAD, form="merged", uuid="u", at=NOW) == {
        "message": {"id": 1}, "status": "Sent", **outer,
    }  # fmt: skip
    assert body_of("MessageSent", PAYLOAD, form="bare", uuid="u", at=NOW) == {**PAYLOAD, "timestamp": NOW}
    assert body_of("MessageLoaded", {"ip_address": "x"}, form="bare", uuid="u", at=NOW) == {"ip_address": "x"}


@pytest.mark.parametrize("form", ["wrapped", "bare", "merged"])
@pytest.mark.parametrize("test", [True, False])
def test_the_platforms_body_is_always_wrapped(form: str, test: bool) -> None:
    found = body_of("MessageSent", PAYLOAD, form=form, uuid="u", at=NOW, tenant_id="acme", test=test)
    assert found == {
        "event": "MessageSent", "tenant_id": "acme", "timestamp": NOW, "uuid": "u", "payload": PAYLOAD,
        **({"_test": True} if test else {}),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["wrapped", "bare", "merged"])
@pytest.mark.parametrize("event", WEBHOOK_EVENTS)
def test_what_is_sent_again_is_the_same_but_for_time_and_uuid(form: str, event: str) -> None:
    first = body_of(event, sample(event, NOW, SERVER), form=form, uuid="one", at=NOW)
    again = refreshed(first, uuid="two", at=NOW + 900)
    changed = {key for key in first if first[key] != again[key]}
    assert list(again) == list(first)
    if form == "bare":
        assert changed == ({"timestamp"} if "timestamp" in first else set())
    else:
        assert changed == {"timestamp", "uuid"}
        assert (again["timestamp"], again["uuid"]) == (NOW + 900, "two")
