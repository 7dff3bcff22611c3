"""What suppresses by itself, row by row."""

import pytest

from arkrelay.model.attempt import BounceClass, Classified
from arkrelay.model.message import Status
from arkrelay.model.settings import Suppression
from arkrelay.model.tenant import Tenant, TenantSuppression
from arkrelay.policy.suppress import on_bounce, on_failure, stream_of

BAD, FULL, SPAM, EXPIRED = (
    BounceClass.BAD_ADDRESS,
    BounceClass.MAILBOX_FULL,
    BounceClass.CONTENT_SPAM,
    BounceClass.EXPIRED,
)


@pytest.mark.parametrize(
    ("on", "blamed", "permanent", "status", "reason", "times"),
    [
        ("recipient", BAD, True, Status.HARDFAIL, "hard fail", 1),
        ("recipient", BAD, False, Status.SOFTFAIL, None, 0),
        ("recipient", SPAM, True, Status.HARDFAIL, None, 0),
        ("recipient", FULL, True, Status.HARDFAIL, "mailbox full", 3),
        ("recipient", FULL, False, Status.HARDFAIL, "mailbox full", 3),
        ("any-hardfail", FULL, True, Status.HARDFAIL, "hard fail", 1),
        ("any-hardfail", SPAM, True, Status.HARDFAIL, "hard fail", 1),
        ("any-hardfail", SPAM, False, Status.HARDFAIL, "too many soft fails", 1),
        ("any-hardfail", EXPIRED, False, Status.HARDFAIL, None, 0),
        ("off", BAD, True, Status.HARDFAIL, None, 0),
    ],
)
def test_the_end_of_a_recipient(
    on: str, blamed: BounceClass, permanent: bool, status: Status, reason: str | None, times: int
) -> None:
    found = on_failure(Classified(blamed, permanent), status, Suppression(on=on))
    assert (found.reason if found else None, found.times if found else 0) == (reason, times)


@pytest.mark.parametrize(
    ("on", "bounces", "blamed", "reason"),
    [
        ("recipient", False, BAD, None),
        ("any-hardfail", False, BAD, None),
        ("recipient", True, BAD, "bounce"),
        ("recipient", True, SPAM, None),
        ("recipient", True, FULL, "mailbox full"),
        ("any-hardfail", True, SPAM, "bounce"),
        ("off", True, BAD, None),
    ],
)
def test_a_report_after_acceptance(on: str, bounces: bool, blamed: BounceClass, reason: str | None) -> None:
    found = on_bounce(blamed, Suppression(on=on, bounces=bounces))
    assert (found.reason if found else None) == reason


def test_full_mailboxes_can_be_left_alone() -> None:
    assert on_failure(Classified(FULL, permanent=True), Status.HARDFAIL, Suppression(mailbox_full=0)) is None


@pytest.mark.parametrize(("tag", "stream"), [("news", "news"), ("receipt", ""), (None, "")])
def test_only_the_named_tags_are_streams(tag: str | None, stream: str) -> None:
    tenant = Tenant(id="acme", name="Acme", suppression=TenantSuppression(streams=("news",)))
    assert stream_of(tenant, tag) == stream
    assert stream_of(None, tag) == ""
