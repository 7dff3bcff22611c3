"""What is looked at once more before a recipient leaves: its address, its tenant, its credential.

Weeks may pass between the moment when mail was admitted and the one when it is due. An address that was suppressed
meanwhile holds it, and so do a tenant that is not active and a credential on hold; a tenant that is gone ends it, and
so does the end of its own lifetime.
"""

import sqlite3
from dataclasses import dataclass

from arkrelay.config.snapshot import Snapshot
from arkrelay.model.address import address_key
from arkrelay.model.message import HoldReason, Recipient
from arkrelay.model.outcome import Outcome
from arkrelay.policy import outcomes
from arkrelay.policy.admit import withheld
from arkrelay.policy.describe import tenant_gone
from arkrelay.store import queue as rows
from arkrelay.store.suppressions import among, reason_for


@dataclass(frozen=True, slots=True)
class Claimed:
    """Recipients that were leased, and those of them whose address is suppressed: by id, the reason on the list."""

    recipients: list[Recipient]
    next_due: float | None
    suppressed: dict[int, str]


def claim(db: sqlite3.Connection, destination: str, tenant_id: str, now: float, count: int, epoch: int) -> Claimed:
    """A job of the writer: lease up to ``count`` due rows, and look their addresses up."""
    recipients = rows.claim(db, destination, tenant_id, now, count, epoch)
    keys: dict[str, list[Recipient]] = {}
    for recipient in recipients:
        if recipient.hold_reason is not HoldReason.SUPPRESSED:  # else a person has passed over the list (see settle)
            keys.setdefault(address_key(recipient.address), []).append(recipient)
    found: dict[int, str] = {}
    if keys:
        entries = among(db, tenant_id, list(keys))
        for key in entries:
            for recipient in keys[key]:
                message = recipient.message
                if (reason := reason_for(entries, key, message.tag, message.stream)) is not None:
                    found[recipient.id] = reason
    return Claimed(recipients, rows.next_due(db, destination, tenant_id), found)


def kept_back(recipient: Recipient, snapshot: Snapshot, now: float) -> Outcome | None:
    """Return None when its tenant and its credential still let this recipient leave, else what becomes of it."""
    message = recipient.message
    tenant = snapshot.tenants.get(message.tenant_id)
    if tenant is None:
        return outcomes.fail(recipient, tenant_gone(message.tenant_id), now)
    if message.expires_at is not None and message.expires_at <= now:
        return outcomes.expired(recipient, now)
    hold = withheld(tenant, message.credential, recipient.hold_reason)
    return None if hold is None else outcomes.hold(recipient, hold.hold_reason, hold.reason, now)
