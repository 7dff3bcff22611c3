"""What DNS must say for mail of ours to be taken, and what to do where it says something else.

Each function holds what was found against what receivers want. SPF of a domain is evaluated, not searched for a
string: an include that is there and does not pass, or costs the eleventh look-up, is as bad as none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arkrelay.model.domain import DnsStatus
from arkrelay.model.reply import Failure
from arkrelay.policy.dmarc import Found as DmarcFound
from arkrelay.policy.dmarc import aligned, permission
from arkrelay.policy.finding import Finding, Level
from arkrelay.policy.records import Verdict
from arkrelay.policy.spf import LOOKUPS_MAX, SpfResult

LOOKUPS_NEAR = 9  # one more include at somebody else's, and the limit of ten is passed
_SHOWN = 200  # characters of what strangers publish


@dataclass(frozen=True, slots=True)
class Address:
    """An address from which mail leaves, or which the world takes for it, with its EHLO name.

    ``used`` is False for one of which nothing leaves by the setting ``delivery.ip_family``; ``guessed``: it is
    what DNS says of ``hostname``, because this machine has no public address of its own.
    """

    address: str
    ehlo: str
    used: bool = True
    guessed: bool = False

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


def trouble(check: str, subject: str, failure: Failure | str, *, resolver_ok: bool, domain: str = "") -> Finding:
    """Return the finding of a look-up that failed: receivers meet the same, unless it is our resolver that is ill."""
    detail = shown(str(failure))
    if not resolver_ok:
        return Finding(check, subject, Level.SKIP, detail, "an answer", "mend the resolver first", domain)
    advice = (
        "ask the nameservers of that zone why they do not answer, or answer wrongly (DNSSEC); receivers see the same"
    )
    return Finding(check, subject, Level.FAIL, detail, "an answer", advice, domain)


def judge_ptr(one: Address, names: Sequence[str] | Failure, leads_back: str | None, *, resolver_ok: bool) -> Finding:
    """Hold the PTR record of an address against what large receivers demand: a name that leads back to it."""
    if isinstance(names, Failure):
        return trouble("ptr", one.address, names, resolver_ok=resolver_ok)
    bad = Level.FAIL if one.used else Level.WARN
    expected = f"{one.ehlo}, which leads back to {one.address}"
    where = f"set it to {one.ehlo} where you rent the address (reverse DNS, rDNS, PTR)"
    if not names:
        return Finding("ptr", one.address, bad, "no PTR record", expected, where)
    if leads_back is None:
        kind = "A" if one.family == 4 else "AAAA"
        found = f"{shown(', '.join(names))}, which does not lead back to {one.address}"
        advice = f"give {names[0]} the {kind} record {one.address}, or {where}"
        return Finding("ptr", one.address, bad, found, expected, advice)
    if leads_back != one.ehlo:
        return Finding(
            "ptr",
            one.address,
            Level.WARN,
            f"{leads_back}, which leads back; but EHLO says {one.ehlo}",
            f"the same name in both: {one.ehlo}",
            f"{where}, or set hostname (of the [[source]], where it has its own) to {leads_back}",
        )
    return Finding("ptr", one.address, Level.OK, f"{leads_back}, which leads back")


def judge_ehlo(one: Address, found: Sequence[str] | Failure, *, resolver_ok: bool) -> Finding:
    """Hold the EHLO name against RFC 5321 §4.1.1.1: a name in DNS, which leads to the client."""
    if isinstance(found, Failure):
        return trouble("ehlo", one.address, found, resolver_ok=resolver_ok)
    if one.address in found:
        return Finding("ehlo", one.address, Level.OK, f"{one.ehlo} leads to it")
    kind = "A" if one.family == 4 else "AAAA"
    said = f"{one.ehlo} leads to {', '.join(found)}" if found else f"{one.ehlo} has no {kind} record"
    return Finding(
        "ehlo",
        one.address,
        Level.FAIL if one.used else Level.WARN,
        said,
        f"{one.ehlo} {kind} {one.address}",
        f"publish {one.ehlo}. {kind} {one.address}, or set hostname to the name that the address has",
    )


def judge_helo_spf(one: Address, result: SpfResult, *, resolver_ok: bool) -> Finding:
    """Hold SPF of the EHLO name against RFC 7208 §2.3: it is what counts for mail with the null return path."""
    expected = f"pass for {one.address}"
    if result.result == "pass":
        return Finding("helo-spf", one.address, Level.OK, f"pass: {shown(result.reason)}")
    if result.result == "temperror":
        return trouble("helo-spf", one.address, result.reason, resolver_ok=resolver_ok)
    advice = f'publish {one.ehlo}. TXT "v=spf1 a -all"'
    level = Level.FAIL if result.result in {"fail", "permerror"} and one.used else Level.WARN
    return Finding("helo-spf", one.address, level, f"{result.result}: {shown(result.reason)}", expected, advice)


def judge_spf(
    check: str, name: str, results: Mapping[Address, SpfResult], repair: str, *, resolver_ok: bool, domain: str = ""
) -> Finding:
    """Hold SPF of ``name`` against a pass for every address in use; ``repair`` says how to get one."""
    used = {one: result for one, result in results.items() if one.used} or dict(results)
    expected = f"pass for {', '.join(one.address for one in used)}"
    failed = {one: result for one, result in used.items() if result.result != "pass"}
    if not used:
        return Finding(check, name, Level.SKIP, "no address to evaluate it for", "an address", "see source", domain)
    if failed and all(result.result == "temperror" for result in failed.values()):
        reason = next(iter(failed.values())).reason
        return trouble(check, name, reason, resolver_ok=resolver_ok, domain=domain)
    if failed:
        found = "; ".join(f"{result.result} for {one.address}: {result.reason}" for one, result in failed.items())
        return Finding(check, name, Level.FAIL, shown(found), expected, repair, domain)
    most = max(result.lookups for result in used.values())
    found = f"pass for {', '.join(one.address for one in used)} ({most} of {LOOKUPS_MAX} look-ups)"
    notes = [note for result in used.values() for note in result.notes]
    if most >= LOOKUPS_NEAR:
        advice = "take out includes that are not needed: an eleventh look-up makes the whole record void"
        return Finding(check, name, Level.WARN, found, f"fewer than {LOOKUPS_NEAR} look-ups", advice, domain)
    if notes:
        return Finding(check, name, Level.WARN, f"{found}; {shown(notes[0])}", expected, "take ptr out", domain)
    return Finding(check, name, Level.OK, found, domain=domain)


@dataclass(frozen=True, slots=True)
class Key:
    """One DKIM key of a sender domain: what is to be published, how that stands, and how the probe came out."""

    selector: str
    state: str  # active | published | retired
    name: str
    value: str
    verdict: Verdict
    probe: str | None  # None: the probe verified with the published key; else why not


def judge_dkim(domain: str, key: Key, *, resolver_ok: bool) -> Finding:
    """Hold a published key against ours, by its tags and by a message that was signed and verified with it."""
    subject = f"{key.selector}._domainkey.{domain}"
    if key.verdict.status is None:
        return trouble("dkim", subject, key.verdict.error or "not asked", resolver_ok=resolver_ok, domain=domain)
    expected = f'TXT "{key.value[:40]}…", and a signed probe that verifies'
    publish = f"publish the record: arkrelay domain dns {domain}"
    if key.verdict.status is DnsStatus.OK and key.probe is None:
        found = "the published key is ours, and a signed probe verifies with it"
        return Finding("dkim", subject, Level.OK, f"{found} ({key.state})", domain=domain)
    error = key.verdict.error or f"the probe does not verify: {key.probe}"
    if key.state == "active":
        return Finding("dkim", subject, Level.FAIL, shown(error), expected, publish, domain)
    if key.state == "published":
        advice = f"{publish}; it signs only when DNS has it"
        return Finding("dkim", subject, Level.WARN, shown(error), expected, advice, domain)
    advice = f"leave it in DNS until mail that it signed has arrived, then: arkrelay domain rotate {domain}"
    return Finding("dkim", subject, Level.WARN, shown(error), expected, advice, domain)


def judge_return_path(domain: str, verdict: Verdict, wanted: str, host: str, *, resolver_ok: bool) -> Finding:
    """Hold the CNAME of the return path against ours: without it SPF does not align with the author."""
    if verdict.status is None:
        return trouble("return-path", wanted, verdict.error or "not asked", resolver_ok=resolver_ok, domain=domain)
    if verdict.status is DnsStatus.OK:
        return Finding("return-path", wanted, Level.OK, f"CNAME {host}", domain=domain)
    advice = f"publish {wanted}. CNAME {host}."
    return Finding("return-path", wanted, Level.FAIL, shown(verdict.error or ""), f"CNAME {host}", advice, domain)


def judge_dmarc(domain: str, found: DmarcFound, unwanted: Sequence[str], *, resolver_ok: bool) -> Finding:
    """Hold DMARC against what Gmail, Yahoo and Microsoft demand of who sends much: a record, at least p=none.

    ``unwanted``: hosts of others that its reports would go to, and that have not said that they want them.
    """
    subject = f"_dmarc.{domain}"
    publish = f'publish {subject}. TXT "v=DMARC1; p=none"; later quarantine, then reject'
    expected = "one record, at least p=none"
    if found.trouble and found.record is None:
        return trouble("dmarc", subject, found.trouble, resolver_ok=resolver_ok, domain=domain)
    if found.record is None and found.faults:
        return Finding("dmarc", subject, Level.FAIL, shown("; ".join(found.faults)), expected, publish, domain)
    if found.record is None:
        advice = f"{publish}. Who sends thousands a day is refused without it"
        return Finding("dmarc", subject, Level.WARN, "no DMARC record", expected, advice, domain)
    said = shown(found.record.text) if found.at == domain else f"{shown(found.record.text)} at _dmarc.{found.at}"
    problems = (*found.record.problems, *found.faults)
    if problems:
        return Finding("dmarc", subject, Level.WARN, said, expected, shown("; ".join(problems)), domain)
    if unwanted:
        wish = "that who gets its reports (rua=) wants them"
        asked = " and ".join(f'{permission(found.at, host)}. TXT "v=DMARC1"' for host in unwanted)
        advice = f"no reports are sent to {', '.join(unwanted)}: whoever runs it must publish {asked}"
        return Finding("dmarc", subject, Level.WARN, said, wish, shown(advice), domain)
    return Finding("dmarc", subject, Level.OK, said, domain=domain)


def judge_alignment(
    domain: str, dmarc: DmarcFound, signers: Sequence[str], return_path: str, organisations: Mapping[str, str]
) -> Finding:
    """Hold DKIM's d= and the return path in use against the author's domain (RFC 9989 §4.4).

    ``organisations`` are the organisational domains of all of them.
    """
    strict_dkim = dmarc.record is not None and dmarc.record.strict_dkim
    strict_spf = dmarc.record is not None and dmarc.record.strict_spf

    def aligns(other: str, *, strict: bool) -> bool:
        pair = (organisations.get(domain, domain), organisations.get(other, other))
        return aligned(domain, other, pair, strict=strict)

    by_dkim = any(aligns(signer, strict=strict_dkim) for signer in signers)
    by_spf = aligns(return_path, strict=strict_spf)
    expected = "DKIM and SPF both aligned"
    if by_dkim and by_spf:
        return Finding("alignment", domain, Level.OK, "DKIM and SPF align with the author's domain", domain=domain)
    if by_dkim:
        why = (
            f"aspf=s, and the return path is at {return_path}"
            if strict_spf
            else f"the return path is at {return_path}"
        )
        advice = "take aspf=s out of the DMARC record" if strict_spf else "publish the return path: see return-path"
        return Finding("alignment", domain, Level.WARN, f"only DKIM aligns: {why}", expected, advice, domain)
    if by_spf:
        advice = f"give the domain a key: arkrelay domain rotate {domain}"
        found = "only SPF aligns, and forwarding breaks it: no DKIM key signs for this domain"
        return Finding("alignment", domain, Level.WARN, found, expected, advice, domain)
    advice = f"publish DKIM key and return path: arkrelay domain dns {domain}"
    return Finding("alignment", domain, Level.FAIL, "neither DKIM nor SPF aligns", expected, advice, domain)


def judge_replies(domain: str, problem: str | None, *, known: bool, resolver_ok: bool) -> Finding:
    """Say whether replies find a host; ``problem``: what is wrong; not ``known``: DNS could not be asked."""
    if problem is None:
        return Finding("replies", domain, Level.OK, "mail to it has a host", domain=domain)
    if not known:
        return trouble("replies", domain, problem, resolver_ok=resolver_ok, domain=domain)
    advice = "publish an MX record: receivers mistrust authors to whom nobody can reply"
    return Finding("replies", domain, Level.WARN, shown(problem), "an MX record", advice, domain)


def judge_track(domain: str, name: str, verdict: Verdict, host: str, *, resolver_ok: bool) -> Finding:
    """Hold the CNAME of a track domain against ours."""
    if verdict.status is None:
        return trouble("track", name, verdict.error or "not asked", resolver_ok=resolver_ok, domain=domain)
    if verdict.status is DnsStatus.OK:
        return Finding("track", name, Level.OK, f"CNAME {host}", domain=domain)
    advice = f"publish {name}. CNAME {host}.: until then no link is tracked"
    return Finding("track", name, Level.WARN, shown(verdict.error or ""), f"CNAME {host}", advice, domain)


def shown(text: str) -> str:
    """Return what strangers publish, without control characters and cut."""
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= _SHOWN else safe[: _SHOWN - 1] + "…"
