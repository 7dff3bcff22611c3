"""The configuration as commands see it: loaded and checked, one tenant picked, and the daemon told of changes."""

from collections.abc import Iterable
from pathlib import Path

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied, NotRunning, read_settings
from arkrelay.cli.state import Failed, State
from arkrelay.config import load as loader
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.address import Address, AddressError, parse_domain
from arkrelay.model.errors import ArkrelayError
from arkrelay.model.tenant import Domain, Tenant


def load(state: State) -> Snapshot:
    """Return the whole configuration, checked; raise Failed without a file and ConfigErrors with a broken one."""
    read_settings(state.config)  # which says what to do when there is none
    return loader.load(state.config)


def source(state: State) -> Path:
    """Return the configuration as ``config.tenants`` takes it; raise Failed when there is none."""
    read_settings(state.config)
    return state.config


def tenant_id_in(state: State, tenant: str | None) -> str:
    """Return the id of the tenant to be changed; one that is named is not looked up, so other files may be broken."""
    return tenant or pick_tenant(state, None)


def pick_tenant(state: State, tenant: str | None) -> str:
    """Return the id of the tenant that is meant: the named, the default, or the only one."""
    return tenant_in(load(state), tenant).id


def tenant_in(snapshot: Snapshot, tenant: str | None) -> Tenant:
    """Return the tenant that is meant: the named, the default, or the only one."""
    known = snapshot.tenants
    wanted = tenant or snapshot.settings.default_tenant or (next(iter(known)) if len(known) == 1 else "")
    if wanted in known:
        return known[wanted]
    if wanted:
        raise Failed(f"no tenant {output.clean(wanted)}", _there_are("tenant", known))
    raise Failed("which tenant? name it with --tenant", _there_are("tenant", known), code=2 if known else 1)


def domain_in(snapshot: Snapshot, name: str, tenant: str | None = None) -> tuple[Tenant, Domain]:
    """Return the sender domain of this name and its tenant."""
    wanted = domain_name(name)
    owner = snapshot.owner_of(wanted)
    if owner is None or (tenant and owner[0].id != tenant):
        known = [one.name for each in snapshot.tenants.values() for one in each.domains]
        raise Failed(f"no sender domain {wanted}", _there_are("domain", known))
    return owner


def domain_name(text: str) -> str:
    """Return the domain as A-labels in lower case; raise Failed when it is none."""
    try:
        return parse_domain(text.strip().removesuffix("."), utf8=True)
    except AddressError as error:
        raise Failed(f"{output.clean(text)}: {error}") from None


def tenant_of_sender(state: State, sender: Address) -> str | None:
    """Return whose domain the sender's is; None when nobody's, or when the files may not be read by this user.

    The daemon then takes the default tenant, and judges the sender in any case.
    """
    try:
        owner = load(state).owner_of(sender.domain)
    except (ArkrelayError, OSError):
        return None
    return owner[0].id if owner else None


def tell_daemon(state: State) -> None:
    """Bring an edited file into force, when the daemon runs; raise Failed when it does not take it."""
    try:
        effect = Daemon(state.config).data("POST", "/v1/control/reload")
    except NotRunning as error:
        output.note(f"saved, for the next start or reload: {error.message}")
    except Denied as error:
        for found in error.problems:
            output.note(": ".join(str(found[part]) for part in ("file", "key", "reason") if found.get(part)))
        raise Failed(
            f"saved, but not in force: {error.message}", error.hint or "put the files right, then: arkrelay reload"
        ) from None
    else:
        for setting in (effect or {}).get("restart", []):
            output.note(f"needs a restart: {output.clean(setting)}")


def _there_are(noun: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return f"there is none yet: arkrelay {noun} add"
    shown = ", ".join(listed[:10])
    return f"there are: {shown}{' …' if len(listed) > 10 else ''}" if len(listed) > 1 else f"there is: {shown}"
