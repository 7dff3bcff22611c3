"""One log line per change of state, on standard error or in the journal, with secrets taken out.

Three forms: a console for people, JSON lines for collectors, and the journal's own protocol, whose fields can
be filtered (``journalctl ARKRELAY_RECIPIENT=ann@example.com``). The log never takes the service down: when its
reader has gone or its disk is full the line is dropped.
"""

import asyncio
import atexit
import json
import logging
import os
import re
import socket
import sys
import time
from collections import deque
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import structlog

GATHER_S: Final = 0.05
JOURNAL: Final = "/run/systemd/journal/socket"
SECRET_KEYS: Final = frozenset({"secret", "password", "authorization", "private_key", "api_key", "credential_key"})
# our own generated keys and sealed secrets, wherever they turn up
SECRET_TEXT: Final = re.compile(r"ark_(?:live|test)_[\w-]+|sealed:[\w+/=:-]+")
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog.h


def setup(log_format: str = "auto", level: str = "info") -> None:
    """Send structlog's and the libraries' lines to standard error, or to the journal when it reads that."""
    _hold_standard_streams()
    terminal = _stderr_is_terminal()
    if log_format == "auto":
        log_format = "journal" if _stderr_is_journal() else "console" if terminal else "json"
    # a traceback becomes text before secrets are taken out, so that none survives in an exception's message
    processors: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info, redact]
    factory: Any = Lines(sys.stderr)
    atexit.register(factory.flush)
    if log_format == "journal":
        processors.append(_as_is)
        factory = Journal
    elif log_format == "console":
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=24),
        ]
    else:
        processors += [
            _stamp,
            _json,
        ]
    wrapper: Any = structlog.make_filtering_bound_logger(LEVELS[level])
    if log_format == "json" and LEVELS[level] <= LEVELS["info"]:
        wrapper = _straight(wrapper)
    structlog.configure(
        processors=processors,
        wrapper_class=wrapper,
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(logging.WARNING)
    # aiosmtpd logs commands with addresses, aiohttp each request: we have our own lines for both.
    logging.getLogger("mail").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.CRITICAL)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace secrets: by the name of the key, and our own keys by their look."""
    for key, value in event.items():
        if key in SECRET_KEYS:
            event[key] = "[redacted]"
        elif isinstance(value, str) and ("ark_" in value or "sealed:" in value):
            event[key] = SECRET_TEXT.sub("[redacted]", value)
    return event


# one encoder for all lines: json.dumps with options makes a new one each time, a third of the cost of a line
_encode: Final = json.JSONEncoder(default=str, ensure_ascii=False).encode


_second = (0, "")  # the last second seen, and how it is written: most lines share it


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the time as structlog's own stamper does (ISO 8601, UTC, microseconds), at a fifth of its price."""
    global _second  # noqa: PLW0603 -- a cache of one entry, replaced whole
    now = time.time_ns()
    seconds, text = _second
    if now // 1_000_000_000 != seconds:
        seconds = now // 1_000_000_000
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    event["timestamp"] = f"{text}.{now // 1000 % 1_000_000:06d}Z"
    return event


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return _encode(event)


def _straight(wrapper: Any) -> type[Any]:
    """Return the class of loggers with an ``info`` that does at once what the processors of JSON lines do in turn.

    Two of its lines are written of each message; with structlog's chain a line cost 6.0 us, so it costs 4.6.
    """

    class Straight(wrapper):  # type: ignore[misc]  # structlog makes its class at run time
        def info(self, event: str, *args: Any, **fields: Any) -> None:
            if args or "exc_info" in fields:
                super().info(event, *args, **fields)
                return
            fields["event"], fields["level"] = event, "info"
            self._logger.msg(_encode(_stamp(None, "info", redact(None, "info", fields))))

    return Straight


class Lines:
    """The one logger that writes lines to standard error; it never raises.

    Lines of an event loop are gathered for 50 ms and written at once: two lines for each message would cost two
    system calls, 7 % of its CPU. Warnings, errors and lines from threads are written at once.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # None when it was closed before we started
        self._lines: deque[str] = deque()  # appended to by threads too
        self._scheduled = False

    def __call__(self, *_: Any) -> "Lines":
        """Return the logger for any name: there is one stream, and one order."""
        return self

    def msg(self, message: str) -> None:
        self._lines.append(message)
        if self._scheduled:
            return
        try:
            asyncio.get_running_loop().call_later(GATHER_S, self.flush)
        except RuntimeError:
            self.flush()
        else:
            self._scheduled = True

    def error(self, message: str) -> None:
        self._lines.append(message)
        self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        self._scheduled = False
        lines: list[str] = []
        while self._lines:
            lines.append(self._lines.popleft())
        if self._stream is None or not lines:
            return
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # closed, or its disk is full: the service goes on

    debug = info = log = msg
    warning = critical = fatal = exception = error


class Journal:
    """A logger whose methods send one datagram with fields (systemd's journal export protocol)."""

    def __init__(self, *_: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 -- the socket module's own signature

    def msg(self, **fields: Any) -> None:
        event = str(fields.pop("event", ""))
        level = fields.pop("level", "info")
        detail = " ".join(f"{key}={value}" for key, value in fields.items() if key != "exception")
        message = f"{event} {detail}".rstrip()
        if "exception" in fields:  # people read MESSAGE, and want the traceback
            message += f"\n{fields['exception']}"
        parts = {"MESSAGE": message, "PRIORITY": PRIORITY.get(level, 6)}
        parts |= {"SYSLOG_IDENTIFIER": "arkrelay", "ARKRELAY_EVENT": event}
        parts |= {f"ARKRELAY_{key.upper()}": value for key, value in fields.items()}
        try:
            self._socket.sendto(b"".join(_field(key, str(value)) for key, value in parts.items()), JOURNAL)
        except OSError:
            pass  # the journal is away or full: the service goes on

    debug = info = warning = error = critical = fatal = exception = log = msg


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return key.encode() + b"=" + data + b"\n"
    return key.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _as_is(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
    return (), dict(event)


def _hold_standard_streams() -> None:
    """Fill the numbers 0 to 2 where they are closed: a database opened as 2 would get what a library prints."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _stderr_is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, before we started or later
        return False


def _stderr_is_journal() -> bool:
    """Compare JOURNAL_STREAM with standard error, as systemd.exec(5) says."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        stat = os.fstat(2)
    except OSError:
        return False
    return stream == f"{stat.st_dev}:{stat.st_ino}" and Path(JOURNAL).exists()


class _Bridge(logging.Handler):
    """Lines of libraries, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = "error" if record.levelno >= logging.ERROR else "warning"
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit its text: no reason to fail in the library
            text = str(record.msg)
        getattr(log, level)("library_log", logger=record.name, text=text, exc_info=record.exc_info)
