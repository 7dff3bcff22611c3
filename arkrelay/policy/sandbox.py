"""Mail from the sandbox domain, which needs no domain of one's own: to members only, and little of it a day.

It is for the first message of a new tenant, whose DNS is still to come (Ark contract §16).
"""

from collections.abc import Iterable

from arkrelay.model.address import Address, address_key
from arkrelay.model.errors import Refused
from arkrelay.model.settings import Sandbox
from arkrelay.model.tenant import Tenant

DAY_S = 86_400.0


def is_sandboxed(tenant: Tenant, address: Address | None, settings: Sandbox) -> bool:
    """Return whether this sender is the sandbox; for the tenant whose own domain it is, it is like any other."""
    return (
        address is not None
        and bool(settings.domain)
        and address.domain == settings.domain
        and tenant.domain(address.domain) is None
    )


def check(settings: Sandbox, recipients: Iterable[Address], sent_today: int) -> Refused | None:
    """Return None when mail from the sandbox may go to these, else why not; ``sent_today`` emails went before it.

    Recipients that are played are left out: nobody gets that mail, so it is not of the day's few either.
    """
    members = {address_key(member) for member in settings.members}
    for recipient in recipients:
        if address_key(str(recipient)) not in members:
            text = f"{recipient} is not a member: mail from {settings.domain} goes to members only, see [sandbox]"
            return Refused(550, "5.7.1", text, "to", rest="sandbox_recipient_not_allowed")
    if settings.daily and sent_today >= settings.daily:
        text = (
            f"The sandbox sends {settings.daily} emails a day: add a domain of your own, or wait for tomorrow (UTC)"
        )
        return Refused(550, "5.7.1", text, rest="sandbox_limit_exceeded")
    return None


def day_of(at: float) -> float:
    """Return when the day (UTC) of an instant began."""
    return at - at % DAY_S
