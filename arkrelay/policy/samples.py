"""An example of every event that a webhook can be told of, for a person who tests one (Ark contract §11.5).

Made by the same functions as the real payloads, so that a test shows what will come. Names and addresses are those
that are kept for examples (RFC 2606, RFC 5737).
"""

from collections.abc import Mapping
from typing import Any

from arkrelay.model.attempt import BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient
from arkrelay.policy.payloads import Object, payload_of

ACCEPTED_S = 5.0  # before the test: when its message would have come in
HAPPENED_S = 1.0  # and when the event would have happened

_MX = "192.0.2.1:25 (mx.example.org)"
_ATTEMPT = {"sent_with_ssl": True, "time": 0.42, "remote_host": "mx.example.org"}
_READER = {"ip_address": "192.0.2.10", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0"}


def sample(event: str, now: float, server: Mapping[str, Any]) -> Object:
    """Return the payload of an event of this name that might just have happened.

    ``server`` is the tenant as the contract's ``server`` object shows it. Raises ValueError for a name that webhooks
    are not told of.
    """
    kind = EventKind(event)
    at = round(now - HAPPENED_S, 3)
    payload = payload_of(Event(kind, at, data=_data(kind, at)), _recipient(round(now - ACCEPTED_S, 3)), server)
    if payload is None:
        raise ValueError(f"webhooks are not told of {event}")
    return payload


def _recipient(accepted_at: float) -> Recipient:
    message = Message(
        id=1,
        tenant_id="",
        door=Door.REST,
        credential=None,
        accepted_at=accepted_at,
        message_id="<0123456789abcdef@example.com>",
        author="hello@example.com",
        author_domain="example.com",
        return_path="hello@example.com",
        subject="A test of this webhook",
        tag="test",
        metadata={"order_id": "1234"},
    )
    return Recipient(
        id=1,
        message=message,
        token="aBc123XyZ456test",  # noqa: S106 -- the id of an email that does not exist
        address="someone@example.org",
        domain="example.org",
        destination="example.org",
    )


def _data(kind: EventKind, at: float) -> Mapping[str, Any]:
    match kind:
        case EventKind.SENT:
            return {
                "details": f"Message for someone@example.org accepted by {_MX}",
                "output": "250 2.0.0 OK",
                **_ATTEMPT,
            }
        case EventKind.DELAYED:
            return {
                "details": f"451 temporarily unavailable: Delivery to someone@example.org failed at {_MX}",
                "output": "451 4.7.1 Try again later",
                "class": BounceClass.TRY_LATER.value,
                "smtp_enhanced_code": "4.7.1",
                **_ATTEMPT,
            }
        case EventKind.FAILED:
            return {
                "details": f"550 invalid recipient: Delivery to someone@example.org failed at {_MX}",
                "output": "550 5.1.1 There is no such mailbox here",
                "class": BounceClass.BAD_ADDRESS.value,
                "smtp_enhanced_code": "5.1.1",
                **_ATTEMPT,
            }
        case EventKind.HELD:
            return {"details": "Recipient (someone@example.org) is on the suppression list (reason: hard fail)"}
        case EventKind.BOUNCED:
            return {
                "id": 2,
                "token": "dEf456XyZ789test",
                "message_id": "fedcba9876543210@mx.example.org",
                "from": "mailer-daemon@mx.example.org",
                "subject": "Undelivered Mail Returned to Sender",
                "timestamp": at,
            }
        case EventKind.LOADED:
            return _READER
        case EventKind.CLICKED:
            return {"url": "https://example.com/welcome", "token": "k3f9z1", **_READER}
        case EventKind.DNS_ERROR:
            return {
                "domain": "example.com",
                "uuid": "00000000-0000-4000-8000-000000000000",
                "dns_checked_at": at,
                "spf_status": "OK",
                "dkim_status": "Missing",
                "dkim_error": "There is no TXT record at ark-k3f9z1._domainkey.example.com",
                "mx_status": "OK",
                "return_path_status": "OK",
            }
        case EventKind.LIMIT_APPROACHING | EventKind.LIMIT_EXCEEDED:
            return {"volume": 910 if kind is EventKind.LIMIT_APPROACHING else 1001, "limit": 1000}
    return {}
