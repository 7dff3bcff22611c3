"""What must hold between keys and between files, beyond the type of each value."""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from arkrelay.config.addresses import Endpoint, parse_endpoint, parse_host_port
from arkrelay.config.dates import parse_date
from arkrelay.config.schema import Reader
from arkrelay.config.values import describe
from arkrelay.model.address import AddressError, parse_domain, parse_mailbox
from arkrelay.model.delivery import Route, TlsRule
from arkrelay.model.settings import Listen, Sandbox, Settings
from arkrelay.model.tenant import Credential, Domain, Platform, Tenant, Webhook
from arkrelay.policy.metadata import faults
from arkrelay.policy.route import POOL_NAME
from arkrelay.policy.targets import parse_target

T = TypeVar("T")

CREDENTIAL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,50}")  # Ark contract §8.6
TENANT_NAME_CHARS = 100  # Ark contract §8.5
SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")  # RFC 6376 §3.1: labels of a name
TRACK_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
DEFAULT_LISTENERS = (
    Listen(service="submission", address="127.0.0.1:2525", tls="optional"),
    Listen(service="http", address="127.0.0.1:8025"),
)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One file as it was read; ``whole``: every key of it could be used."""

    reader: Reader
    value: T
    whole: bool


def listeners(settings: Settings) -> tuple[Listen, ...]:
    """Return the listeners with their defaults: which there are, and how each treats TLS.

    Without a certificate "optional" is "none". Port 25 for bounces never demands TLS (RFC 3207 §4).
    """
    made = []
    for listen in settings.listen or DEFAULT_LISTENERS:
        tls = listen.tls
        match listen.service:
            case "submissions":
                tls = "required"
            case "bounces":
                tls = tls or "optional"
            case "submission":
                tls = tls or "required"
            case _:
                tls = tls or ("none" if _endpoint(listen).local else "required")
        made.append(replace(listen, tls="none" if tls == "optional" and settings.tls is None else tls))
    return tuple(made)


def routes(settings: Settings) -> tuple[Route, ...]:
    """Return the routes, their domains as lower-case A-labels."""
    return tuple(replace(route, domain=_route_domain(route)) for route in settings.route)


def tls_rules(settings: Settings) -> tuple[TlsRule, ...]:
    """Return what TLS is demanded of which domains, these as lower-case A-labels."""
    return tuple(replace(rule, domain=_route_domain(rule)) for rule in settings.tls_policy)


def check_settings(part: Part[Settings], tenant_ids: Collection[str]) -> None:
    """Report what is wrong in arkrelay.toml."""
    settings, reader = part.value, part.reader
    if settings.default_tenant and settings.default_tenant not in tenant_ids:
        reader.report("default_tenant", f'there is no tenant "{settings.default_tenant}"')
    _check_listeners(reader, settings, tenant_ids)
    _check_public(reader, settings.public.url)
    _check_addresses(reader, settings)
    _check_probe_host(reader, settings.doctor.probe_host)
    _check_headers(reader, "smtp.tag_headers", settings.smtp.tag_headers)
    _check_headers(reader, "smtp.metadata_headers", settings.smtp.metadata_headers)
    for route in settings.route:
        _check_route(reader, route, whole=part.whole)
    _check_smarthosts(reader, settings.route)
    for rule in settings.tls_policy:
        _check_rule_domain(reader, rule)
    _check_sandbox(reader, settings.sandbox)


def _check_listeners(reader: Reader, settings: Settings, tenant_ids: Collection[str]) -> None:
    seen: list[tuple[Endpoint, Listen]] = []
    for listen in settings.listen:
        try:
            endpoint = parse_endpoint(listen.address)
        except ValueError as exc:
            reader.report(reader.at(listen, "address"), str(exc))
            continue
        _check_listen(reader, listen, endpoint, tenant_ids)
        for other, earlier in seen:
            if endpoint.overlaps(other):
                reader.report(reader.at(listen, "address"), f"{reader.at(earlier)} already listens there")
                break
        seen.append((endpoint, listen))
        if settings.tls is None and _needs_certificate(listen, endpoint):
            reader.report(reader.at(listen, "tls"), "needs a certificate, and there is no [tls]")


def _check_sandbox(reader: Reader, sandbox: Sandbox) -> None:
    for index, member in enumerate(sandbox.members):
        try:
            parse_mailbox(member, utf8=True)
        except AddressError as exc:
            reader.report(f"sandbox.members[{index}]", str(exc))
    if sandbox.domain and sandbox.domain == sandbox.simulator:
        reader.report("sandbox.simulator", "is the domain that mail of the sandbox comes from: take another")


def unsubscribe_warnings(settings: Settings, tenants: Iterable[Part[Tenant]]) -> list[str]:
    """Return a sentence for each tenant whose mail lacks the unsubscription that its file asks for."""
    if settings.public.url.startswith("https://"):
        return []
    return [
        f'{part.reader.file}: unsubscribe needs [public] url = "https://…" in arkrelay.toml: none is offered'
        for part in tenants
        if part.value.unsubscribe.enabled or part.value.unsubscribe.tags
    ]


def _check_addresses(reader: Reader, settings: Settings) -> None:
    seen: dict[str, str] = {}
    for key, address in [
        *((f"delivery.source_addresses[{i}]", one) for i, one in enumerate(settings.delivery.source_addresses)),
        *((reader.at(source, "address"), source.address) for source in settings.source),
    ]:
        try:
            canonical = str(ipaddress.ip_address(address))
        except ValueError:
            reader.report(key, f'expected an IP address, got "{address}"')
            continue
        if canonical in seen:
            reader.report(key, f"is the same as {seen[canonical]}")
        elif canonical != address:
            reader.report(key, f'write it as "{canonical}"')
        seen.setdefault(canonical, key)
    for source in settings.source:
        if source.pool and not POOL_NAME.fullmatch(source.pool):
            reader.report(reader.at(source, "pool"), "expected 1 to 40 small letters, digits, dashes or underscores")
    for index, server in enumerate(settings.dns.nameservers):
        try:
            ipaddress.ip_address(parse_host_port(server, default_port=53)[0])
        except ValueError:
            reader.report(f"dns.nameservers[{index}]", f'expected "ip", "ip:port" or "[v6]:port", got "{server}"')


def _check_probe_host(reader: Reader, host: str) -> None:
    if not host:
        return
    try:
        parse_host_port(host, default_port=25)
    except ValueError as exc:
        reader.report("doctor.probe_host", str(exc))


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


def _check_listen(reader: Reader, listen: Listen, endpoint: Endpoint, tenant_ids: Collection[str]) -> None:
    smtp = listen.service != "http"
    submission = listen.service in {"submission", "submissions"}
    if listen.tenant:
        if not submission:
            reader.report(reader.at(listen, "tenant"), f"has no meaning for {listen.service}")
        elif not endpoint.local:
            reader.report(
                reader.at(listen, "tenant"),
                f"would let anybody who reaches {listen.address} send as {listen.tenant}: only on a loopback address "
                "or a unix socket",
            )
        elif listen.tenant not in tenant_ids:
            reader.report(reader.at(listen, "tenant"), f'there is no tenant "{listen.tenant}"')
    if smtp and listen.serve != Listen(service="http", address="").serve:
        reader.report(reader.at(listen, "serve"), "is for http listeners only")
    problem = {
        ("submissions", "optional"): "submissions is always encrypted",
        ("submissions", "none"): "submissions is always encrypted",
        ("bounces", "required"): "other mail servers need not know TLS (RFC 3207 §4)",
        ("http", "optional"): 'http is "required" or "none"',
    }.get((listen.service, listen.tls))
    if (
        problem is None
        and listen.service == "submission"
        and listen.tls in {"optional", "none"}
        and not endpoint.local
    ):
        problem = f'"{listen.tls}" would send passwords in clear: only on a loopback address or a unix socket'
    if problem is not None:
        reader.report(reader.at(listen, "tls"), problem)


def _needs_certificate(listen: Listen, endpoint: Endpoint) -> bool:
    match listen.service:
        case "submissions":
            return True
        case "submission":
            return listen.tls in {"", "required"}
        case "http":
            return listen.tls == "required" or (not listen.tls and not endpoint.local)
    return False


def _endpoint(listen: Listen) -> Endpoint:
    try:
        return parse_endpoint(listen.address)
    except ValueError:  # reported by check_settings
        return Endpoint()


def _check_public(reader: Reader, url: str) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
        local = Endpoint(parts.hostname or "", 0).local
    except ValueError:
        reader.report("public.url", "is not a URL")
        return
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        reader.report("public.url", "expected https://host")
    elif parts.query or parts.fragment or parts.username is not None:
        reader.report("public.url", "expected https://host and at most a path")


def _check_headers(reader: Reader, key: str, names: Iterable[str]) -> None:
    for index, name in enumerate(names):
        if not re.fullmatch(r"[!-9;-~]+", name):  # RFC 5322 §3.6.8 ftext
            reader.report(f"{key}[{index}]", "expected the name of a header field, without its colon")


def _check_rule_domain(reader: Reader, rule: Route | TlsRule) -> None:
    try:
        _route_domain(rule)
    except AddressError as exc:
        reader.report(reader.at(rule, "domain"), str(exc))


def _check_route(reader: Reader, route: Route, *, whole: bool) -> None:
    _check_rule_domain(reader, route)
    try:
        parse_host_port(route.host)
    except ValueError as exc:
        reader.report(reader.at(route, "host"), str(exc))
    if route.after and route.when:
        reader.report(reader.at(route, "after"), "after and when are two causes: write two routes")
    if whole and bool(route.username) != bool(route.secret):
        missing = "secret" if route.username else "username"
        reader.report(reader.at(route, missing), "username and secret go together")


def _check_smarthosts(reader: Reader, routes: Iterable[Route]) -> None:
    """Mail waits and is paced per smarthost, so one smarthost has one way to be spoken to."""
    first: dict[str, Route] = {}
    for route in routes:
        other = first.setdefault(route.host.lower(), route)
        if (other.tls, other.username, other.secret) != (route.tls, route.username, route.secret):
            reader.report(reader.at(route, "host"), f"{route.host} has other tls, username or secret further up")


def _route_domain(route: Route | TlsRule) -> str:
    if route.domain == "*":
        return "*"
    bare = route.domain.removeprefix("*.")
    return route.domain[: len(route.domain) - len(bare)] + parse_domain(bare, utf8=True)


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
