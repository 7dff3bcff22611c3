"""What a subscription means to a client, to the configuration files, and to an event."""

import typing

import pytest

from arkrelay.api.hooks import EventName, ToldEvent
from arkrelay.model.event import EventKind
from arkrelay.model.tenant import WEBHOOK_EVENTS, Webhook
from arkrelay.relay.hooksettings import subscription


def test_the_names_of_events_are_the_configurations() -> None:
    assert set(typing.get_args(EventName)) == set(WEBHOOK_EVENTS)
    told = {EventKind(name) for name in typing.get_args(ToldEvent)}
    assert told == {*map(EventKind, WEBHOOK_EVENTS), EventKind.LIMIT_APPROACHING, EventKind.LIMIT_EXCEEDED}


@pytest.mark.parametrize(
    ("events", "all_", "takes"),
    [
        (None, True, {"MessageSent", "DomainDNSError", "SendLimitExceeded"}),
        (["MessageSent"], True, {"MessageSent", "DomainDNSError", "SendLimitExceeded"}),
        (["MessageSent"], False, {"MessageSent"}),
        (None, False, set()),
        ([], False, set()),
    ],
)
def test_a_subscription_takes_what_it_says(events: list[str] | None, all_: bool, takes: set[str]) -> None:
    settings = {key: value for key, value in subscription(events, all_=all_).items() if value is not None}
    hook = Webhook(name="w", url="https://x.example/", **settings)
    assert {name for name in ("MessageSent", "DomainDNSError", "SendLimitExceeded") if hook.takes(name)} == takes
    assert hook.takes_all is all_
