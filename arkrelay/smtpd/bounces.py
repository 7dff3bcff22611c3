"""Port 25, for our own names only: bounces, complaints, postmaster. Everything else is refused at RCPT.

Nothing that comes in here leaves again, and nothing is answered (RFC 5321 §4.5.5). Which addresses there are, and
what they are for, says ``relay.mailboxes``; what a report means, ``relay.inbound``. What is for a person is kept as a
file for postmaster.
"""

import asyncio
import errno
import re
import time
from email.utils import formatdate

import structlog

from arkrelay.model.address import Address, AddressError
from arkrelay.model.errors import Refused, StoreError, StoreFull
from arkrelay.relay.mailboxes import Mailbox, Purpose
from arkrelay.smtpd.transaction import Transaction, TransactionDoor
from arkrelay.store.postmaster import FOLDER, MAX_BYTES, save_postmaster_mail

log = structlog.get_logger()

_ANY_PATH = re.compile(r" *<[^<>]*>( .*)?")  # a command with a control character is refused before
WRAPPING_BYTES = 262_144  # what a report may have beside the message of ours that it brings back whole


class BouncesSession(TransactionDoor):
    """One client of ``bounces``: any host of the world, without AUTH."""

    dsn = False  # nothing is reported back from here: no answer to mail, no backscatter (RFC 3834 §2)

    _mailboxes: tuple[Mailbox, ...] = ()  # of the open transaction, in the order of its recipients

    def permit(self) -> None:
        """Everybody may speak; what counts here is the recipient."""

    def max_message_bytes(self) -> int:
        return self.snapshot.settings.smtp.max_message_bytes + WRAPPING_BYTES

    def parse_return_path(self, text: str, *, utf8: bool) -> tuple[Address | None, str]:
        """Take what is no address for the null path: nothing is sent there, and servers write ``<MAILER-DAEMON>``."""
        try:
            return super().parse_return_path(text, utf8=utf8)
        except AddressError:
            if (match := _ANY_PATH.fullmatch(text)) is None:
                raise
            return None, (match[1] or "").strip(" ")

    def check_return_path(self, return_path: Address | None) -> None:  # noqa: ARG002 -- any will do
        """Take any: bounces have none (RFC 5321 §4.5.5), and some servers give one all the same."""
        self._mailboxes = ()

    async def check_recipient(self, recipient: Address) -> None:
        found = await self.shared.inbound.find(recipient)
        if found is None:
            log.info("recipient_unknown", client=self.client, recipient=str(recipient))
            raise Refused(550, "5.1.1", "No such address here")
        self._mailboxes += (found,)

    async def keep(self, transaction: Transaction, content: bytes) -> str:
        mailboxes = dict.fromkeys(self._mailboxes)
        if any(one.purpose is Purpose.POSTMASTER for one in mailboxes) and len(content) > MAX_BYTES:
            raise Refused(552, "5.3.4", f"Mail to postmaster is at most {MAX_BYTES} bytes")
        if await self.shared.inbound.take(mailboxes, content):
            return "Ok: taken"
        await self._file(transaction, content)
        return "Ok: kept for postmaster"

    async def _file(self, transaction: Transaction, content: bytes) -> None:
        settings = self.snapshot.settings
        protocol = f"{'E' if self.extended else ''}SMTP{'S' if self.tls else ''}"
        trace = (
            f"Return-Path: <{transaction.return_path or ''}>\r\n"
            f"Received: from {self.helo} ({self.client}) by {settings.hostname} with {protocol};\r\n"
            f"\t{formatdate(time.time())}\r\n"
        )
        try:
            path, dropped = await asyncio.to_thread(
                save_postmaster_mail, settings.state_dir / FOLDER, trace.encode() + content[:MAX_BYTES]
            )
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull("no room for postmaster's mail") from exc
            raise StoreError(f"postmaster's mail cannot be written: {exc}") from exc
        log.info("postmaster_mail", client=self.client, file=path.name, size_bytes=len(content))
        if len(content) > MAX_BYTES:
            log.warning("postmaster_mail_cut", file=path.name, size_bytes=len(content), kept_bytes=MAX_BYTES)
        if dropped:
            log.warning("postmaster_mail_dropped", files=dropped, reason="newer mail took their place, unread or not")
