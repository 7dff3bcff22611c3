"""The log: its three forms, and what must never be in it or come out of it."""

import io
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkrelay.base import log as logs

KEY = "ark_live_" + "x7Kq" * 10
SEALED = "sealed:v1:QUJD_-+/="


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Give back the log of the test run afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("mail", "aiohttp.access")}
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


class Written:
    """What was written to standard error since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stream(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def rows(stream: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream: Written) -> None:
    logs.setup("json")
    structlog.get_logger().info("recipient_settled", recipient="ann@bücher.example", code=250, text="a\nb\x00")
    (row,) = rows(stream)
    assert row["event"] == "recipient_settled"
    assert row["level"] == "info"
    assert row["recipient"] == "ann@bücher.example"
    assert row["code"] == 250
    assert row["text"] == "a\nb\x00"
    assert row["timestamp"].endswith("Z")


def test_a_line_of_every_level_has_the_same_form(stream: Written) -> None:
    logs.setup("json")
    log = structlog.get_logger()
    for write in (log.info, log.warning):
        write("hello", n=1, key=KEY, password="x", at=Path("/tmp"))
        write("hello %s", "you")
        write("hello", exc_info=ValueError(KEY))
    found = [{**row, "timestamp": "", "level": ""} for row in rows(stream)]
    assert found[:3] == found[3:]
    assert [list(row) for row in found[:3]] == [list(row) for row in found[3:]]
    assert KEY not in stream.getvalue()


def test_what_json_does_not_know_becomes_text(stream: Written) -> None:
    logs.setup("json")
    structlog.get_logger().info("x", path=Path("/etc"), raw=b"\xff", kind=object)
    assert rows(stream)[0]["path"] == "/etc"
    assert "xff" in rows(stream)[0]["raw"]


def test_a_traceback_stays_in_its_line(stream: Written) -> None:
    logs.setup("json")
    structlog.get_logger().error("task_crashed", exc_info=ValueError("this went wrong"))
    (row,) = rows(stream)
    assert row["level"] == "error"
    assert "ValueError: this went wrong" in row["exception"]


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        pytest.param("debug", ["debug", "info", "warning", "error"], id="debug"),
        pytest.param("info", ["info", "warning", "error"], id="info"),
        pytest.param("warning", ["warning", "error"], id="warning"),
        pytest.param("error", ["error"], id="error"),
    ],
)
def test_levels_below_the_one_set_are_not_written(level: str, seen: list[str], stream: Written) -> None:
    logs.setup("json", level)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
    assert [row["level"] for row in rows(stream)] == seen


@pytest.mark.parametrize("key", sorted(logs.SECRET_KEYS))
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_taken_out_by_the_name_of_its_key(form: str, key: str, stream: Written) -> None:
    logs.setup(form)
    structlog.get_logger().info("x", **{key: "hunter2-and-more"})
    assert "hunter2" not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@pytest.mark.parametrize("secret", [KEY, KEY.replace("live", "test"), SEALED])
@pytest.mark.parametrize("text", ["{}", "refused: {}", "key={}, and more", '{{"secret": "{}"}}'])
def test_a_secret_of_ours_is_taken_out_by_its_look(text: str, secret: str, stream: Written) -> None:
    logs.setup("json")
    log = structlog.get_logger()
    log.info("x", reason=text.format(secret))
    log.info(text.format(secret))
    assert secret[9:] not in stream.getvalue()
    assert [row["event" if row["event"] != "x" else "reason"] for row in rows(stream)] == [
        text.format("[redacted]")
    ] * 2


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_around_a_secret_is_kept(before: str, after: str) -> None:
    after = "." + after  # else it may continue the key
    if "ark_" in before + after or "sealed:" in before + after:
        return
    event = dict(logs.redact(None, "info", {"event": "x", "text": f"{before} {KEY}{after}"}))
    assert event == {"event": "x", "text": f"{before} [redacted]{after}"}


def test_console_lines_have_no_colour_in_a_pipe_and_show_no_local_variables(stream: Written) -> None:
    def fail(password: str) -> None:
        raise ValueError(f"{len(password)} letters")

    logs.setup("console")
    secret = f"hunter{2:04}"  # so that no line of source holds it
    try:
        fail(secret)
    except ValueError:
        structlog.get_logger().exception("task_crashed", task="x")
    text = stream.getvalue()
    assert "task_crashed" in text
    assert "ValueError: 10 letters" in text
    assert "\x1b[" not in text
    assert secret not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_taken_out_of_a_traceback(form: str, stream: Written) -> None:
    logs.setup(form)
    structlog.get_logger().error("task_crashed", exc_info=ValueError(f"{KEY} is not known"))
    assert "ValueError: [redacted] is not known" in stream.getvalue()
    assert KEY not in stream.getvalue()


class Gone(io.StringIO):
    """A stream whose reader has gone, or whose disk is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(BrokenPipeError(32, "Broken pipe"), id="reader-gone"),
        pytest.param(OSError(28, "No space left on device"), id="disk-full"),
        pytest.param(BlockingIOError(11, "Resource temporarily unavailable"), id="pipe-full"),
        pytest.param(ValueError("I/O operation on closed file."), id="closed"),
    ],
)
def test_a_log_that_cannot_be_written_takes_nothing_down(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Gone(error)
    monkeypatch.setattr(sys, "stderr", stream)
    logs.setup("json")
    structlog.get_logger().error("x", exc_info=ValueError("y"))
    assert stream.tried == 1


@pytest.mark.parametrize("form", ["auto", "json", "console"])
def test_a_log_that_was_closed_before_we_started_takes_nothing_down(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(sys, "stderr", None)  # so Python tells that 2 was closed
    logs.setup(form)
    structlog.get_logger().error("x")


# -- the journal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Stand for journald: a datagram socket where ours send to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "journal"))
        sock.setblocking(False)
        monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journal"))
        yield sock


@pytest.fixture
def writer() -> Iterator[logs.Journal]:
    """Give a journal logger, closed afterwards."""
    made = logs.Journal()
    yield made
    made._socket.close()


def fields(datagram: bytes) -> dict[str, str]:
    """Read journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) as journald does."""
    found: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, size = line, int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        assert name.decode() not in found
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def test_fields_reach_the_journal(journal: socket.socket, writer: logs.Journal) -> None:
    writer.info(event="recipient_settled", level="info", recipient="ann@example.com", code=250)
    assert fields(journal.recv(65536)) == {
        "MESSAGE": "recipient_settled recipient=ann@example.com code=250",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "arkrelay",
        "ARKRELAY_EVENT": "recipient_settled",
        "ARKRELAY_RECIPIENT": "ann@example.com",
        "ARKRELAY_CODE": "250",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_levels_are_syslog_priorities(
    level: str, priority: str, journal: socket.socket, writer: logs.Journal
) -> None:
    getattr(writer, level)(event="x", level=level)
    assert fields(journal.recv(65536))["PRIORITY"] == priority


def test_values_of_several_lines_arrive_whole_and_forge_no_field(
    journal: socket.socket, writer: logs.Journal
) -> None:
    reply = "550 no\nPRIORITY=0\nMESSAGE=forged"
    writer.info(event="x", level="info", reply=reply, exception="Traceback\n  ValueError: y")
    got = fields(journal.recv(65536))
    assert got["ARKRELAY_REPLY"] == reply
    assert got["ARKRELAY_EXCEPTION"] == "Traceback\n  ValueError: y"
    assert got["PRIORITY"] == "6"
    assert got["MESSAGE"] == f"x reply={reply}\nTraceback\n  ValueError: y"


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_can_be_a_value(journal: socket.socket, writer: logs.Journal, text: str) -> None:
    writer.info(event="x", level="info", text=text)
    assert fields(journal.recv(65536))["ARKRELAY_TEXT"] == text.encode("utf-8", "backslashreplace").decode()


def test_a_journal_that_is_away_or_full_takes_nothing_down(
    journal: socket.socket, writer: logs.Journal, tmp_path: Path
) -> None:
    for _ in range(10_000):  # nobody reads: the queue of the socket is full long before
        writer.info(event="x", level="info", text="y" * 1000)
    kept = 0
    while True:
        try:
            journal.recv(65536)
        except BlockingIOError:
            break
        kept += 1
    assert 0 < kept < 10_000
    (tmp_path / "journal").unlink()
    writer.info(event="x", level="info")
    writer.info(event="x", level="info", text="y" * 10_000_000)  # EMSGSIZE


def test_lines_go_to_the_journal_when_standard_error_is_its_stream(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    logs.setup("auto")
    log = structlog.get_logger().bind()
    log.warning("x", secret="hunter2", text=KEY)
    got = fields(journal.recv(65536))
    log._logger._socket.close()
    assert got["PRIORITY"] == "4"
    assert (got["ARKRELAY_SECRET"], got["ARKRELAY_TEXT"]) == ("[redacted]", "[redacted]")
    assert "hunter2" not in str(got)


@pytest.mark.parametrize("value", ["", "1:1", "nonsense"])
def test_lines_stay_on_standard_error_when_it_is_another_stream(
    value: str, journal: socket.socket, stream: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)  # inherited by a child whose standard error was redirected
    logs.setup("auto")
    structlog.get_logger().info("x")
    assert rows(stream)[0]["event"] == "x"
    with pytest.raises(BlockingIOError):
        journal.recv(65536)


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_console_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    logs.setup("auto")
    structlog.get_logger().info("hello_there")
    assert "hello_there" in terminal.getvalue()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(terminal.getvalue())


# -- libraries -----------------------------------------------------------------------------------------------------


def test_lines_of_libraries_come_in_our_form(stream: Written) -> None:
    logs.setup("json")
    library = logging.getLogger("some.library")
    library.info("not worth a line")
    library.warning("odd: %s", KEY)
    library.error("failed", exc_info=KeyError("k"))
    first, second = rows(stream)
    assert (first["event"], first["level"], first["logger"]) == ("library_log", "warning", "some.library")
    assert first["text"] == "odd: [redacted]"
    assert second["level"] == "error"
    assert "KeyError: 'k'" in second["exception"]


def test_a_line_of_a_library_that_is_wrong_does_not_fail_in_the_library(stream: Written) -> None:
    logs.setup("json")
    logging.getLogger("some.library").warning("%d messages", "many")
    assert rows(stream)[0]["text"] == "%d messages"


@pytest.mark.parametrize("name", ["mail.log", "mail.debug", "aiohttp.access"])
def test_libraries_that_log_what_clients_say_are_silent(name: str, stream: Written) -> None:
    logs.setup("json", "debug")
    logging.getLogger(name).error("AUTH PLAIN %s", "aHVudGVyMg==")
    assert stream.getvalue() == ""
