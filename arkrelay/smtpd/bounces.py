"""Port 25, for our own names only: it takes mail to ``postmaster`` and refuses everything else.

Nothing that comes in here leaves again. Bounces and complaints to our return paths have no meaning yet, so
they are refused at RCPT, where the peer learns it at once.
"""

import asyncio
import errno
import time
from email.utils import formatdate

import structlog

from arkrelay.model.address import Address
from arkrelay.model.errors import Refused, StoreError, StoreFull
from arkrelay.smtpd.postmaster import MAX_BYTES, save_postmaster_mail
from arkrelay.smtpd.transaction import Transaction, TransactionDoor

log = structlog.get_logger()


class BouncesSession(TransactionDoor):
    """One client of ``bounces``: any host of the world, without AUTH."""

    dsn = False  # nothing is reported back from here: no answer to mail, no backscatter (RFC 3834 §2)

    def permit(self) -> None:
        """Everybody may speak; what counts here is the recipient."""

    def max_message_bytes(self) -> int:
        return MAX_BYTES

    def check_recipient(self, recipient: Address) -> None:
        if recipient.local.lower() != "postmaster" or not self._ours(recipient.domain):
            raise Refused(550, "5.1.1", "No such address here")

    def _ours(self, domain: str) -> bool:
        settings = self.snapshot.settings
        if domain in (settings.hostname, settings.return_path_host):
            return True
        # each sender domain has a return path under its psrp name (Ark contract §13)
        label, _, parent = domain.partition(".")
        return label == "psrp" and self.snapshot.owner_of(parent) is not None

    async def keep(self, transaction: Transaction, content: bytes) -> str:
        settings = self.snapshot.settings
        protocol = f"{'E' if self.extended else ''}SMTP{'S' if self.tls else ''}"
        trace = (
            f"Return-Path: <{transaction.return_path or ''}>\r\n"
            f"Received: from {self.helo} ({self.client}) by {settings.hostname} with {protocol};\r\n"
            f"\t{formatdate(time.time())}\r\n"
        )
        try:
            path = await asyncio.to_thread(
                save_postmaster_mail, settings.state_dir / "postmaster", trace.encode() + content
            )
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull("no room for postmaster's mail") from exc
            raise StoreError(f"postmaster's mail cannot be written: {exc}") from exc
        log.info("postmaster_mail", client=self.client, file=path.name, size_bytes=len(content))
        return "Ok: kept for postmaster"
