"""The doctor's look at SMTP: out by port 25, in at the return-path host, and not through for strangers.

Nothing is ever sent: conversations end before DATA.
"""

import asyncio
import time
from collections.abc import Sequence

from arkrelay.config.addresses import parse_endpoint, parse_host_port
from arkrelay.model.delivery import Timeouts
from arkrelay.model.dns import MxAnswer
from arkrelay.model.reply import Failure, Reply
from arkrelay.model.settings import Listen
from arkrelay.policy import doctorhost as judge
from arkrelay.policy import mtasts
from arkrelay.policy.doctor import Address, trouble
from arkrelay.policy.finding import Finding, Level
from arkrelay.policy.route import parse_networks
from arkrelay.relay.bench import Bench, hosts_of, is_private
from arkrelay.wire.fetch import Fetcher, FetchError
from arkrelay.wire.probe import ask
from arkrelay.wire.session import Session
from arkrelay.wire.smtp import Target, connect
from arkrelay.wire.tls import opportunistic

ANSWER_S = 15.0  # for a whole conversation: our own listeners answer at once, and a test host should
HOSTS_MAX = 3  # MX hosts and addresses of each that are spoken to
STRANGER = "doctor@relay-test.invalid"  # RFC 2606 §2: nobody's, so nothing could be delivered
STS_PATH = "/.well-known/mta-sts.txt"


async def port25(bench: Bench, one: Address) -> list[Finding]:
    """Connect from one of our addresses to the test host that the admin names, and hear its greeting."""
    named = bench.snapshot.settings.doctor.probe_host
    if not named:
        return [Finding("port25", one.address, Level.SKIP, "[doctor] probe_host names no host to connect to")]
    host, port = parse_host_port(named, default_port=25)
    targets = await hosts_of(bench.resolver, host) if not _is_ip(host) else (host,)
    if isinstance(targets, Failure):
        return [trouble("port25", one.address, targets, resolver_ok=bench.resolver_ok)]
    family = [target for target in targets if (":" in target) == (one.family == 6)]
    if not family:
        return [Finding("port25", one.address, Level.SKIP, f"{host} has no IPv{one.family} address")]
    source = None if one.guessed else one.address
    heard = await ask(family[0], port, [f"EHLO {one.ehlo}"], timeout_s=ANSWER_S, source=source)
    said = heard.replies[0] if heard.replies else heard.last
    return [judge.judge_port25(one.address, named, str(said) if isinstance(said, Reply) else said)]


async def return_path(bench: Bench) -> list[Finding]:
    """Follow the MX of the return-path host to our own listener, and offer it a return path of ours."""
    host = bench.snapshot.settings.return_path_host
    answer = await bench.resolver.mx(host)
    if isinstance(answer, Failure):
        if answer.kind == "resolver":
            return [trouble("return-path-mx", host, answer, resolver_ok=bench.resolver_ok)]
        return [judge.judge_return_path_mx(host, (), answer.detail, "", ())]
    hosts = [one.host for one in answer.hosts[:HOSTS_MAX]]
    found = [await hosts_of(bench.resolver, one) for one in hosts]
    addresses = [one for each in found if not isinstance(each, Failure) for one in each[:HOSTS_MAX]]
    if answer.implicit and not addresses:
        return [judge.judge_return_path_mx(host, (), f"{host} has neither MX nor address", "", ())]
    here = {*bench.own, *(one.address for one in bench.addresses)}
    ours = next((one for one in addresses if one in here or one.startswith("127.")), "")
    strangers = [one for one in addresses if one not in here]
    findings = [judge.judge_return_path_mx(host, hosts, "", ours, strangers)]
    listening = any(one.service == "bounces" for one in bench.snapshot.listeners)
    if bench.machine.listeners is None or bench.return_paths is None:
        reason = "the daemon is not running" if bench.machine.listeners is None else "the host key cannot be read"
        return [*findings, Finding("return-path-port", host, Level.SKIP, reason)]
    if not listening:
        outcome = 'no [[listen]] has service = "bounces"'
        return [*findings, judge.judge_return_path_port(host, outcome, ours=False, taken=False)]
    return [*findings, *await asyncio.gather(*(_knock(bench, one) for one in dict.fromkeys(addresses)))]


async def _knock(bench: Bench, address: str) -> Finding:
    settings = bench.snapshot.settings
    assert bench.return_paths is not None  # noqa: S101 -- looked at by the only caller
    nonce = bench.return_paths.local_part(0, time.time())  # of no recipient: rows begin with 1
    commands = [
        f"EHLO {settings.hostname}",
        "MAIL FROM:<>",
        f"RCPT TO:<{nonce}@{settings.return_path_host}>",
    ]
    heard = await ask(address, settings.delivery.port, commands, timeout_s=ANSWER_S)
    words = heard.replies[0].text.split() if heard.replies else []
    ours = bool(words) and words[0] == settings.hostname
    taken = heard.failure is None and len(heard.replies) == 4 and heard.replies[-1].code == 250
    where = f"{settings.return_path_host} {address} port {settings.delivery.port}"
    return judge.judge_return_path_port(where, str(heard.last), ours=ours, taken=taken)


async def relay(bench: Bench) -> list[Finding]:
    """Try each SMTP listener as a stranger would who has found it: is mail for strangers refused?"""
    if bench.machine.listeners is None:
        return [Finding("relay", "listeners", Level.SKIP, "the daemon is not running")]
    bound = [(listen, address) for listen, address in bench.machine.listeners() if listen.service != "http"]
    return list(await asyncio.gather(*(_try(bench, listen, address) for listen, address in bound)))


async def _try(bench: Bench, listen: Listen, bound: str) -> Finding:
    endpoint = parse_endpoint(bound)
    if listen.tenant:
        outcome = f"not asked: clients of this machine send as {listen.tenant} without a password, as configured"
        return judge.judge_relay(listen.service, bound, outcome, refused=None)
    if endpoint.path is not None:
        outcome = "not asked: a unix socket, which only this machine reaches"
        return judge.judge_relay(listen.service, bound, outcome, refused=None)
    address = _reachable(endpoint.host, bench)
    commands = [f"EHLO {bench.snapshot.settings.hostname}", f"MAIL FROM:<{STRANGER}>", f"RCPT TO:<{STRANGER}>"]
    implicit = opportunistic() if listen.service == "submissions" else None
    explicit = opportunistic() if listen.service == "submission" and listen.tls == "required" else None
    heard = await ask(address, endpoint.port, commands, timeout_s=ANSWER_S, tls=implicit, start_tls=explicit)
    if heard.failure is not None:
        return judge.judge_relay(listen.service, bound, f"not asked: {heard.failure.detail}", refused=None)
    last = heard.replies[-1]
    return judge.judge_relay(listen.service, bound, f"{last} (asked from {address})", refused=last.code >= 400)


def _reachable(host: str, bench: Bench) -> str:
    """Return where to reach a listener: at an address of the world's side where it has one."""
    if host not in {"0.0.0.0", "::"}:  # noqa: S104 -- compared with, not bound to
        return host
    six = host == "::"
    public = [one for one in bench.own if (":" in one) == six and not one.startswith(("127.", "::1", "fe80:"))]
    public.sort(key=lambda one: (is_private(one), one))
    return public[0] if public else "::1" if six else "127.0.0.1"


async def sts(bench: Bench) -> list[Finding]:
    """Hold the MTA-STS policy of the return-path host, where it has one, against its hosts and our certificate."""
    settings = bench.snapshot.settings
    host = settings.return_path_host
    texts = await bench.resolver.txt(f"_mta-sts.{host}")
    if isinstance(texts, Failure):
        return [trouble("mta-sts", f"_mta-sts.{host}", texts, resolver_ok=bench.resolver_ok)]
    if not any(text.startswith("v=STSv1") for text in texts):
        return [Finding("mta-sts", f"_mta-sts.{host}", Level.SKIP, "no MTA-STS policy is published, none is needed")]
    identity = mtasts.parse_record(texts)
    if identity is None:
        return [judge.judge_sts(host, f"its record cannot be read: {texts[0][:100]}", "")]
    fetcher = Fetcher(bench.resolver, frozenset())
    allow = parse_networks([*settings.delivery.allow_destinations, *bench.own])  # it may be served by this machine
    try:
        body = await fetcher.text(f"mta-sts.{host}", STS_PATH, port=settings.delivery.mta_sts_port, allow=allow)
        policy = mtasts.parse_policy(body, identity, bench.now)
    except (FetchError, ValueError) as error:
        return [judge.judge_sts(host, f"its policy: {error}", "")]
    answer = await bench.resolver.mx(host)
    hosts = [one.host for one in answer.hosts[:HOSTS_MAX]] if isinstance(answer, MxAnswer) else []
    unlisted = [one for one in hosts if not mtasts.listed(one, policy)]
    if policy.mode != "none" and unlisted:
        return [judge.judge_sts(host, f"its policy does not name the MX host {unlisted[0]}", policy.mode)]
    problem = "" if policy.mode == "none" else await _certificates(bench, hosts)
    return [judge.judge_sts(host, problem, policy.mode)]


async def _certificates(bench: Bench, hosts: Sequence[str]) -> str:
    """Return why a sender who obeys the policy would not take one of the hosts, or an empty string."""
    settings = bench.snapshot.settings
    timeouts = Timeouts(connect_s=ANSWER_S, greeting_s=ANSWER_S, command_s=ANSWER_S)
    for host in hosts:
        addresses = await hosts_of(bench.resolver, host)
        for address in () if isinstance(addresses, Failure) else addresses[:1]:
            target = Target(
                host=host,
                address=address,
                port=settings.delivery.port,
                helo=settings.hostname,
                tls="required",
                verify=True,
            )
            session = await connect(target, timeouts)
            if not isinstance(session, Session):
                return f"{host}: {session}"
            await session.quit()
    return ""


def _is_ip(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host
