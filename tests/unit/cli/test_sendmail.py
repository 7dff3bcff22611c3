"""send and sendmail: what goes to the daemon, and what their callers learn."""

import base64
import email
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import UnixSocketController
from aiosmtpd.smtp import SMTP, Envelope, Session
from unit.cli.support import Double, Program

from arkrelay.cli import sendmail

ACCEPTED = {"POST /v1/emails/raw": {"id": "tok1", "tenantId": "acme", "status": "pending", "to": []}}


class Listener:
    """A submission listener that takes mail, or answers as told."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuse: dict[str, str] = {}  # verb → reply

    async def handle_MAIL(  # noqa: N802 -- aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from, envelope.mail_options = address, options
        return self.refuse.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = self.refuse.get(address, "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 -- likewise
        self.envelopes.append(envelope)
        return self.refuse.get("DATA", "250 2.0.0 queued")


@pytest.fixture
def listener(home: Path) -> Iterator[Listener]:
    """A listener bound to a tenant, on a unix socket that the configuration names."""
    handler = Listener()
    path = home / "submission.sock"
    controller = UnixSocketController(handler, str(path), enable_SMTPUTF8=True)
    controller.start()
    config = home / "arkrelay.toml"
    bound = f'[[listen]]\nservice = "submission"\naddress = "unix:{path}"\ntls = "none"\ntenant = "acme"\n'
    config.write_text(config.read_text() + bound)
    yield handler
    controller.stop()


@pytest.fixture(autouse=True)
def mail_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendmail, "MAILNAME", Path("/nowhere/mailname"))
    monkeypatch.setenv("LOGNAME", "cron")


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))


def parsed(double: Double) -> Message:
    return email.message_from_bytes(base64.b64decode(double.asked[-1].body["rawMessage"]))


MAIL = b"From: Ann <ann@example.com>\nTo: bob@example.net\nSubject: hi\n\nbody\n"


def test_sendmail_hands_to_a_listener_that_needs_no_password(
    program: Program, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, MAIL.replace(b"body", b".b\xc3\xb6dy"))
    assert program("sendmail", "-t", "-i").code == 0
    envelope = listener.envelopes[0]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("ann@example.com", ["bob@example.net"])
    assert "BODY=8BITMIME" in envelope.mail_options
    assert envelope.original_content is not None
    assert envelope.original_content.endswith(b"\r\n\r\n.b\xc3\xb6dy\r\n")


def test_sendmail_goes_by_rest_without_such_a_listener(
    program: Program, daemon: Double, tenant_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answers = dict(ACCEPTED)
    pipe(monkeypatch, MAIL)
    assert program("sendmail", "-oi", "-oem", "carl@example.net", "bob@example.net").code == 0
    body = daemon.asked[0].body
    assert body["from"] == "ann@example.com"
    assert body["to"] == ["carl@example.net", "bob@example.net"]
    assert body["tenantId"] == "acme"
    assert base64.b64decode(body["rawMessage"]) == MAIL.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("words", [("-f", ""), ("-f", "<>"), ("-f<>",), ("-r", "<>")])
def test_the_null_return_path(
    program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    daemon.answers = dict(ACCEPTED)
    pipe(monkeypatch, MAIL)
    assert program("sendmail", *words, "-t").code == 0
    assert daemon.asked[0].body["bounce"] is True
    assert daemon.asked[0].body["from"] == "ann@example.com"


def test_cron_gets_its_mail_through(program: Program, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@h> job\n\nout\n")
    assert program("sendmail", "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root").code == 0
    envelope = listener.envelopes[0]
    assert envelope.mail_from == "root@relay.example.com"
    assert envelope.rcpt_tos == ["root@relay.example.com"]
    assert (envelope.original_content or b"").startswith(b"From: CronDaemon <root@relay.example.com>\r\n")


@pytest.mark.parametrize(
    ("refuse", "code"),
    [
        ({"MAIL": "452 4.3.1 full"}, 75),
        ({"MAIL": "530 5.7.1 not your domain"}, 77),
        ({"bob@example.net": "550 5.1.1 nobody"}, 67),
        ({"bob@example.net": "450 4.2.1 later"}, 75),
        ({"DATA": "554 5.6.0 no"}, 65),
        ({"DATA": "550 5.7.1 no"}, 77),
        ({"DATA": "550 5.6.0 no"}, 69),
        ({"DATA": "451 4.3.0 later"}, 75),
    ],
)
def test_refusals_of_the_listener_are_exit_codes(
    program: Program, listener: Listener, monkeypatch: pytest.MonkeyPatch, refuse: dict[str, str], code: int
) -> None:
    listener.refuse = refuse
    pipe(monkeypatch, MAIL)
    ran = program("sendmail", "-t")
    assert ran.code == code
    assert next(iter(refuse.values())) in ran.err


def test_one_refused_recipient_means_nobody_gets_it(
    program: Program, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.refuse = {"bob@example.net": "550 5.1.1 nobody"}
    pipe(monkeypatch, MAIL)
    assert program("sendmail", "first@example.net", "bob@example.net", "last@example.net").code == 67
    assert not listener.envelopes


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 65), (401, 77), (403, 77), (409, 75), (413, 65), (422, 65), (429, 75), (500, 75), (507, 75)],
)
def test_refusals_of_rest_have_the_same_codes(
    program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    daemon.answers = {"POST /v1/emails/raw": (status, {"error": {"message": "no"}})}
    pipe(monkeypatch, MAIL)
    assert program("sendmail", "-t").code == code


def test_a_sender_that_is_not_ours_is_no_permission(
    program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"code": "domain_not_verified", "message": "no"}
    daemon.answers = {"POST /v1/emails/raw": (422, {"error": error})}
    pipe(monkeypatch, MAIL)
    assert program("sendmail", "-t").code == 77


@pytest.mark.parametrize(
    ("words", "content", "code"),
    [
        ((), MAIL, 64),  # nobody to send to
        (("-t",), b"Subject: x\n\n", 64),
        (("-Z",), MAIL, 64),
        (("-bd",), MAIL, 64),
        (("no address",), MAIL, 65),
        (("-t",), b"To: <a@x.test> <b@x.test>\n\n", 65),
        (("-t",), MAIL.replace(b"Ann <ann@example.com>", b"a@x.test, b@x.test"), 65),
        (("-t",), b"To: a@x.test\nBroken : x\n\n", 65),
        (("-t",), MAIL, 75),  # no daemon
        (("-C", "/nowhere.toml", "-t"), MAIL, 78),
        (("-bi",), b"", 0),
    ],
)
def test_what_is_wrong_here_has_its_code(
    program: Program, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], content: bytes, code: int
) -> None:
    pipe(monkeypatch, content)
    ran = program("sendmail", *words)
    assert ran.code == code
    assert "Traceback" not in ran.err
    assert bool(ran.err) == bool(code)


def test_a_bug_of_ours_is_code_70_and_one_line(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(sendmail, "read_draft", broken)
    pipe(monkeypatch, MAIL)
    ran = program("sendmail", "-t")
    assert (ran.code, ran.err) == (70, "sendmail: internal error: RuntimeError: surprise\n")


def test_mailq_and_flush_are_the_queue(program: Program, daemon: Double) -> None:
    daemon.answers = {
        "GET /v1/queue": {"data": [], "totalPages": 0},
        "POST /v1/queue/flush": {"count": 0},
    }
    assert "the queue is empty" in program("sendmail", "-bp").err
    assert program("sendmail", "-q").code == 0
    assert program("sendmail", "-q15m").code == 0
    assert [asked.method for asked in daemon.asked] == ["GET", "POST", "POST"]


def test_a_program_named_sendmail_is_sendmail(home: Path, daemon: Double) -> None:
    daemon.answers = dict(ACCEPTED)
    code = "import sys; sys.argv[0] = sys.argv.pop(1); from arkrelay.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "/usr/sbin/sendmail", "-t", "-i"],
        input=MAIL,
        capture_output=True,
        check=False,
        env={**os.environ, "ARKRELAY_CONFIG": str(home / "arkrelay.toml")},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert daemon.asked[0].body["to"] == ["bob@example.net"]


def test_smtp_on_standard_input_reaches_the_listener(home: Path, listener: Listener) -> None:
    dialogue = (
        b"EHLO app.test\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
        b"Subject: hi\r\n\r\nbody\r\n.\r\nQUIT\r\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "arkrelay", "-c", str(home / "arkrelay.toml"), "sendmail", "-bs"],
        input=dialogue,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert b"250 2.0.0 queued\r\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(b"221")
    assert listener.envelopes[0].rcpt_tos == ["bob@example.net"]


def test_smtp_on_standard_input_ends_when_the_listener_hangs_up(home: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    config = home / "arkrelay.toml"
    address = f'[[listen]]\nservice = "submission"\naddress = "127.0.0.1:{port}"\n'
    config.write_text(config.read_text() + address)

    def hang_up() -> None:
        peer, _ = server.accept()
        peer.sendall(b"421 4.3.2 stopping\r\n")
        peer.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with subprocess.Popen(
        [sys.executable, "-m", "arkrelay", "sendmail", "-c", str(config), "-bs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"421 4.3.2 stopping\r\n"
        assert process.wait(20) == 0
    thread.join(10)
    server.close()


def test_send_builds_the_message_and_prints_its_id(
    program: Program, daemon: Double, tenant_file: Path, home: Path
) -> None:
    daemon.answers = dict(ACCEPTED)
    (home / "report.txt").write_text("numbers")
    ran = program(
        *("send", "--from", "Änn <ann@Example.com>", "--to", "bob@example.net", "--cc", '"C, D" <carl@example.net>'),
        *("--bcc", "dora@example.net", "--subject", "Grüße", "--text", "hello", "--html", "<b>hello</b>"),
        *("--attach", str(home / "report.txt"), "--tag", "news", "--header", "X-App: billing"),
    )
    assert (ran.code, ran.out) == (0, "tok1\n"), ran.err
    body = daemon.asked[0].body
    assert (body["from"], body["tenantId"]) == ("ann@example.com", "acme")
    assert body["to"] == ["bob@example.net", "carl@example.net", "dora@example.net"]
    message = parsed(daemon)
    assert str(email.header.make_header(email.header.decode_header(message["Subject"]))) == "Grüße"
    assert message["Cc"] == '"C, D" <carl@example.net>'
    assert (message["X-App"], message["X-Ark-Tag"]) == ("billing", "news")
    assert "dora" not in message.as_string()
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/plain"]
    assert base64.b64decode(body["rawMessage"]).isascii()


def test_send_reads_the_text_from_a_pipe(program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answers = dict(ACCEPTED)
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    ran = program("send", "--from", "a@example.com", "--to", "b@example.net", "-s", "x", "--json")
    assert ran.code == 0
    assert parsed(daemon).get_payload() == "from a pipe\r\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--to", "nobody"), "--to nobody: "),
        (("--to", "b@x.test", "--cc", "a@b, c@d"), "--cc a@b, c@d: "),
        (("--to", "b@x.test", "--header", "X-A: b\nBcc: evil@x.test"), "header"),
        (("--to", "b@x.test", "--header", "nonsense"), "expected NAME: VALUE"),
    ],
)
def test_send_refuses_what_is_no_address_or_field(
    program: Program, daemon: Double, words: tuple[str, ...], text: str
) -> None:
    ran = program("send", "--from", "a@example.com", "-s", "x", "--text", "y", *words)
    assert ran.code in {1, 2}
    assert text in ran.err
    assert not daemon.asked


def test_send_passes_a_refusal_on(program: Program, daemon: Double) -> None:
    daemon.answers = {"POST /v1/emails/raw": (422, {"error": {"message": "not verified", "field": "from"}})}
    ran = program("send", "--from", "a@example.com", "--to", "b@x.test", "-s", "x", "--text", "y")
    assert ran.code == 1
    assert "from: not verified" in ran.err
