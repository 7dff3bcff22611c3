"""MAIL, RCPT and DATA (RFC 5321 §3.3): one envelope and its content, handed over whole.

What may be sent is the door's to say: ``permit`` (may this client speak at all), ``parse_return_path`` and
``check_return_path``, ``check_recipient``, and ``keep``.
"""

import asyncio
from dataclasses import dataclass, field, replace

from arkrelay.model.address import Address, AddressError, parse_path
from arkrelay.model.errors import Refused
from arkrelay.model.message import RecipientRequest
from arkrelay.smtpd.conversation import Conversation
from arkrelay.smtpd.data import TooMuch, canonical, read_data
from arkrelay.smtpd.parameters import MailParameters, RcptParameters, parse_mail, parse_rcpt
from arkrelay.smtpd.reply import Answer, answer_to

MIN_RATE = 500.0  # bytes per second that DATA must average; Postfix's smtpd_min_data_rate
INLINE_BYTES = 256_000  # the line ends of a larger message are looked at in a thread: over 1 ms
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"


@dataclass(slots=True)
class Transaction:
    """The envelope between MAIL and the end of DATA."""

    return_path: Address | None
    parameters: MailParameters
    recipients: list[RecipientRequest] = field(default_factory=list)


class TransactionDoor(Conversation):
    """A door that takes mail."""

    dsn = True  # RFC 3461 is offered, and RFC 2852, whose answers are notices as well

    transaction: Transaction | None = None

    # What a door decides.

    def permit(self) -> None:
        """Raise ``Refused`` when this client may not send mail here (yet)."""
        raise NotImplementedError

    def max_message_bytes(self) -> int:
        """Return the largest message that this door takes."""
        return self.snapshot.settings.smtp.max_message_bytes

    def parse_return_path(self, text: str, *, utf8: bool) -> tuple[Address | None, str]:
        """Return the return path of a MAIL argument and its parameters, or raise ``AddressError``."""
        return parse_path(text, utf8=utf8)

    def check_return_path(self, return_path: Address | None) -> None:
        """Raise ``Refused`` when mail with this return path is not taken."""

    async def check_recipient(self, recipient: Address) -> None:
        """Raise ``Refused`` when mail to this address is not taken."""

    def requiretls_offered(self) -> bool:
        """Return whether a message may demand TLS of every hop that follows (RFC 8689)."""
        return False

    async def keep(self, transaction: Transaction, content: bytes) -> str:
        """Return the text of the 250 when the message is on disk, or raise."""
        raise NotImplementedError

    # The verbs.

    def busy(self) -> bool:
        return self.transaction is not None

    def forget(self) -> None:
        super().forget()
        self.transaction = None

    def _set_rset_state(self) -> None:
        self.transaction = None

    def extensions(self) -> list[str]:
        smtp = self.snapshot.settings.smtp
        return [
            "PIPELINING",
            f"SIZE {self.max_message_bytes()}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            *(["DSN", "DELIVERBY"] if self.dsn else []),
            f"LIMITS RCPTMAX={smtp.max_recipients}",  # RFC 9422
        ]

    async def smtp_MAIL(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.permit()
        if not self.helo:
            self.refuse(503, "5.5.1", "Say EHLO first")
            return
        if self.transaction is not None:
            self.refuse(503, "5.5.1", "A transaction is open; RSET ends it")
            return
        if argument[:5].upper() != "FROM:":
            self.refuse(501, "5.5.4", "Syntax: MAIL FROM:<address>")
            return
        return_path, parameters = self._parse_mail(argument[5:])
        limit = self.max_message_bytes()
        if parameters.size_bytes > limit:
            self.refuse(552, "5.3.4", f"The message is larger than {limit} bytes")
            return
        if (not_ready := self.shared.submitter.not_ready()) is not None:
            raise not_ready
        self.check_return_path(return_path)
        self.transaction = Transaction(return_path, parameters)
        self.write(SENDER_OK)

    async def smtp_RCPT(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.permit()
        transaction = self.transaction
        if transaction is None:
            self.refuse(503, "5.5.1", "MAIL comes first")
            return
        if argument[:3].upper() != "TO:":
            self.refuse(501, "5.5.4", "Syntax: RCPT TO:<address>")
            return
        recipient, parameters = self._parse_rcpt(argument[3:], utf8=transaction.parameters.smtputf8)
        if len(transaction.recipients) >= self.snapshot.settings.smtp.max_recipients:
            self.refuse(452, "4.5.3", "Too many recipients in one transaction")
            return
        if not recipient.domain:  # <postmaster>, RFC 5321 §4.5.1
            recipient = replace(recipient, domain=self.snapshot.settings.hostname)
        await self.check_recipient(recipient)
        transaction.recipients.append(RecipientRequest(recipient, parameters.notify, parameters.orcpt))
        self.write(RECIPIENT_OK)

    def _parse_mail(self, text: str) -> tuple[Address | None, MailParameters]:
        ascii_only = text.isascii()
        try:
            return_path, rest = self.parse_return_path(text, utf8=not ascii_only)
        except AddressError as exc:
            raise Refused(501, "5.1.7", str(exc)) from exc
        if rest and not self.extended:
            raise Refused(555, "5.5.4", "Parameters need EHLO")
        parameters = parse_mail(rest, dsn=self.dsn, requiretls=self.requiretls_offered())
        if not ascii_only and not parameters.smtputf8:
            raise Refused(550, "5.6.7", "A non-ASCII address needs SMTPUTF8")  # RFC 6531 §3.5
        return return_path, parameters

    def _parse_rcpt(self, text: str, *, utf8: bool) -> tuple[Address, RcptParameters]:
        if not utf8 and not text.isascii():
            raise Refused(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")  # RFC 6531 §3.5
        try:
            recipient, rest = parse_path(text, utf8=utf8)
        except AddressError as exc:
            raise Refused(501, "5.1.3", str(exc)) from exc
        if recipient is None:
            raise Refused(501, "5.1.3", "The null address is no recipient")
        if rest and not self.extended:
            raise Refused(555, "5.5.4", "Parameters need EHLO")
        return recipient, parse_rcpt(rest, dsn=self.dsn)

    async def smtp_DATA(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.permit()
        transaction = self.transaction
        if argument:
            self.refuse(501, "5.5.4", "DATA takes no argument")
        elif transaction is None:
            self.refuse(503, "5.5.1", "MAIL comes first")
        elif not transaction.recipients:
            self.refuse(554, "5.5.1", "No valid recipient")
        elif self.input.buffer:
            self.bye(554, "5.5.0", "Nothing may follow DATA before its reply")
        else:
            self.write(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            await self.flush()
            await self._receive(transaction)

    async def _receive(self, transaction: Transaction) -> None:
        smtp, limit = self.snapshot.settings.smtp, self.max_message_bytes()
        idle_s, started_at = smtp.idle_timeout_s, self.loop.time()

        def progress(received: int) -> None:
            # a block may take as long as a command, and the whole no longer than MIN_RATE allows
            if idle_s:
                self.set_deadline(min(self.loop.time(), started_at + received / MIN_RATE) + idle_s)

        try:
            stuffed = await read_data(self.input, limit, progress)
        except EOFError:
            self.transaction = None
            return  # nobody is there to answer; of half a message nothing is kept
        except TooMuch:
            self.bye(552, "5.3.4", f"The message is larger than {limit} bytes")
            return
        self.transaction = None
        content = None
        if stuffed is not None:
            content = await self._canonical(stuffed, reject_bare_newline=smtp.bare_newline == "reject")
            del stuffed
        if content is None or len(content) > limit:
            self.refuse(552, "5.3.4", f"The message is larger than {limit} bytes")
            return
        # From here on the message may become ours at any moment. Neither a client that goes away nor a timer may
        # interrupt that: it would hear nothing, or 4xx, of a message that is delivered, and send it again.
        self.set_deadline(None)
        task = self.shared.commits.spawn("smtp_commit", self._answer(transaction, content))
        answer = await asyncio.shield(task)
        self._reset_timeout()
        if answer.code == 250:
            self.accepted()
        self.refuse(answer.code, answer.enhanced, answer.text)

    @staticmethod
    async def _canonical(stuffed: bytes, *, reject_bare_newline: bool) -> bytes:
        if len(stuffed) <= INLINE_BYTES:
            return canonical(stuffed, reject_bare_newline=reject_bare_newline)
        return await asyncio.to_thread(canonical, stuffed, reject_bare_newline=reject_bare_newline)

    async def _answer(self, transaction: Transaction, content: bytes) -> Answer:
        try:
            return Answer(250, "2.0.0", await self.keep(transaction, content))
        except Exception as exc:  # noqa: BLE001 -- each becomes a reply, also when nobody is left to read it
            return answer_to(exc)
