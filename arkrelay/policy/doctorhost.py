"""What this machine must be for mail to go and come back: certificate, clock, disk, files, resolver, doors."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from arkrelay.model.reply import Failure
from arkrelay.policy.finding import Finding, Level

CERTIFICATE_WARN_DAYS, CERTIFICATE_FAIL_DAYS = (
    14,
    3,
)  # ACME clients renew at 30 days left: at 14 they have failed for weeks
RESOLVER_SLOW_S = 0.5  # the least of some tries for one name; a resolver at hand answers from memory in milliseconds
DISK_NEAR = 2.0  # times limits.min_free_disk
INODES_LEAST = 0.05  # share that is free


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of the listeners, as its file has it and as a client with this system's authorities sees it."""

    file: str
    names: tuple[str, ...]
    ends_at: float
    problem: str | None  # why a client that checks does not take it; None: it does
    self_signed: bool = False


def judge_certificate(hostname: str, one: Certificate | str, now: float) -> Finding:
    """Hold the certificate against what clients demand; ``one`` is text where no server can start with it."""

    def said(level: Level, found: str, expected: str, advice: str) -> Finding:
        return Finding("certificate", hostname, level, found, expected, advice)

    renew = "renew it: it is read again as soon as the file changes"
    if isinstance(one, str):
        return said(Level.FAIL, one, "a certificate and its key", "mend the files of [tls]")
    days = (one.ends_at - now) / 86400
    until = dt.datetime.fromtimestamp(one.ends_at, dt.UTC).strftime("%Y-%m-%d")
    if days <= 0:
        return said(Level.FAIL, f"{one.file} expired on {until}", "a valid certificate", renew)
    if not covers(one.names, hostname):
        found = f"{one.file} is for {', '.join(one.names) or 'no name'}"
        return said(
            Level.FAIL, found, f"a certificate for {hostname}", f"get one that has {hostname} among its names"
        )
    if days < CERTIFICATE_WARN_DAYS:
        level = Level.FAIL if days < CERTIFICATE_FAIL_DAYS else Level.WARN
        return said(level, f"{one.file} ends on {until}, in {days:.0f} days", "more than 14 days", renew)
    if one.self_signed:
        found = f"{one.file} is signed by itself: no client that checks takes it"
        return said(
            Level.WARN, found, "one by a public authority", "get one by ACME, or tell your clients to trust it"
        )
    if one.problem is not None:
        advice = "put the whole chain into the file (fullchain.pem, not cert.pem)"
        return said(
            Level.FAIL, f"a client does not take it: {one.problem}", "a chain that clients can follow", advice
        )
    return Finding("certificate", hostname, Level.OK, f"valid until {until} ({days:.0f} days)")


def covers(names: Collection[str], host: str) -> bool:
    """Return whether a certificate with these names is one for ``host`` (RFC 9525 §6.3)."""
    parent = host.partition(".")[2]
    return any(name.lower() in {host, f"*.{parent}"} for name in names)


def judge_clock(*, synchronised: bool | None) -> Finding:
    """Say whether something keeps the clock right: with a wrong one signatures are not valid yet, or any more."""
    if synchronised is None:
        return Finding("clock", "system", Level.SKIP, "this system does not say whether its clock is kept right")
    if synchronised:
        return Finding("clock", "system", Level.OK, "kept right by a time service")
    advice = "switch a time service on: timedatectl set-ntp true, or install chrony"
    return Finding("clock", "system", Level.WARN, "nothing keeps the clock right", "a time service", advice)


def judge_disk(folder: str, free_bytes: int, least_bytes: int, inodes: tuple[int, int]) -> Finding:
    """Hold what is free against ``limits.min_free_disk``; ``inodes``: free and all, all 0 where none are counted."""
    found = f"{free_bytes / 1e9:.1f} GB free"
    room = f"more than {least_bytes / 1e9:.1f} GB (limits.min_free_disk)"
    if free_bytes < least_bytes:
        return Finding("disk", folder, Level.FAIL, found, room, "make room: nothing is accepted now")
    if inodes[1] and inodes[0] < inodes[1] * INODES_LEAST:
        share = f"{inodes[0]} of {inodes[1]} inodes free"
        return Finding("disk", folder, Level.FAIL, share, "at least 5 %", "remove small files from this file system")
    if free_bytes < least_bytes * DISK_NEAR:
        advice = "make room, or keep less: [retention]"
        return Finding("disk", folder, Level.WARN, found, f"twice min_free_disk, {room}", advice)
    return Finding("disk", folder, Level.OK, found)


def judge_files(open_to_others: Mapping[str, int], looked_at: int, folder: str) -> Finding:
    """Say which files with secrets others than their owner and group can read; ``open_to_others`` are their modes."""
    if not open_to_others:
        return Finding("files", folder, Level.OK, f"{looked_at} files and folders with secrets are closed to others")
    named = [f"{path} ({mode:04o})" for path, mode in list(open_to_others.items())[:3]]
    more = f" and {len(open_to_others) - 3} more" if len(open_to_others) > 3 else ""
    advice = "; ".join(f"chmod o-rwx {path}" for path in list(open_to_others)[:3])
    return Finding(
        "files", folder, Level.FAIL, f"others can read {', '.join(named)}{more}", "closed to others", advice
    )


def judge_resolver(server: str, latency_s: float | None, problem: str) -> Finding:
    """Say whether a nameserver answers, and how fast."""
    if latency_s is None:
        advice = "start it, or name another in [dns] nameservers"
        return Finding("resolver", server, Level.FAIL, problem, "an answer", advice)
    found = f"answers in {latency_s * 1000:.0f} ms"
    if latency_s > RESOLVER_SLOW_S:
        advice = "run a resolver on this machine (unbound): each message waits for its answers"
        return Finding("resolver", server, Level.WARN, found, f"less than {RESOLVER_SLOW_S * 1000:.0f} ms", advice)
    return Finding("resolver", server, Level.OK, found)


def judge_dnssec(*, trusted: bool, secure: bool | None, dane: str) -> Finding:
    """Say whether DNSSEC proves anything here; ``secure`` is AD in the answer for the signed root."""
    if secure is None:
        return Finding("dnssec", "resolver", Level.SKIP, "the root zone could not be asked for")
    if not trusted or dane == "off":
        why = 'delivery.dane is "off"' if dane == "off" else "the nameservers are not on this machine, nor trusted"
        advice = (
            "run a validating resolver on 127.0.0.1 (unbound), and DANE protects mail to the domains that have it"
        )
        return Finding("dnssec", "resolver", Level.SKIP, f"not used: {why}", "", advice)
    if secure:
        return Finding("dnssec", "resolver", Level.OK, "answers are proved (AD): DANE is obeyed")
    advice = "switch DNSSEC validation on in the resolver, with its trust anchor: DANE is not obeyed without it"
    return Finding("dnssec", "resolver", Level.WARN, "the resolver does not validate", "AD for signed names", advice)


def judge_port25(address: str, host: str, outcome: str | Failure) -> Finding:
    """Say whether a connection to the test host comes about; ``outcome`` is its greeting."""
    if not isinstance(outcome, Failure):
        return Finding("port25", address, Level.OK, f"{host} answers: {outcome[:100]}")
    advice = (
        f"see whether {host} is up; ask the provider of this machine to open port 25 outwards, or use a [[route]]"
    )
    return Finding("port25", address, Level.FAIL, f"{host}: {outcome.detail}", "a greeting", advice)


def judge_return_path_mx(
    host: str, hosts: Sequence[str], problem: str, ours: str, strangers: Sequence[str]
) -> Finding:
    """Say whether the return-path host leads here; ``ours`` is an address of this machine that it leads to."""
    expected = f"{host} MX that leads to this machine"
    advice = f"publish {host}. MX 10 and the name of this machine: without it no bounce arrives"
    if not hosts:
        return Finding("return-path-mx", host, Level.FAIL, problem, expected, advice)
    if ours:
        return Finding("return-path-mx", host, Level.OK, f"{', '.join(hosts)}, {ours}")
    found = f"{', '.join(hosts)}, {', '.join(strangers) or 'without an address'}"
    note = "right where the provider translates addresses (NAT) and forwards port 25; return-path-port tells"
    return Finding("return-path-mx", host, Level.WARN, f"{found}: no address of this machine", expected, note)


def judge_return_path_port(where: str, outcome: str, *, ours: bool, taken: bool) -> Finding:
    """Say whether our bounces listener answers at the return-path host; ``outcome`` is what was heard last."""
    if ours and taken:
        return Finding("return-path-port", where, Level.OK, "our listener answers, and takes a return path of ours")
    expected = "our greeting, and 250 to a return path of ours"
    if not ours:
        advice = (
            'open port 25 inwards, and let a [[listen]] with service = "bounces" answer there. Behind NAT this '
            "machine may not reach itself by its public address: then try from elsewhere"
        )
        return Finding("return-path-port", where, Level.FAIL, outcome, expected, advice)
    advice = "is it another arkrelay, or another state_dir? Its host key must be the one that this daemon uses"
    return Finding("return-path-port", where, Level.FAIL, outcome, expected, advice)


def judge_relay(service: str, address: str, outcome: str, *, refused: bool | None) -> Finding:
    """Say whether a listener refused mail of a stranger to a stranger; None: it could not be asked."""
    subject = f"{service} {address}"
    if refused is None:
        return Finding("relay", subject, Level.SKIP, outcome)
    if refused:
        return Finding("relay", subject, Level.OK, f"refuses strangers: {outcome}")
    advice = "stop the daemon, and report this: an open relay is on every blocklist within hours"
    return Finding("relay", subject, Level.FAIL, f"takes mail of strangers: {outcome}", "5xx", advice)


def judge_sts(host: str, problem: str, mode: str) -> Finding:
    """Say whether the MTA-STS policy that the return-path host publishes is one that this machine keeps."""
    subject = f"_mta-sts.{host}"
    if problem:
        advice = "mend the policy or what it promises: senders that obey it keep their bounces for themselves"
        return Finding("mta-sts", subject, Level.FAIL, problem, "a policy that holds", advice)
    return Finding("mta-sts", subject, Level.OK, f"mode {mode}: the policy holds")
