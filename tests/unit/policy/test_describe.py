import pytest

from arkrelay.model.attempt import BounceClass, Classified
from arkrelay.model.message import Door, Message, Recipient
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.policy.describe import describe, enhanced_of, exhausted, suppressed

MESSAGE = Message(1, "acme", Door.SMTP, None, 0.0, "<1@x>", "me@acme.test", "acme.test", None)
BOB = Recipient(1, MESSAGE, "token", "bob@example.org", "example.org", "example.org")
NO_MAILBOX = Classified(BounceClass.NO_MAILBOX, permanent=True)
NO_CONNECTION = Classified(BounceClass.CONNECTION, permanent=False)
NO_DOMAIN = Classified(BounceClass.NO_DOMAIN, permanent=False)
REFUSED = Failure(FailureKind.REFUSED, Stage.CONNECT, "refused by 192.0.2.1")


@pytest.mark.parametrize(
    ("result", "classified", "peer", "sentence"),
    [
        pytest.param(
            Reply(250, "2.0.0", "Ok", Stage.DOT),
            None,
            ("mx.example.org", "192.0.2.1", 25),
            "Message for bob@example.org accepted by 192.0.2.1:25 (mx.example.org)",
            id="sent",
        ),
        pytest.param(
            Reply(250, "2.0.0", "Ok", Stage.DOT),
            None,
            ("mx.example.org", "2001:db8::1", 25),
            "Message for bob@example.org accepted by [2001:db8::1]:25 (mx.example.org)",
            id="sent-by-ipv6",
        ),
        pytest.param(
            Reply(250, None, "seen before a crash", Stage.DOT),
            None,
            (None, None, None),
            "Message for bob@example.org accepted by an unknown host",
            id="sent-and-the-rest-forgotten",
        ),
        pytest.param(
            Reply(550, "5.1.1", "no mailbox here", Stage.RCPT),
            NO_MAILBOX,
            ("mx.example.org", "192.0.2.1", 25),
            "550 no mailbox: Delivery to bob@example.org failed at 192.0.2.1:25 (mx.example.org)",
            id="refused",
        ),
        pytest.param(
            Reply(550, "5.1.1", "no mailbox here", Stage.RCPT),
            NO_MAILBOX,
            (None, "192.0.2.1", None),
            "550 no mailbox: Delivery to bob@example.org failed at 192.0.2.1:25 (192.0.2.1)",
            id="refused-by-an-address",
        ),
        pytest.param(
            REFUSED,
            NO_CONNECTION,
            (None, None, None),
            "Connection error: Could not connect to any mail server for example.org (refused by 192.0.2.1)",
            id="no-connection",
        ),
        pytest.param(
            Failure(FailureKind.TIMEOUT, Stage.DATA, "no reply within 120 s"),
            NO_CONNECTION,
            ("mx.example.org", "192.0.2.1", 25),
            "Connection error: Delivery to bob@example.org failed at 192.0.2.1:25 (mx.example.org)"
            " (no reply within 120 s)",
            id="connection-broke",
        ),
        pytest.param(
            Failure(FailureKind.NO_DOMAIN, Stage.RESOLVE, "example.org does not exist"),
            NO_DOMAIN,
            (None, None, None),
            "DNS error: Delivery to bob@example.org failed (example.org does not exist)",
            id="no-domain",
        ),
        pytest.param(
            Failure(FailureKind.TLS, Stage.STARTTLS, ""),
            Classified(BounceClass.TLS_REQUIRED, permanent=False),
            ("mx.example.org", None, None),
            "TLS required: Delivery to bob@example.org failed at mx.example.org",
            id="nothing-more-to-say",
        ),
    ],
)
def test_an_attempt_in_a_sentence(
    result: Reply | Failure,
    classified: Classified | None,
    peer: tuple[str | None, str | None, int | None],
    sentence: str,
) -> None:
    assert describe(result, classified, BOB, *peer) == sentence


def test_the_sentences_of_the_contract_that_belong_to_no_attempt() -> None:
    assert exhausted(18, "450 later") == "Maximum number of delivery attempts (18) has been reached. 450 later"
    assert exhausted(1, "") == "Maximum number of delivery attempts (1) has been reached."
    assert (
        suppressed("a@b.test", "hard fail") == "Recipient (a@b.test) is on the suppression list (reason: hard fail)"
    )


def test_a_status_code_is_the_peers_or_ours() -> None:
    assert enhanced_of(Reply(550, "5.1.1", "", Stage.RCPT), permanent=True) == "5.1.1"
    assert enhanced_of(Reply(550, None, "", Stage.RCPT), permanent=True) is None
    assert enhanced_of(Failure(FailureKind.NULL_MX, Stage.RESOLVE, ""), permanent=True) == "5.1.10"
    assert enhanced_of(Failure(FailureKind.LOOP, Stage.RESOLVE, ""), permanent=True) == "5.4.6"
    assert enhanced_of(Failure(FailureKind.NO_SMTPUTF8, Stage.MAIL, ""), permanent=True) == "5.6.7"
    assert enhanced_of(Failure(FailureKind.RESOLVER, Stage.RESOLVE, ""), permanent=False) == "4.4.3"


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_has_a_status_code(kind: FailureKind) -> None:
    assert enhanced_of(Failure(kind, Stage.CONNECT, ""), permanent=False) is not None
