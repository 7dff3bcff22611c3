"""What differs between two configurations, by effect: for the log after a reload, and for ``arkrelay plan``."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arkrelay.config.schema import key_of, settings_of
from arkrelay.config.snapshot import Snapshot
from arkrelay.config.values import render_duration, render_size
from arkrelay.model.delivery import Route
from arkrelay.model.errors import ConfigError
from arkrelay.model.setting import Kind
from arkrelay.model.settings import Listen, Tls, TlsExtra
from arkrelay.model.tenant import Domain, Platform, Tenant

# and every listener: its socket is open
NEEDS_RESTART = frozenset({"state_dir", "dns.nameservers", "dns.trust_ad", "dns.timeout", "log.format", "log.level"})
SILENT = frozenset({"created_at", "updated_at"})  # they change with every edit and mean nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One effect: on what, and which; ``restart``: it comes into force only when the daemon starts again."""

    subject: str  # "tenant acme: credential production"
    effect: str  # "added"
    restart: bool = False

    def __str__(self) -> str:
        return f"{self.subject}: {self.effect}{' (needs a restart)' if self.restart else ''}"


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """All effects, false when there is none; ``certificate``: TLS contexts are to be made anew.

    ``problems``: key files that could not be used, so that their last good content stays in force.
    """

    items: tuple[Change, ...] = ()
    certificate: bool = False
    problems: tuple[ConfigError, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def lines(self) -> list[str]:
        """One line for each, for a person."""
        return [str(item) for item in self.items]

    @property
    def needs_restart(self) -> bool:
        """True when something of it waits for the next start."""
        return any(item.restart for item in self.items)


def compare(old: Snapshot, new: Snapshot) -> Changes:
    """Return what becomes different when ``new`` takes the place of ``old``; secrets never show."""
    certificate = _certificate(old) != _certificate(new)
    items = [
        *_table("arkrelay.toml", old.settings, new.settings, (old, new), restart=NEEDS_RESTART),
        *_listeners(old.listeners, new.listeners),
        *_sources(old, new),
        *_providers(old, new),
        *_routes(old, new),
        *_tls_rules(old, new),
        *_platform(old, new),
    ]
    if certificate:
        items.append(Change("arkrelay.toml: tls", "certificate re-read"))
    for tenant_id in sorted({*old.tenants, *new.tenants}):
        before, after = old.tenants.get(tenant_id), new.tenants.get(tenant_id)
        subject = f"tenant {tenant_id}"
        if before is None or after is None:
            items.append(Change(subject, "added" if before is None else "removed"))
        else:
            items += _tenant(subject, before, after, (old, new))
    return Changes(tuple(items), certificate)


def _certificate(snapshot: Snapshot) -> object:
    tls = snapshot.settings.tls
    pairs: list[Tls | TlsExtra] = [] if tls is None else [tls, *tls.extra]
    return [(path, snapshot.watched.get(path)) for pair in pairs for path in (pair.certificate, pair.private_key)]


def _listeners(old: Sequence[Listen], new: Sequence[Listen]) -> Iterator[Change]:
    for change in _listed(
        "listener", {item.address: item for item in old}, {item.address: item for item in new}, None
    ):
        yield dataclasses.replace(change, restart=True)


def _sources(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    before, after = ({source.address: source for source in one.settings.source} for one in (old, new))
    yield from _listed("source", before, after, None)


def _providers(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    before, after = ({provider.name: provider for provider in one.settings.provider} for one in (old, new))
    yield from _listed("provider", before, after, None)


def _routes(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    before, after = ({_route_name(route): route for route in one.settings.route} for one in (old, new))
    yield from _listed("route", before, after, (old, new))
    if before.keys() == after.keys() and list(before) != list(after):
        yield Change("routes", "other order")


def _route_name(route: Route) -> str:
    cause = f" after {route.after} attempts" if route.after else f" when {route.when}" if route.when else ""
    return f"{route.domain} to {route.host}{cause}"


def _tls_rules(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    before = {rule.domain: rule for rule in old.settings.tls_policy}
    after = {rule.domain: rule for rule in new.settings.tls_policy}
    yield from _listed("tls_policy", before, after, (old, new))
    if before.keys() == after.keys() and list(before) != list(after):
        yield Change("tls_policies", "other order")


def _platform(old: Snapshot, new: Snapshot) -> Iterator[Change]:
    before, after = old.platform, new.platform
    for prefix, things in (("organisation key", _keys), ("platform webhook", _hooks)):
        yield from _listed(prefix, things(before), things(after), (old, new))


def _keys(platform: Platform) -> dict[str, Any]:
    return {item.name: item for item in platform.keys}


def _hooks(owner: Platform | Tenant) -> dict[str, Any]:
    return {f"{item.name} ({item.id})": item for item in owner.webhooks}


def _tenant(subject: str, old: Tenant, new: Tenant, snapshots: tuple[Snapshot, Snapshot]) -> Iterator[Change]:
    yield from _table(subject, old, new, snapshots)
    yield from _listed(
        f"{subject}: credential",
        {item.name: item for item in old.credentials},
        {item.name: item for item in new.credentials},
        snapshots,
        owner=old.id,
    )
    before, after = ({domain.name: domain for domain in tenant.domains} for tenant in (old, new))
    yield from _listed(f"{subject}: domain", before, after, snapshots)
    for name in before.keys() & after.keys():
        yield from _dkim(f"{subject}: domain {name}: DKIM key", before[name], after[name], snapshots)
    yield from _listed(f"{subject}: webhook", _hooks(old), _hooks(new), snapshots)
    yield from _listed(
        f"{subject}: track domain",
        {f"{item.name}.{item.domain}": item for item in old.track_domains},
        {f"{item.name}.{item.domain}": item for item in new.track_domains},
        snapshots,
    )


def _dkim(subject: str, old: Domain, new: Domain, snapshots: tuple[Snapshot, Snapshot]) -> Iterator[Change]:
    before, after = ({key.selector: key for key in domain.dkim} for domain in (old, new))
    yield from _listed(subject, before, after, snapshots)
    for selector, key in after.items():
        slot = (key.private_key, new.name, key.selector, key.algorithm)
        loaded = [snapshot.dkim_keys.get(slot) for snapshot in snapshots]
        if loaded[0] and loaded[1] and loaded[0].stamp != loaded[1].stamp:
            yield Change(f"{subject} {selector}", "re-read")


def _listed(
    subject: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    snapshots: tuple[Snapshot, Snapshot] | None,
    owner: str = "",
) -> Iterator[Change]:
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield Change(f"{subject} {name}", "removed")
        elif name not in old:
            yield Change(f"{subject} {name}", "added")
        else:
            yield from _table(f"{subject} {name}", old[name], new[name], snapshots, owner=owner)


def _table(
    subject: str,
    old: Any,
    new: Any,
    snapshots: tuple[Snapshot, Snapshot] | None,
    *,
    restart: frozenset[str] = frozenset(),
    where: str = "",
    owner: str = "",
) -> Iterator[Change]:
    """Yield what differs between two of one dataclass; lists of tables are compared by name elsewhere."""
    for field in settings_of(type(new)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        kind, key = field.metadata["kind"], where + key_of(field)
        if before == after or field.name in SILENT or kind is Kind.TABLES:
            continue
        if kind is Kind.SECRET:
            if not _same_secret(old, new, snapshots, owner):
                yield Change(subject, f"{key} changed")
        elif dataclasses.is_dataclass(before) and dataclasses.is_dataclass(after):
            yield from _table(subject, before, after, snapshots, restart=restart, where=f"{key}.", owner=owner)
        else:
            yield Change(subject, f"{key}: {_shown(before, kind)} → {_shown(after, kind)}", key in restart)


def _same_secret(old: Any, new: Any, snapshots: tuple[Snapshot, Snapshot] | None, owner: str) -> bool:
    """Return whether the secret is the same one sealed anew; a route's has no digest and counts as changed."""
    if snapshots is None or not hasattr(new, "name"):
        return False
    before, after = (snapshots[i].index.digests.get((owner, thing.name)) for i, thing in enumerate((old, new)))
    return before is not None and before == after


def _shown(value: Any, kind: Kind) -> str:
    match value:
        case None | "" | () | {}:
            return "none"
        case bool():
            return str(value).lower()
        case tuple():
            each = Kind.DURATION if kind is Kind.DURATIONS else Kind.STRING
            return ", ".join(_shown(item, each) for item in value)
    if kind is Kind.DURATION:
        return render_duration(value)
    if kind is Kind.SIZE:
        return render_size(value)
    return "set" if kind is Kind.TABLE else str(value)
