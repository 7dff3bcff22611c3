"""The doctor's look at DNS: our addresses, and every sender domain."""

import asyncio
from collections.abc import Mapping, Sequence

from arkrelay.mail.dkim import Signer, public_record, sign, verify
from arkrelay.model.dns import MxAnswer
from arkrelay.model.domain import DnsStatus
from arkrelay.model.reply import Failure, FailureKind
from arkrelay.model.settings import Settings
from arkrelay.model.tenant import DkimKey, Domain, Tenant
from arkrelay.policy import blocklists
from arkrelay.policy import doctor as judge
from arkrelay.policy.dmarc import Found, permission, permits
from arkrelay.policy.doctor import Address, Key
from arkrelay.policy.finding import Finding, Level
from arkrelay.policy.records import RecordSet, Verdict, judge_alias, wanted, wanted_alias
from arkrelay.relay.bench import Bench, Machine, hosts_of, is_private, ptr_of
from arkrelay.relay.domains import inspect
from arkrelay.wire.dns import Resolver

PROBE = b"From: probe@%b\r\nTo: probe@%b\r\nSubject: probe\r\nMessage-ID: <probe@%b>\r\n\r\nA probe.\r\n"

REPORT_HOSTS = 5  # of one record are asked whether they want reports


async def find_addresses(settings: Settings, machine: Machine, resolver: Resolver) -> list[Address]:
    """Return the addresses from which mail leaves as the world sees them, each once, with their EHLO names.

    Those that are configured; else the public ones of this machine; where there is none of a family, or it is
    private, what DNS says of the host name is taken for it.
    """
    own = {4: machine.ipv4(), 6: machine.ipv6()}
    named = [(one.address, one.hostname or settings.hostname) for one in settings.sources]
    named = named or [(address, settings.hostname) for address in own.values() if address is not None]
    found = [Address(address, name) for address, name in named if not is_private(address)]
    if any(is_private(address) for address, _ in named) or not named:
        known = await hosts_of(resolver, settings.hostname)
        if not isinstance(known, Failure):
            found += [Address(address, settings.hostname, guessed=True) for address in known]
    once = {one.address: one for one in reversed(found)}
    return [await _with_use(one, settings, resolver) for one in reversed(once.values())]


async def _with_use(one: Address, settings: Settings, resolver: Resolver) -> Address:
    """Return the address with whether mail leaves from it, by ``delivery.ip_family``; see ``relay.sources``."""
    wanted_family = settings.delivery.ip_family
    if wanted_family != "auto":
        used = str(one.family) == wanted_family
    elif one.family == 4:
        used = True
    else:
        names, leads_back = await ptr_of(resolver, one.address)
        used = leads_back is not None or isinstance(names, Failure)
    return Address(one.address, one.ehlo, used=used, guessed=one.guessed)


async def sources(bench: Bench) -> list[Finding]:
    """Look at the addresses themselves: are they here, and does the world see them?"""
    settings = bench.snapshot.settings
    found = []
    for source in settings.sources:
        if source.address not in bench.own and not source.address.startswith("127."):
            advice = "give the address to an interface of this machine, or take it out of arkrelay.toml"
            found.append(
                Finding(
                    "source", source.address, Level.FAIL, "this machine does not have it", "an own address", advice
                )
            )
        elif is_private(source.address):
            seen = ", ".join(one.address for one in bench.addresses if one.guessed) or "none is known"
            advice = f"let DNS name the address that the world sees: {settings.hostname}. A …"
            level = Level.OK if seen != "none is known" else Level.WARN
            found.append(
                Finding("source", source.address, level, f"private; the world sees {seen}", "a public one", advice)
            )
        else:
            found.append(Finding("source", source.address, Level.OK, "this machine has it"))
    if not settings.sources:
        if not bench.addresses:
            advice = f"publish {settings.hostname}. A and the address of this machine, or name it as [[source]]"
            level = Level.FAIL if bench.resolver_ok else Level.SKIP  # DNS may know one
            found.append(Finding("source", settings.hostname, level, "no public address is known", "one", advice))
        found += [
            Finding(
                "source", one.address, Level.OK, "by DNS: this machine has a private one" if one.guessed else "own"
            )
            for one in bench.addresses
        ]
    return found


async def address(bench: Bench, one: Address) -> list[Finding]:
    """Look at the names of one address, and at SPF of what it says in EHLO."""
    (names, leads_back), back, result = await asyncio.gather(
        ptr_of(bench.resolver, one.address),
        bench.resolver.records(one.ehlo, "AAAA" if one.family == 6 else "A"),
        bench.spf(one, one.ehlo),
    )
    ok = bench.resolver_ok
    return [
        judge.judge_ptr(one, names, leads_back, resolver_ok=ok),
        judge.judge_ehlo(one, back, resolver_ok=ok),
        judge.judge_helo_spf(one, result, resolver_ok=ok),
    ]


async def blocklist(bench: Bench, check: str, subject: str, zone: str, domain: str = "") -> list[Finding]:
    """Ask one list about an address or a domain, and whether the list works."""
    ask = bench.resolver.records
    listed, unlisted = blocklists.controls(subject, zone)
    said, must, must_not = await asyncio.gather(
        *(ask(blocklists.question(name, zone), "A") for name in (subject, listed, unlisted))
    )
    text = ""
    if said and not isinstance(said, Failure):
        texts = await ask(blocklists.question(subject, zone), "TXT")
        text = "" if isinstance(texts, Failure) or not texts else judge.shown(texts[0])
    return [blocklists.judge(check, subject, blocklists.Heard(zone, said, must, must_not, text), domain)]


async def return_path_spf(bench: Bench) -> list[Finding]:
    """Evaluate SPF of the return-path host, which every return path is an alias of."""
    host = bench.snapshot.settings.return_path_host
    terms = " ".join(f"ip{one.family}:{one.address}" for one in bench.addresses) or "a"
    repair = f'publish {host}. TXT "v=spf1 {terms} -all"'
    return [await _spf(bench, "return-path-spf", host, repair)]


async def _spf(bench: Bench, check: str, name: str, repair: str, domain: str = "") -> Finding:
    results = await asyncio.gather(*(bench.spf(one, name) for one in bench.addresses))
    by_address = dict(zip(bench.addresses, results, strict=True))
    return judge.judge_spf(check, name, by_address, repair, resolver_ok=bench.resolver_ok, domain=domain)


async def domain(bench: Bench, tenant: Tenant, one: Domain) -> list[Finding]:
    """Look at all that DNS says of a sender domain."""
    settings = bench.snapshot.settings
    ok = bench.resolver_ok
    keys = _keys(bench, one)
    records = wanted(
        one.name,
        [(signer.selector, public_record(signer.key)) for _, signer in keys],
        settings.spf_host,
        settings.return_path_host,
    )
    repair = (
        f'publish {one.name}. TXT "{records.spf.value}", and a record at {settings.spf_host} that names our addresses'
    )
    verdicts, spf, dmarc, mx = await asyncio.gather(
        inspect(bench.resolver, records),
        _spf(bench, "spf", one.name, repair, one.name),
        bench.dmarc(one.name),
        bench.resolver.mx(one.name),
    )
    return_path = records.return_path.full_name
    found = [
        spf,
        *[await _dkim(bench, key, signer, records, verdicts.keys) for key, signer in keys],
        judge.judge_return_path(
            one.name, verdicts.return_path, return_path, settings.return_path_host, resolver_ok=ok
        ),
        judge.judge_dmarc(one.name, dmarc, await _unwanted(bench, dmarc), resolver_ok=ok),
        _replies(one.name, mx, resolver_ok=ok),
    ]
    if not any(key.state == "active" for key, _ in keys):
        found.append(_no_key(one.name))
    if verdicts.return_path.status is None or any(
        item.check == "dkim" and item.level is Level.SKIP for item in found
    ):
        found.append(Finding("alignment", one.name, Level.SKIP, "not known: see dkim, return-path", domain=one.name))
        return [*found, *await _tracks(bench, tenant, one.name)]
    in_use = return_path if verdicts.return_path.status is DnsStatus.OK else settings.return_path_host
    signers = [one.name] if any(item.check == "dkim" and item.level is Level.OK for item in found) else []
    organisations = {one.name: dmarc.organisation, in_use: (await bench.dmarc(in_use)).organisation}
    if in_use == return_path and dmarc.record is None:
        organisations[in_use] = dmarc.organisation  # without any record psrp.<domain> and <domain> are one house
    found.append(judge.judge_alignment(one.name, dmarc, signers, in_use, organisations))
    found += await _tracks(bench, tenant, one.name)
    return found


async def _unwanted(bench: Bench, found: Found) -> list[str]:
    """Return the hosts of other houses that reports would go to, and that do not say that they want them."""
    hosts = () if found.record is None else found.record.report_hosts[:REPORT_HOSTS]
    unwanted = []
    for host in hosts:
        if (await bench.dmarc(host)).organisation == found.organisation:
            continue
        texts = await bench.resolver.txt(permission(found.at, host))
        if not isinstance(texts, Failure) and not permits(texts):
            unwanted.append(host)
    return unwanted


def _keys(bench: Bench, one: Domain) -> list[tuple[DkimKey, Signer]]:
    loaded = bench.snapshot.dkim_keys
    slots = [(key, (key.private_key, one.name, key.selector, key.algorithm)) for key in one.dkim]
    return [(key, loaded[slot].signer) for key, slot in slots if slot in loaded]


async def _dkim(
    bench: Bench, key: DkimKey, signer: Signer, records: RecordSet, verdicts: Mapping[str, Verdict]
) -> Finding:
    """Judge one key by its record, and by a message signed with the one half and verified with the other."""
    name = f"{signer.selector}._domainkey.{signer.domain}"
    texts = await bench.resolver.txt(name)
    value = next(record.value for record in records.dkim if record.full_name == name)
    probe = await asyncio.to_thread(_probe, signer, texts, bench.now)
    shown = Key(signer.selector, key.state, name, value, verdicts[name], probe)
    return judge.judge_dkim(signer.domain, shown, resolver_ok=bench.resolver_ok)


def _probe(signer: Signer, texts: Sequence[str] | Failure, now: float) -> str | None:
    """Return why a probe that ``signer`` signs does not verify with the published key, or None: it does."""
    if isinstance(texts, Failure):
        return texts.detail
    house = signer.domain.encode()
    message = PROBE % (house, house, house)
    (verdict,) = verify(sign(message, [signer], now) + message, lambda _name: texts, now=now)
    return None if verdict.ok else verdict.reason


def _no_key(name: str) -> Finding:
    advice = f"give it one: arkrelay domain rotate {name}"
    return Finding("dkim", name, Level.FAIL, "no active key: its mail is not signed", "a key", advice, name)


def _replies(name: str, answer: MxAnswer | Failure, *, resolver_ok: bool) -> Finding:
    if isinstance(answer, MxAnswer):
        problem = f"{name} has no MX record" if answer.implicit else None
        return judge.judge_replies(name, problem, known=True, resolver_ok=resolver_ok)
    known = answer.kind is not FailureKind.RESOLVER
    return judge.judge_replies(name, answer.detail, known=known, resolver_ok=resolver_ok)


async def _tracks(bench: Bench, tenant: Tenant, name: str) -> list[Finding]:
    host = bench.snapshot.settings.track_host
    found = []
    for track in tenant.track_domains:
        if track.domain == name:
            record = wanted_alias(f"{track.name}.{name}", host)
            verdict = judge_alias(record, await bench.resolver.cname(record.full_name))
            found.append(judge.judge_track(name, record.full_name, verdict, host, resolver_ok=bench.resolver_ok))
    return found
