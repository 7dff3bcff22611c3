"""What must hold in the files of tenants and in platform.toml, and between them and arkrelay.toml."""

import re
from collections.abc import Collection, Iterable, Mapping

from arkrelay.config.check import Part
from arkrelay.config.dates import parse_date
from arkrelay.config.schema import Reader
from arkrelay.config.values import describe, render_duration
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.settings import Settings
from arkrelay.model.tenant import Credential, Domain, Platform, Tenant, Webhook
from arkrelay.policy.hookpace import lifetime_s
from arkrelay.policy.metadata import faults
from arkrelay.policy.records import RETURN_PATH_LABEL
from arkrelay.policy.sentences import span
from arkrelay.policy.targets import parse_target, settled_refusal

CREDENTIAL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,50}")  # Ark contract §8.6
TENANT_NAME_CHARS = 100  # Ark contract §8.5
SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")  # RFC 6376 §3.1: labels of a name
TRACK_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_platform(part: Part[Platform], *, allow_http: bool) -> None:
    """Report what is wrong in platform.toml."""
    reader = part.reader
    _check_unique(reader, part.value.keys, "name")
    _check_unique(reader, part.value.keys, "id")
    _check_unique(reader, part.value.webhooks, "id")
    for things in (part.value.keys, part.value.webhooks):
        _check_dates(reader, things)
    for webhook in part.value.webhooks:
        _check_webhook(reader, webhook, allow_http=allow_http)


def check_tenant(part: Part[Tenant], *, allow_http: bool) -> None:
    """Report what is wrong in one tenant file, taken alone."""
    tenant, reader = part.value, part.reader
    if not 0 < len(tenant.name) <= TENANT_NAME_CHARS:
        reader.report("name", f"must have 1 to {TENANT_NAME_CHARS} characters")
    _check_metadata(reader, tenant.metadata)
    _check_unique(reader, tenant.credentials, "name")
    _check_dates(reader, [tenant])
    for things in (tenant.credentials, tenant.domains, tenant.webhooks, tenant.track_domains):
        _check_unique(reader, things, "id")
        _check_dates(reader, things)
    own = {domain.name for domain in tenant.domains} if part.whole else None
    for credential in tenant.credentials:
        _check_credential(reader, credential, own)
    for domain in tenant.domains:
        _check_domain(reader, domain)
    for webhook in tenant.webhooks:
        _check_webhook(reader, webhook, allow_http=allow_http)
    tracked: set[str] = set()
    for track in tenant.track_domains:
        if not TRACK_LABEL.fullmatch(track.name):
            reader.report(
                reader.at(track, "name"), "expected one label: lower-case letters, digits and inner hyphens"
            )
        if own is not None and track.domain not in own:
            reader.report(reader.at(track, "domain"), f"{track.domain} is not a domain of this tenant")
        if track.domain in tracked:  # Ark contract §13: one for each sending domain
            reader.report(reader.at(track, "domain"), f"{track.domain} has a track domain already")
        tracked.add(track.domain)


def check_domains(tenants: Mapping[str, Part[Tenant]]) -> None:
    """Report each domain that two tenants claim, or one tenant twice: mail of it would have two owners."""
    owners: dict[str, str] = {}
    for tenant_id, part in tenants.items():
        for domain in part.value.domains:
            owner = owners.setdefault(domain.name, tenant_id)
            if owner != tenant_id or part.value.domain(domain.name) is not domain:
                whose = "this tenant" if owner == tenant_id else f"tenant {owner}"
                part.reader.report(part.reader.at(domain, "name"), f"{domain.name} is already a domain of {whose}")


def check_simulator(main: Part[Settings], tenants: Mapping[str, Part[Tenant]]) -> None:
    """Report a simulator at a tenant's own domain, or where its bounces come to: mail to it would never leave."""
    simulator = main.value.sandbox.simulator
    for tenant_id, part in tenants.items():
        if any(simulator in {one.name, f"{RETURN_PATH_LABEL}.{one.name}"} for one in part.value.domains):
            main.reader.report("sandbox.simulator", f"is a domain of tenant {tenant_id}: its mail would never leave")


def check_pools(main: Part[Settings], tenants: Mapping[str, Part[Tenant]]) -> None:
    """Report each tenant whose mail could leave from no address: its pool has none."""
    sources = main.value.sources
    pools = {source.pool for source in sources}
    for tenant_id, part in tenants.items():
        pool = part.value.pool
        if pool and pool not in pools:
            known = ", ".join(sorted(pools - {""})) or "none"
            part.reader.report(
                "pool", f'no [[source]] of arkrelay.toml is in the pool "{pool}"; pools there: {known}'
            )
        elif sources and not pool and "" not in pools:
            part.reader.report(
                "pool", f"is needed: every [[source]] of arkrelay.toml is in a pool, and {tenant_id} names none"
            )


def check_reports(part: Part[Settings], tenants: Iterable[Part[Tenant]]) -> None:
    """Report a sender of TLS reports who could not send: they are mail of a tenant, signed like any other."""
    reports, reader = part.value.tls_reports, part.reader
    if not (reports.send or reports.contact):
        return
    try:
        address = parse_mailbox(reports.contact)
    except AddressError as exc:
        reader.report("tls_reports.contact", str(exc) if reports.contact else "is needed to send reports")
        return
    if not any(domain.name == address.domain for tenant in tenants for domain in tenant.value.domains):
        reader.report("tls_reports.contact", f"{address.domain} is not a sender domain of any tenant")


def unsubscribe_warnings(settings: Settings, tenants: Iterable[Part[Tenant]]) -> list[str]:
    """Return a sentence for each tenant whose mail lacks the unsubscription that its file asks for."""
    if settings.public.url.startswith("https://"):
        return []
    return [
        f'{part.reader.file}: unsubscribe needs [public] url = "https://…" in arkrelay.toml: none is offered'
        for part in tenants
        if part.value.unsubscribe.enabled or part.value.unsubscribe.tags
    ]


def webhook_warnings(main: Part[Settings], platform: Part[Platform], tenants: Iterable[Part[Tenant]]) -> list[str]:
    """Return what webhooks will miss: a sentence for each URL that is never posted to, as far as its text tells, and
    for each retention that takes events which are still tried.

    No problems, since a relay that runs must start again.
    """
    parts: list[Part[Platform] | Part[Tenant]] = [platform, *tenants]
    enabled = [(part, one) for part in parts for one in part.value.webhooks if one.enabled]
    settings = main.value.webhooks
    return [
        *(
            f"{part.reader.file}: {part.reader.at(one, 'url')}: nothing is posted there: {reason}"
            for part, one in enabled
            if (reason := settled_refusal(one.url, settings))
        ),
        *(_retention_warnings(main) if enabled else ()),
    ]


def _retention_warnings(main: Part[Settings]) -> list[str]:
    kept, needed_s = main.value.retention, lifetime_s(main.value.webhooks.retry_s)
    return [
        f"{main.reader.file}: retention.{key}: {render_duration(kept_s)} is less than webhooks.retry takes"
        f" ({span(needed_s)}): events are lost to an endpoint that does not answer"
        for key, kept_s in (("messages", kept.messages_s), ("events", kept.events_s))
        if 0 < kept_s < needed_s
    ]


def _check_credential(reader: Reader, credential: Credential, own: Collection[str] | None) -> None:
    if not CREDENTIAL_NAME.fullmatch(credential.name):
        reader.report(reader.at(credential, "name"), "expected 1 to 50 letters, digits, dashes or underscores")
    for index, domain in enumerate(credential.domains):
        if own is not None and domain not in own:
            reader.report(f"{reader.at(credential, 'domains')}[{index}]", f"{domain} is not a domain of this tenant")


def _check_domain(reader: Reader, domain: Domain) -> None:
    selectors: set[str] = set()
    for key in domain.dkim:
        if not all(SELECTOR.fullmatch(label) for label in key.selector.split(".")):
            reader.report(reader.at(key, "selector"), "expected letters, digits and inner hyphens")
        if key.selector.lower() in selectors:
            reader.report(reader.at(key, "selector"), f"{key.selector} is used twice")
        selectors.add(key.selector.lower())
        for part in ("since", "seen"):
            if value := getattr(key, part):
                try:
                    parse_date(value)
                except ValueError:
                    reader.report(reader.at(key, part), f"expected ISO 8601, got {describe(value)}")


def _check_webhook(reader: Reader, webhook: Webhook, *, allow_http: bool) -> None:
    if not webhook.name:
        reader.report(reader.at(webhook, "name"), "is empty")
    try:
        parse_target(webhook.url, allow_http=allow_http)
    except ValueError as exc:
        reader.report(reader.at(webhook, "url"), str(exc))


def _check_metadata(reader: Reader, metadata: Mapping[str, object]) -> None:
    for key, reason in faults(metadata):
        reader.report(f"metadata.{key}" if key else "metadata", reason)


def _check_dates(reader: Reader, things: Iterable[object]) -> None:
    for thing in things:
        for key in ("created_at", "updated_at"):
            if value := getattr(thing, key, ""):
                try:
                    parse_date(value)
                except ValueError:
                    reader.report(reader.at(thing, key), f"expected ISO 8601, got {describe(value)}")


def _check_unique(reader: Reader, things: Iterable[object], key: str) -> None:
    seen: dict[object, object] = {}
    for thing in things:
        value = getattr(thing, key)
        if value and value in seen:
            reader.report(reader.at(thing, key), f"is the same as that of {reader.at(seen[value])}")
        seen.setdefault(value, thing)
