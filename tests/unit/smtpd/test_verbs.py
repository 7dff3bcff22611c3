"""Nothing that a stranger says reaches aiosmtpd's own verbs."""

import pytest

from arkrelay.smtpd.bounces import BouncesSession
from arkrelay.smtpd.connection import Connection
from arkrelay.smtpd.session import SubmissionSession


@pytest.mark.parametrize("door", [SubmissionSession, BouncesSession])
def test_every_verb_is_our_own(door: type[Connection]) -> None:
    verbs = [name for name in dir(door) if name.startswith("smtp_")]
    assert "smtp_AUTH" in verbs
    for name in verbs:
        assert getattr(door, name).__module__.startswith("arkrelay.smtpd."), name


def test_the_list_of_verbs_that_a_connection_shows_is_whole() -> None:
    assert SubmissionSession._verbs == tuple(name for name in dir(SubmissionSession) if name.startswith("smtp_"))
