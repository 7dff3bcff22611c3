"""What is said over a connection: lines in, replies out, and the verbs that need no transaction.

A client that speaks before it was asked (RFC 2920 §3.1, CVE-2011-0411), ends a line in anything but CRLF or makes
one mistake after the other is refused and closed.
"""

import re
from typing import Any, Final

from arkrelay.model.errors import Refused
from arkrelay.model.settings import Listen
from arkrelay.smtpd.connection import Connection, HangUp, has_arrived
from arkrelay.smtpd.input import BareLineFeed, LineTooLong
from arkrelay.smtpd.reply import answer_to
from arkrelay.smtpd.shared import Shared

MAX_ERRORS: Final = 10  # 5xx replies since the last accepted message; Postfix's smtpd_hard_error_limit is 20
MAX_IDLE_COMMANDS: Final = 100  # without an accepted message; Postfix's smtpd_junk_command_limit
OUT_LINES: Final = 64  # replies that wait for one write while the client pipelines

LINE: Final = 512  # RFC 5321 §4.5.3.1.4, with the CRLF
AUTH_LINE: Final = 12_288 + 2  # RFC 4954 §4
# Each extension adds what its parameters need: SIZE 26 (RFC 1870), BODY 17 (RFC 6152), SMTPUTF8 10 (RFC 6531),
# AUTH 500 (RFC 4954), RET 9 and ENVID 107; NOTIFY 36 and ORCPT 507 (RFC 3461); BY 17 (RFC 2852).
LINES: Final = {"MAIL": LINE + 26 + 17 + 10 + 500 + 9 + 107 + 17, "RCPT": LINE + 36 + 507, "AUTH": AUTH_LINE}
HTTP_VERBS: Final = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"})
WORK: Final = frozenset({"RCPT", "DATA", "AUTH", "STARTTLS", "QUIT"})  # verbs that do not count as idle

OK: Final = b"250 2.0.0 Ok\r\n"

_UNCLEAN = re.compile(rb"[^ -~]")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ODD_IN_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")


class Conversation(Connection):
    """One client of a door; the door is a subclass with its verbs.

    A verb is a method ``smtp_VERB(argument)``. It answers through ``write``, ``reply`` and ``refuse``, or raises:
    a ``Refused`` is answered as it says, anything else as our own trouble.
    """

    def __init__(self, listen: Listen, shared: Shared) -> None:
        super().__init__(listen, shared)
        self.helo = ""
        self.extended = False
        self._errors = 0
        self._idle_commands = 0

    # What a door says about itself.

    def busy(self) -> bool:
        """Return whether a transaction is under way, which a stop lets finish."""
        return False

    def extensions(self) -> list[str]:
        """Return the EHLO keywords of this door beside STARTTLS."""
        return []

    def ehlo_key(self) -> tuple[Any, ...]:
        """Return what the EHLO reply depends on, beside the configuration."""
        return (self.listen, self.tls)

    def forget(self) -> None:
        """Drop what the client said about itself and its mail (RFC 3207 §4.2)."""
        self.helo, self.extended = "", False

    def accepted(self) -> None:
        """A message was accepted: the client has shown that it does its work."""
        self._errors = self._idle_commands = 0

    def refuse(self, code: int, enhanced: str, text: str) -> None:
        if code >= 500:
            self._errors += 1
        super().refuse(code, enhanced, text)

    # The conversation.

    async def converse(self) -> None:
        self._greet()
        while True:
            try:
                line = self.input.take_line(AUTH_LINE)
            except LineTooLong:
                self._check_patience()
                self.refuse(500, "5.5.2", "Line too long")
                continue
            except BareLineFeed:
                self.bye(554, "5.5.2", "Bare LF: lines end in CRLF (RFC 5321 2.3.8)")
                continue
            if line is not None:
                await self._command(line)
                if len(self.out) > OUT_LINES:
                    await self.flush()
            elif self.out:
                await self.flush()
            elif self.input.eof:
                raise HangUp
            else:
                self._stop_between_transactions()
                await self.input.more()

    def _greet(self) -> None:
        if self.input.buffer or (not self.tls and has_arrived(self.live_transport())):
            self.bye(554, "5.5.0", "Client spoke before the greeting")
        self.write(f"220 {self.snapshot.settings.hostname} ESMTP arkrelay\r\n".encode("ascii"))

    def _stop_between_transactions(self) -> None:
        if self.shared.stopping and not self.busy():
            self.refuse(421, "4.3.2", "Stopping, try again later")

    def _check_patience(self) -> None:
        if self._errors >= MAX_ERRORS:
            self.refuse(421, "4.7.0", "Too many errors")
        if self._idle_commands >= MAX_IDLE_COMMANDS:
            self.refuse(421, "4.7.0", "Too many commands without mail")

    async def _command(self, line: bytes) -> None:
        self._stop_between_transactions()
        self._check_patience()
        self.snapshot = self.shared.live.snapshot
        try:
            verb, argument = _parse(line)
            if verb not in WORK:
                self._idle_commands += 1
            if verb != "NOOP":
                self._reset_timeout()  # nobody stays for ever by saying nothing, however often
            method = self._smtp_methods.get(verb)
            if method is not None:
                await method(argument)
            elif verb in HTTP_VERBS:
                self.bye(554, "5.5.0", "This is SMTP")  # a browser was made to come here
            else:
                self.refuse(502, "5.5.1", "Command not implemented")
        except HangUp:
            raise
        except Exception as exc:  # noqa: BLE001 -- any surprise is answered with 451, and the session goes on
            answer = answer_to(exc)
            self.refuse(answer.code, answer.enhanced, answer.text)

    # The verbs without a transaction.

    async def smtp_STARTTLS(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd finds verbs by these names
        if self.tls:
            self.refuse(503, "5.5.1", "TLS is already active")
            return
        context = self.tls_context_now()
        if context is None:
            self.refuse(454, "4.7.0", "TLS is not available")
            return
        if argument:
            self.refuse(501, "5.5.4", "STARTTLS takes no argument")
            return
        if self.input.buffer:
            self.bye(554, "5.5.0", "Nothing may follow STARTTLS before its reply")
        self.write(b"220 2.0.0 Ready to start TLS\r\n")
        await self.flush()
        if self.input.buffer:  # it came while we waited for the client to read
            raise HangUp
        await self.start_tls_over(context)

    def _say_hello(self, name: str) -> bool:
        if not name or " " in name or len(name) > 255:
            self.refuse(501, "5.5.4", "Say your host name")
            return False
        self._set_rset_state()
        self.helo = _ODD_IN_NAME.sub("?", name)  # it goes into Received, where the rest has a meaning
        return True

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802 -- aiosmtpd's name
        if self._say_hello(hostname):
            self.extended = False
            self.write(f"250 {self.snapshot.settings.hostname}\r\n".encode("ascii"))

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 -- aiosmtpd's name
        if not self._say_hello(hostname):
            return
        self.extended = True
        shared = self.shared
        if shared.ehlo_of is not self.snapshot:
            shared.ehlo_of = self.snapshot
            shared.ehlo.clear()
        key = self.ehlo_key()
        lines = shared.ehlo.get(key)
        if lines is None:
            keywords = [self.snapshot.settings.hostname, *self.extensions()]
            if not self.tls and self.tls_context_now() is not None:
                keywords.append("STARTTLS")
            last = len(keywords) - 1
            text = "".join(f"250{' ' if i == last else '-'}{word}\r\n" for i, word in enumerate(keywords))
            lines = shared.ehlo[key] = text.encode("ascii")
        self.write(lines)

    async def smtp_NOOP(self, _argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.write(OK)

    async def smtp_RSET(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        if argument:
            self.refuse(501, "5.5.4", "RSET takes no argument")
            return
        self._set_rset_state()
        self.write(OK)

    async def smtp_QUIT(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        if argument:
            self.refuse(501, "5.5.4", "QUIT takes no argument")
            return
        self.write(b"221 2.0.0 Bye\r\n")
        raise HangUp

    async def smtp_HELP(self, _argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.reply(214, "2.0.0", "See RFC 5321 and RFC 6409")

    async def smtp_VRFY(self, _argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.reply(252, "2.5.2", "Send some mail to find out")  # RFC 5321 §3.5.3: nobody's addresses are told

    async def smtp_AUTH(self, _argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.refuse(502, "5.5.1", "Command not implemented")  # a door that wants it says so

    async def smtp_EXPN(self, _argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.refuse(502, "5.5.1", "Command not implemented")


def _parse(line: bytes) -> tuple[str, str]:
    """Return the verb in capitals and its argument, or raise ``Refused``.

    Only MAIL and RCPT may hold UTF-8, and they look whether SMTPUTF8 allows it.
    """
    if _UNCLEAN.search(line) is None:
        text = line.decode("ascii")
    elif _CONTROL.search(line) is not None:
        raise Refused(500, "5.5.2", "Control character in the command")
    else:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise Refused(500, "5.5.2", "The command is neither ASCII nor UTF-8") from exc
    verb, _, argument = text.partition(" ")
    verb = verb.upper()
    if len(line) + 2 > LINES.get(verb, LINE):
        raise Refused(500, "5.5.2", "Line too long")
    if not text.isascii() and verb not in ("MAIL", "RCPT"):
        raise Refused(500, "5.5.2", "Non-ASCII text in the command")
    return verb, argument.strip(" ")
