"""What must hold between the keys of arkrelay.toml, beyond the type of each value."""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from arkrelay.config.addresses import Endpoint, parse_endpoint, parse_host_port
from arkrelay.config.schema import Reader
from arkrelay.model.address import AddressError, parse_domain, parse_mailbox
from arkrelay.model.delivery import Route, TlsRule
from arkrelay.model.settings import Listen, Settings
from arkrelay.policy.route import POOL_NAME

T = TypeVar("T")

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
    _check_sandbox(reader, settings)


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


def _check_sandbox(reader: Reader, settings: Settings) -> None:
    sandbox = settings.sandbox
    for index, member in enumerate(sandbox.members):
        try:
            parse_mailbox(member, utf8=True)
        except AddressError as exc:
            reader.report(f"sandbox.members[{index}]", str(exc))
    if sandbox.domain and sandbox.domain == sandbox.simulator:
        reader.report("sandbox.simulator", "is the domain that mail of the sandbox comes from: take another")
    if sandbox.simulator and sandbox.simulator == settings.return_path_host:
        reader.report("sandbox.simulator", "is the host that bounces come to: take another")


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
