"""May this tenant send this message, from these addresses: yes, yes but not yet, or no and what to do about it.

``check_sender`` judges one address and is asked at MAIL already, ``admit`` judges the whole submission, ``withheld``
what was admitted earlier and is about to leave. A refusal
is a ``Refused`` that is returned for the door to raise; its text is for the person who set up the client and
names the next step. Neither looks at suppressions, which concern single recipients and hold instead of refusing.
Who may write to whom from the sandbox's domain, which is open to every tenant, says ``sandbox``.

Refusals of policy are 550 5.7.1 (RFC 3463 §3.8). Ark contract §14.1 has 530 for a From that is not valid; RFC 4954
§6 gives that code to "authentication required", and clients that believe it ask their user for a password again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from arkrelay.model.address import Address
from arkrelay.model.domain import DomainState
from arkrelay.model.errors import Refused
from arkrelay.model.message import PRIORITIES, HoldReason
from arkrelay.model.settings import Sandbox
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.policy.limits import Level, level
from arkrelay.policy.sandbox import is_sandboxed

MAX_RECEIVED = 50  # Received fields: more is a loop, as for Postfix; RFC 5321 §6.3 leaves the number to the site

States = Mapping[tuple[str, str], DomainState]  # by (tenant id, domain)


@dataclass(frozen=True, slots=True)
class Hold:
    """The message is accepted and kept, and not sent until somebody releases it (Ark contract §9.4)."""

    hold_reason: HoldReason
    reason: str  # one sentence


def check_tenant(tenant: Tenant, credential: Credential | None) -> Refused | None:
    """Return None when this tenant may submit mail at all."""
    if tenant.status != "active":
        # Ark contract §14.1: 535 at RCPT. A 535 outside AUTH is no reply to anything (RFC 4954 §6).
        return _refused(f"Mail server has been suspended: the tenant {tenant.id} is {tenant.status}")
    if credential is not None and "send" not in credential.permissions:
        return _refused(f'The credential {credential.name} lacks the permission "send"')
    return None


def is_bulk(priority: str | None, credential: Credential | None) -> bool:
    """Return whether a message goes behind what people wait for; what names no priority has its credential's."""
    named = (priority or "").strip().lower()
    if named not in PRIORITIES:
        named = credential.priority if credential is not None else PRIORITIES[0]
    return named == "bulk"


def check_sender(
    tenant: Tenant,
    credential: Credential | None,
    address: Address | None,
    states: States,
    sandbox: Sandbox | None = None,
) -> Refused | None:
    """Return None when ``address`` may be a return path or author of this tenant.

    Its domain must be exactly one of the tenant's: a subdomain is another domain, with its own records. It must
    be verified, or trusted by the admin, and open to the credential. Whether another tenant has the domain is
    not told. The null return path (None) passes: what speaks for such a message is its author (RFC 5321 §4.5.5).
    """
    if (refused := check_tenant(tenant, credential)) is not None:
        return refused
    if address is None:
        return None
    name = address.domain
    domain = tenant.domain(name)
    sandboxed = sandbox is not None and is_sandboxed(tenant, address, sandbox)
    if domain is None and not sandboxed:
        where = f"The domain {name}" if name else "An address without a domain"
        return _refused(f'{where} is not a sender domain of this tenant: add it with "arkrelay domain add"', "from")
    if credential is not None and credential.domains and name not in credential.domains:
        return _refused(f"The credential {credential.name} may not send from {name}: see its domains", "from")
    state = states.get((tenant.id, name))
    if domain is not None and not domain.trusted and not (state is not None and state.verified):
        return _refused(
            f'The domain {name} is not verified for this tenant: publish the records of "arkrelay domain dns {name}"'
            f' and run "arkrelay domain verify {name}"',
            "from",
        )
    return None


def admit(
    tenant: Tenant,
    credential: Credential | None,
    return_path: Address | None,
    author: Address,
    recipients: int,
    states: States,
    used: tuple[int, int],
    received_count: int = 0,
    *,
    counting: int,
    sandbox: Sandbox | None = None,
) -> Hold | Refused | None:
    """Return None to send the message, a ``Hold`` to keep it unsent, or a ``Refused`` to raise.

    ``credential`` is None on a listener that is bound to a tenant. ``recipients`` is how many this message has, of
    which ``counting`` take a place; ``used`` is how many the tenant was granted before it, in this hour and in this
    month. A test key's mail and recipients that are played take none, and meet no limit. The order is that of Ark
    contract §9.4: the sender's domain, recipients, then what only delays. The hard cap comes before all that holds:
    held mail could not be released before the month is over, and is asked again then (``relay.release``).
    """
    refused = check_sender(tenant, credential, return_path, states, sandbox)
    if refused is None and author != return_path:
        refused = check_sender(tenant, credential, author, states, sandbox)
    if refused is not None:
        return refused
    if recipients < 1:
        return Refused(554, "5.5.1", "No valid recipients", "to")  # RFC 5321 §3.3
    if received_count > MAX_RECEIVED:
        return Refused(554, "5.4.6", f"Loop detected: the message has {received_count} Received fields")
    in_hour, in_month = used
    cap, hourly = (tenant.limits.hard_cap_monthly, tenant.limits.hourly) if counting else (0, 0)
    if level(in_month, cap, counting) is Level.EXCEEDED:
        # Ark contract §14.1: 452 and its words. 4.5.3 is about the number of recipients, 4.2.2 would be a mailbox's.
        return Refused(452, "4.5.3", f"Send limit exceeded: {cap} recipients a month, {in_month} used")
    if credential is not None and credential.held:
        return Hold(HoldReason.CREDENTIAL, f"The credential {credential.name} is on hold{_because(credential)}")
    if level(in_hour, hourly, counting) is Level.EXCEEDED:
        return Hold(
            HoldReason.SEND_LIMIT,
            f"The send limit of {hourly} recipients an hour is reached ({in_hour} used); "
            "it starts anew at the top of the hour, and held mail waits to be released",
        )
    return None


def withheld(tenant: Tenant, credential: str | None, passed_over: HoldReason | None) -> Hold | None:
    """Return None when mail that ``tenant`` had accepted earlier may leave now, else why it is held.

    Mail of a tenant that is not active is held (Ark contract §8.5), and so is that of a credential on hold (§20 item
    11) unless a person has ``passed_over`` a hold of the message. A credential that is gone holds nothing: it was
    good when the mail was taken.
    """
    if tenant.status != "active":
        return Hold(HoldReason.TENANT, f"The tenant {tenant.id} was {tenant.status} when this was due")
    found = tenant.credential(credential) if credential is not None else None
    if found is not None and found.held and passed_over is None:
        why = f"The credential {found.name} was on hold when this was due{_because(found)}"
        return Hold(HoldReason.CREDENTIAL, why)
    return None


def _because(credential: Credential) -> str:
    """Return what the relay itself has against a credential."""
    return f": {credential.suspicion}" if credential.suspicion else ""


def _refused(text: str, field: str | None = None) -> Refused:
    return Refused(550, "5.7.1", text, field)
