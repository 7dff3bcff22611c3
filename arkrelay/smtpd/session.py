"""Authenticated submission (RFC 6409): who the client is, and its mail as a ``Submission``.

A client authenticates under TLS, or on a listener for this machine only. A listener that is bound to a tenant
needs no password: who can reach it is the tenant. Everybody else hears 530 to whatever is tried.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from arkrelay.config.live import Snapshot
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused
from arkrelay.model.message import Door, RecipientRequest, Submission
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.smtpd.auth import Attempt, authenticate, loggable_username, may_send
from arkrelay.smtpd.connection import HangUp
from arkrelay.smtpd.conversation import AUTH_LINE
from arkrelay.smtpd.input import BareLineFeed, LineTooLong
from arkrelay.smtpd.transaction import Transaction, TransactionDoor

log = structlog.get_logger()

MAX_AUTH_FAILURES: Final = 5  # on one connection

# RFC 3848, RFC 6531 §4.3
PROTOCOLS: Final[Mapping[tuple[bool, bool, bool], str]] = {
    (utf8, tls, auth): ("UTF8SMTP" if utf8 else "ESMTP") + ("S" if tls else "") + ("A" if auth else "")
    for utf8 in (False, True)
    for tls in (False, True)
    for auth in (False, True)
}


class SubmissionSession(TransactionDoor):
    """One client of ``submission`` or ``submissions``."""

    identity: tuple[Tenant, Credential] | None = None
    _identity_of: Snapshot | None = None  # the configuration in which ``identity`` was last looked up
    _auth_failures = 0
    _heard_at = 0.0

    # Who this is.

    def forget(self) -> None:
        super().forget()
        self.identity = None

    def auth_offered(self) -> bool:
        """Return whether a password may be sent here: encrypted, or without leaving this machine."""
        return self.tls or self.listen.tls in ("optional", "none") or self._on_unix_socket()

    def _on_unix_socket(self) -> bool:
        return self.listen.address.startswith("unix:")

    def _must_encrypt_first(self) -> bool:
        return not self.tls and self.listen.tls in ("", "required") and not self._on_unix_socket()

    def permit(self) -> None:
        if self._must_encrypt_first():
            raise Refused(530, "5.7.0", "Must issue a STARTTLS command first")
        if self.identity is None and not self.listen.tenant:
            raise Refused(530, "5.7.0", "Authentication required")
        if self.identity is not None and self._identity_of is not self.snapshot:
            self.identity = self._still_valid(*self.identity)
            self._identity_of = self.snapshot
            if self.identity is None:
                self.transaction = None
                raise Refused(530, "5.7.0", "Authentication required: the credential is no longer valid")

    def _still_valid(self, tenant: Tenant, credential: Credential) -> tuple[Tenant, Credential] | None:
        """Find the credential again after a reload; with another secret it is another one."""
        key = (tenant.id, credential.name)
        before = self._identity_of.index.digests.get(key) if self._identity_of is not None else None
        fresh = self.snapshot.tenants.get(tenant.id)
        found = fresh.credential(credential.name) if fresh is not None else None
        if fresh is None or found is None or not may_send(fresh, found):
            return None
        return (fresh, found) if self.snapshot.index.digests.get(key) == before else None

    def _sender(self) -> tuple[str, str | None]:
        """Return the tenant's id and the name of the credential, None on a bound listener."""
        if self.identity is None:
            return self.listen.tenant, None
        return self.identity[0].id, self.identity[1].name

    # Its mail.

    def ehlo_key(self) -> tuple[Any, ...]:
        return (self.listen, self.tls, self.auth_offered())

    def extensions(self) -> list[str]:
        mechanisms = self.snapshot.settings.smtp.auth_mechanisms
        auth = [f"AUTH {' '.join(mechanisms)}"] if self.auth_offered() and mechanisms else []
        # RFC 8689 §4.1: offered under TLS only
        return super().extensions() + auth + (["REQUIRETLS"] if self.requiretls_offered() else [])

    def requiretls_offered(self) -> bool:
        return self.tls

    def check_return_path(self, return_path: Address | None) -> None:
        tenant_id, credential = self._sender()
        self.shared.submitter.check_sender(tenant_id, credential, return_path)
        rate = self.shared.rates.hit_by_mail(tenant_id, self.snapshot.settings.limits)
        if rate is not None and rate.wait_s is not None:
            # Said at MAIL, before anything is sent in vain; 450 4.7.1 is what Postfix's rate limit says there, and
            # clients take it for what it is: come again.
            raise Refused(450, "4.7.1", f"Rate limit exceeded: try again in {rate.retry_after_s} s")

    async def keep(self, transaction: Transaction, content: bytes) -> str:
        tenant_id, credential = self._sender()
        utf8 = transaction.parameters.smtputf8
        now = time.time()
        seconds, mode = transaction.parameters.by or (0, "")
        accepted = await self.shared.submitter.submit(
            Submission(
                door=Door.SMTP,
                tenant_id=tenant_id,
                credential=credential,
                return_path=transaction.return_path,
                recipients=tuple(_told(one, mode) for one in transaction.recipients),
                content=content,
                received_at=now,
                helo=self.helo,
                client=self.client,
                protocol=PROTOCOLS[utf8, self.tls, self.identity is not None] if self.extended else "SMTP",
                smtputf8=utf8,
                requiretls=transaction.parameters.requiretls,
                ret=transaction.parameters.ret,
                envid=transaction.parameters.envid,
                expires_at=now + seconds if mode == "R" else None,
                tell_at=now + seconds if mode == "N" else None,
                test=credential is not None and self.snapshot.is_test(tenant_id, credential),
            )
        )
        return f"Ok: queued as {accepted.tokens[0]}"

    async def smtp_VRFY(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        self.permit()
        await super().smtp_VRFY(argument)

    # AUTH (RFC 4954).

    async def smtp_AUTH(self, argument: str) -> None:  # noqa: N802 -- aiosmtpd's name
        if not self.extended:
            self.refuse(503, "5.5.1", "Say EHLO first")
            return
        if self.identity is not None:
            self.refuse(503, "5.5.1", "Already authenticated")
            return
        if self.transaction is not None:
            self.refuse(503, "5.5.1", "AUTH is not possible within a transaction")
            return
        if not self.auth_offered():
            self.refuse(538, "5.7.11", "Encryption is required for authentication: STARTTLS first")
            return
        words = argument.split(" ")
        mechanism = words[0].upper()
        if not argument or len(words) > 2:
            self.refuse(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
            return
        if mechanism not in self.snapshot.settings.smtp.auth_mechanisms:
            self.refuse(504, "5.5.4", "This mechanism is not offered")
            return
        limits = self.snapshot.settings.limits
        if self.shared.limiter.auth_blocked(self.address, limits, self.loop.time()):
            log.warning("auth_blocked", client=self.client)
            self.refuse(421, "4.7.0", "Too many failed logins, try again later")
        self._heard_at = self.loop.time()
        # RFC 4954 §4: "=" alone is an initial response of no bytes
        initial = None if len(words) == 1 else b"" if words[1] == "=" else _decode(words[1].encode())
        attempt = await authenticate(mechanism, initial, self._ask, self.snapshot, self.snapshot.settings.hostname)
        if attempt.proved is None:
            await self._fail(mechanism, attempt)
            return
        self.identity, self._identity_of = attempt.proved, self.snapshot
        self.shared.limiter.auth_succeeded(self.address)
        log.debug("auth_succeeded", client=self.client, mechanism=mechanism, tenant=attempt.proved[0].id)
        self.reply(235, "2.7.0", "Authentication successful")

    async def _fail(self, mechanism: str, attempt: Attempt) -> None:
        """Say 535, always in the same words and after the same time, and count it."""
        limits = self.snapshot.settings.limits
        self.shared.limiter.auth_failed(self.address, limits, self.loop.time())
        if self.shared.metrics is not None:
            self.shared.metrics.auth_failures.inc()
        # The form of this line is fixed: fail2ban reads it (README).
        log.warning(
            "auth_failed",
            client=self.client,
            mechanism=mechanism,
            username=loggable_username(attempt.username, self.snapshot),
        )
        self._auth_failures += 1
        # counted from the client's last word, so that the time of the work above does not show
        await asyncio.sleep(self._heard_at + limits.tarpit_s - self.loop.time())
        self._reset_timeout()
        if self._auth_failures >= MAX_AUTH_FAILURES:
            self.refuse(421, "4.7.0", "Too many failed logins")
        self.reply(535, "5.7.8", "Authentication credentials invalid")

    async def _ask(self, challenge: bytes) -> bytes:
        """Return the client's answer to a challenge; raises ``Refused`` when it cancels or is malformed."""
        self.write(b"334 " + base64.b64encode(challenge) + b"\r\n")
        await self.flush()
        while True:
            try:
                line = self.input.take_line(AUTH_LINE)
            except LineTooLong as exc:
                raise Refused(500, "5.5.6", "Authentication line too long") from exc
            except BareLineFeed:
                self.bye(554, "5.5.2", "Bare LF: lines end in CRLF (RFC 5321 2.3.8)")
                continue
            if line is not None:
                break
            if self.input.eof:
                raise HangUp
            await self.input.more()
        self._heard_at = self.loop.time()
        self._reset_timeout()
        if line == b"*":
            raise Refused(501, "5.7.0", "Authentication cancelled")
        return _decode(line)


def _told(recipient: RecipientRequest, mode: str) -> RecipientRequest:
    """Return the recipient with the notices that BY asks for where NOTIFY says nothing (RFC 2852 §4.1)."""
    if not mode or recipient.notify is not None:
        return recipient
    return replace(recipient, notify="FAILURE" if mode == "R" else "FAILURE,DELAY")


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise Refused(501, "5.5.2", "That is not base64") from exc
