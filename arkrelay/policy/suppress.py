"""What puts an address on a tenant's suppression list by itself (Ark contract §9.3), and when nothing does.

A failure suppresses when its class blames the recipient: that the address does not exist is as true tomorrow. A full
mailbox is emptied some day, so it takes three of them in a week. What a site says of our own mail (blocklists, spam,
policy) suppresses nobody, and what it says of recipients is not believed when it says so of too many at once
(``burst``): a filter that has had enough of a sender answers "no such user" as well. With ``on = "any-hardfail"`` all
of this is off, and it is as Ark has it.
"""

from typing import Final

from arkrelay.model.attempt import BLAMES_RECIPIENT, BounceClass, Classified
from arkrelay.model.message import Status
from arkrelay.model.settings import Suppression
from arkrelay.model.suppression import Suppress
from arkrelay.model.tenant import Tenant

HARD_FAIL: Final = "hard fail"  # the contract's words (§9.3), as the next two
TOO_MANY: Final = "too many soft fails"
COMPLAINT: Final = "complaint"
MAILBOX_FULL: Final = "mailbox full"
BOUNCE: Final = "bounce"


def on_failure(classified: Classified, status: Status, settings: Suppression) -> Suppress | None:
    """Return what the end of a recipient means for its address, or None."""
    if status is not Status.HARDFAIL or settings.on == "off":
        return None
    if classified.bounce_class is BounceClass.EXPIRED:
        return None  # its sender set the time, the address is not to blame
    if settings.on == "any-hardfail":
        return Suppress(HARD_FAIL if classified.permanent else TOO_MANY)
    if classified.bounce_class is BounceClass.MAILBOX_FULL:
        return _when_full(settings)
    blamed = classified.permanent and classified.bounce_class in BLAMES_RECIPIENT
    return Suppress(HARD_FAIL) if blamed else None


def on_bounce(bounce_class: BounceClass, settings: Suppression) -> Suppress | None:
    """Return what a report after acceptance means for the address: nothing unless ``bounces`` is set (§20 no. 3)."""
    if not settings.bounces or settings.on == "off":
        return None
    if settings.on == "any-hardfail" or bounce_class in BLAMES_RECIPIENT:
        return Suppress(BOUNCE)
    return _when_full(settings) if bounce_class is BounceClass.MAILBOX_FULL else None


def stream_of(tenant: Tenant | None, tag: str | None) -> str:
    """Return the stream that a complaint about mail with this tag is for; empty: all mail of the tenant."""
    return tag if tag and tenant is not None and tag in tenant.suppression.streams else ""


def _when_full(settings: Suppression) -> Suppress | None:
    times = settings.mailbox_full
    return Suppress(MAILBOX_FULL, times, settings.mailbox_full_within_s) if times else None
