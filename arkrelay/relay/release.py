"""What held mail takes of its tenant's limits when somebody lets it go, and what stays held then.

Mail that was held from the start took no place of the hour, the month and the budget of first-time recipients. It
takes one when it is released, in that write. A tenant's own key cannot pass over its limits by releasing: what does
not fit stays held. Who answers for the whole relay may let everything go, and it counts all the same.

A person who names a message has seen why it is held, and one who lets go whatever a filter finds has not: of that,
whoever is still on the suppression list stays held.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from arkrelay.model.address import address_key
from arkrelay.model.message import QUEUED, Recipient
from arkrelay.policy.limits import no_place
from arkrelay.relay.meter import Meter
from arkrelay.store import granted
from arkrelay.store.known import count_first_times, first_times, known, learn
from arkrelay.store.suppressions import among, reason_for

LISTED = "The suppression list has the address: release the message by its id to pass over that"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms mail is let go; ``budgets`` are those of first-time recipients, by tenant.

    ``places`` is how many may take a place of their tenant's limits, and ``full`` says why no more; None: any number,
    and the budgets do not hold either.
    """

    named: bool
    budgets: Mapping[str, int]
    places: int | None = None
    full: str = ""


@dataclass(slots=True)
class LetGo:
    """Who is let go, how many of each tenant took a place by it, and how many are not, by the reason."""

    recipients: list[Recipient] = field(default_factory=list)
    granted: Counter[str] = field(default_factory=Counter)
    stay: Counter[str] = field(default_factory=Counter)


def let_go(db: sqlite3.Connection, recipients: Sequence[Recipient], terms: Terms, now: float) -> LetGo:
    """In a job of the writer: let recipients go as far as ``terms`` allow, and count those that did not count yet."""
    found = LetGo()
    if not terms.named:
        recipients = _unlisted(db, recipients, found)
    waiting = granted.ungranted(db, (one for one in recipients if one.status not in QUEUED))
    taking: list[Recipient] = []
    new: dict[str, dict[str, None]] = {}  # addresses that their tenant meets by this, in order
    met = {tenant_id: first_times(db, tenant_id, now).passed for tenant_id, n in terms.budgets.items() if n}
    for one in recipients:
        if one.id not in waiting:
            found.recipients.append(one)
            continue
        if terms.places is not None and len(taking) >= terms.places:
            found.stay[terms.full] += 1
            continue
        tenant_id, key = one.message.tenant_id, address_key(one.address)
        meets = new.setdefault(tenant_id, {})
        if tenant_id in met and key not in meets and not known(db, tenant_id, key):
            budget = terms.budgets[tenant_id]
            if terms.places is not None and met[tenant_id] + len(meets) >= budget:
                found.stay[_over(budget)] += 1
                continue
            meets[key] = None
        found.recipients.append(one)
        taking.append(one)
    for tenant_id, keys in new.items():
        if not keys:
            continue
        learn(db, tenant_id, list(keys))
        # under no credential: whoever sent it has met them already, when they were held
        count_first_times(db, tenant_id, now, "", len(keys), 0)
    granted.grant(db, taking, now)
    found.granted.update(one.message.tenant_id for one in taking)
    return found


class Places:
    """Places of one tenant's limits that are taken before it is known how many are needed; give back the rest."""

    def __init__(self, meter: Meter, tenant_id: str, wanted: int, limits: tuple[int, int], now: float) -> None:
        self._meter = meter
        self._tenant_id = tenant_id
        self._now = now
        used = meter.used(tenant_id, now)
        rooms = [max(0, limit - n) for limit, n in zip(limits, used, strict=True) if limit]
        self.taken = min([wanted, *rooms])
        self.full = no_place(used, limits)
        meter.add(tenant_id, self.taken, now)

    def used(self, n: int) -> None:
        """Give back what of it was not needed."""
        self._meter.add(self._tenant_id, n - self.taken, self._now)


def _unlisted(db: sqlite3.Connection, recipients: Sequence[Recipient], found: LetGo) -> list[Recipient]:
    """Return who is not on the list; what waits in the queue is asked when it is due."""
    keys: dict[str, list[str]] = {}
    for one in recipients:
        keys.setdefault(one.message.tenant_id, []).append(address_key(one.address))
    entries = {tenant_id: among(db, tenant_id, some) for tenant_id, some in keys.items()}
    free = []
    for one in recipients:
        message = one.message
        if (
            one.status in QUEUED
            or reason_for(entries[message.tenant_id], address_key(one.address), message.tag, message.stream) is None
        ):
            free.append(one)
        else:
            found.stay[LISTED] += 1
    return free


def _over(budget: int) -> str:
    return f"The tenant's budget of {budget} first-time recipients a day is used up: it starts anew at midnight UTC"
