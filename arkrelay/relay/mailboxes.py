"""The addresses of our own that take mail from the world: what each is for, and nothing else is one.

- a return path: ``ReturnPaths`` made it and it is not too old, at whatever domain: its code is the proof, and the
  name that it was made for may have gone since (a domain that was removed, another ``return_path_host``);
- where a recipient leaves a stream (``mail.unsubscribe``), at ``return_path_host``: what has the form of one, whose
  proof is the record of its recipient (``Inbound.find``);
- ``fbl`` and ``abuse``: feedback loops are registered with the first, RFC 2142 §4 wants the second;
- ``postmaster`` (RFC 5321 §4.5.1).

The last three are at ``hostname``, at ``return_path_host`` and at ``psrp.<domain>`` of the sender domains of tenants
(Ark contract §13). A further sort of address is one more finder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from arkrelay.config.live import Live
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.address import Address


class Purpose(StrEnum):
    """What is done with mail that comes to an address."""

    RETURN_PATH = "return_path"
    FEEDBACK = "feedback"
    POSTMASTER = "postmaster"
    UNSUBSCRIBE = "unsubscribe"


NAMED = {"postmaster": Purpose.POSTMASTER, "fbl": Purpose.FEEDBACK, "abuse": Purpose.FEEDBACK}


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address of ours; ``recipient_id`` is whom mail to it is about, where the address itself proves it."""

    purpose: Purpose
    address: str
    recipient_id: int | None = None


Finder = Callable[[Address, float], Mailbox | None]


class Mailboxes:
    """Says what an address is to us, by the configuration in force."""

    def __init__(self, live: Live, return_paths: ReturnPaths, unsubscribes: UnsubscribeTokens) -> None:
        self._live = live
        self._return_paths = return_paths
        self._unsubscribes = unsubscribes
        self._finders: tuple[Finder, ...] = (self._return_path, self._unsubscribe, self._named)

    def find(self, address: Address, now: float) -> Mailbox | None:
        """Return the mailbox of this address, or None: there is none."""
        return next((found for finder in self._finders if (found := finder(address, now)) is not None), None)

    def recipient_of(self, mark: str, now: float) -> int | None:
        """Return the recipient whose return path has this local part, or None: it is not one of ours, or too old."""
        return self._return_paths.parse(mark, now)

    def _return_path(self, address: Address, now: float) -> Mailbox | None:
        recipient_id = self._return_paths.parse(address.local, now)
        return None if recipient_id is None else Mailbox(Purpose.RETURN_PATH, str(address), recipient_id)

    def _unsubscribe(self, address: Address, _now: float) -> Mailbox | None:
        if address.domain != self._live.snapshot.settings.return_path_host:
            return None
        recipient_id = self._unsubscribes.recipient_of(address.local)
        return None if recipient_id is None else Mailbox(Purpose.UNSUBSCRIBE, str(address), recipient_id)

    def _named(self, address: Address, _now: float) -> Mailbox | None:
        purpose = NAMED.get(address.local.lower())
        ours = address.domain == self._live.snapshot.settings.hostname or self._takes_returns(address.domain)
        return Mailbox(purpose, str(address)) if purpose is not None and ours else None

    def _takes_returns(self, domain: str) -> bool:
        snapshot = self._live.snapshot
        label, _, parent = domain.partition(".")
        return domain == snapshot.settings.return_path_host or (
            label == "psrp" and snapshot.owner_of(parent) is not None
        )
