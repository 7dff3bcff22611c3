"""What a refusal means, whose fault it is, what we do about it, what a person can do, and where to ask.

The judgement is that of ``classify``, by which mail is treated; here it is put into words.
"""

from dataclasses import dataclass

from arkrelay.model.attempt import REST_CLASS, WEBHOOK_CLASS, BounceClass, Classified
from arkrelay.model.dns import MxHost
from arkrelay.model.message import Status
from arkrelay.model.reply import Failure, FailureKind, Reply
from arkrelay.model.settings import Settings
from arkrelay.policy.advice import IN_WORDS, Blame, Page, book
from arkrelay.policy.classify import BEFORE_MAIL, Rule, Rules, classify, plain, status_of
from arkrelay.policy.pace import (
    FIRST_BLOCK_S,
    FIRST_REST_S,
    LONGEST_BLOCK_S,
    LONGEST_REST_S,
    SLOW_S,
)
from arkrelay.policy.pasted import Pasted, parse
from arkrelay.policy.phrases import Text
from arkrelay.policy.providers import Providers
from arkrelay.policy.sentences import span
from arkrelay.policy.suppress import on_failure

MEANING = {
    BounceClass.BAD_ADDRESS: "There is no such address",
    BounceClass.NO_MAILBOX: "There is no such mailbox",
    BounceClass.NOT_ACCEPTING: "The mailbox or its host takes no mail any more",
    BounceClass.MAILBOX_FULL: "The mailbox is full",
    BounceClass.TOO_LARGE: "The message is too large",
    BounceClass.BLOCKLISTED: "Our address or domain is on a blocklist, or badly thought of",
    BounceClass.CONTENT_SPAM: "The message was taken for spam, or for dangerous",
    BounceClass.POLICY: "A rule of the server's forbids it",
    BounceClass.ROUTING: "The server does not take mail for that domain, or sends it round in circles",
    BounceClass.TLS_REQUIRED: "Encryption was demanded and did not come about",
    BounceClass.CONNECTION: "The server could not be reached",
    BounceClass.NO_DOMAIN: "There is no such domain, or it has no mail server",
    BounceClass.RESOLVER: "DNS did not answer",
    BounceClass.TRY_LATER: "The server cannot or does not want to take it at the moment",
    BounceClass.EXPIRED: "The message's own lifetime ended",
    BounceClass.PROTOCOL: "The two servers did not understand each other",
    BounceClass.OTHER: "The server refuses, and does not say why",
}
_SILENT = frozenset({FailureKind.STOPPED, FailureKind.INTERNAL})


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer; ``site`` is who speaks, as lanes are named, or empty."""

    result: Reply | Failure
    code: int | None  # as it was given
    assumed: str
    bounce_class: BounceClass
    permanent: bool
    blame: Blame
    does: tuple[str, ...]
    next: str
    pages: tuple[Page, ...]
    rule: Rule | None
    site: str

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        final = "for good" if self.permanent else "for now"
        return f"{MEANING[self.bounce_class]}: refused {final}, by the fault of {IN_WORDS[self.blame]}."

    @property
    def enhanced(self) -> str | None:
        """The status code (RFC 3463) that the reply has."""
        return self.result.enhanced if isinstance(self.result, Reply) else None

    @property
    def rest_class(self) -> tuple[str, int]:
        """Its name and number on REST."""
        return REST_CLASS[self.bounce_class]

    @property
    def webhook_class(self) -> tuple[str, int]:
        """Its name and number on webhooks."""
        return WEBHOOK_CLASS[self.bounce_class]


def explain(given: str, rules: Rules, settings: Settings, site: str = "") -> Explanation:
    """Return what a pasted reply means; ``site`` is where it came from, when somebody knows.

    Raises ``NotAReply`` for what tells of no refusal.
    """
    pasted = parse(given)
    result, text = pasted.result, Text(_words(pasted))
    rule = rules.find(result.code, status_of(result), text.text) if isinstance(result, Reply) else None
    classified = classify(result, rules, attempts=1)
    advice = book().about(classified, text)
    site = site or book().site_of(text, rule.source if rule is not None else "")
    return Explanation(
        result,
        pasted.code,
        pasted.assumed,
        classified.bounce_class,
        classified.permanent,
        advice.blame,
        _does(result, classified, rules, settings),
        advice.next.replace("[hostname]", settings.hostname),
        book().pages_for(classified.bounce_class, site, text),
        rule,
        site,
    )


def site_named(provider: str, host: str, settings: Settings) -> str:
    """Return the site that a person means by a provider's name or a host's; empty where neither is given.

    A name need not be exact: "gmail" is google, and so is gmail.com. Another host is known by its zone, as lanes are;
    a smarthost by host and port.
    """
    known = Providers(settings.delivery, settings.provider)
    names = {one.name for one in known.all}
    given = (provider or host).strip().lower().rstrip(".")
    if not given or given in names or ":" in given or given.replace(".", "").isdigit():
        return given
    site = given if provider else known.site_of([MxHost(0, given)])
    return site if site in names else book().site_of(Text(given), "") or site


def _words(pasted: Pasted) -> str:
    result = pasted.result
    return plain(result.text, result.enhanced) if isinstance(result, Reply) else plain(result.detail)


def _does(result: Reply | Failure, classified: Classified, rules: Rules, settings: Settings) -> tuple[str, ...]:
    """Return what becomes of the recipient, of the address, and of the lane, a sentence each."""
    said = [_tries(result, classified, rules, settings), _suppresses(classified, settings)]
    if classified.lane == "block" and (elsewhere := _elsewhere(settings)) is not None:
        said[0] = elsewhere
    if (lane := _lane(result, classified)) is not None:
        said.append(lane)
    return tuple(said)


def _tries(result: Reply | Failure, classified: Classified, rules: Rules, settings: Settings) -> str:
    if classified.permanent:
        return "The recipient fails at once and is not tried again."
    policy = settings.delivery.retry_policy()
    if isinstance(result, Failure) and classify(result, rules, attempts=2).permanent:
        return f"The recipient is tried once more, after {span(classified.wait_s or 0)}, and then fails."
    first = f"after {span(policy.first_delay_s)}"
    if classified.wait_s is not None:
        first = f"after {span(classified.wait_s)}, as the reply asks"
    before = ""
    if isinstance(result, Reply) and result.code >= 500 and result.stage in BEFORE_MAIL:
        before = " A 5xx before MAIL speaks of the host and of us, not of the recipient."
    return (
        f"The recipient is tried again {first}; each later wait is {policy.factor:g} times longer, up to"
        f" {policy.max_attempts} attempts or {span(policy.lifetime_s)}.{before}"
    )


def _elsewhere(settings: Settings) -> str | None:
    """Return by which other way goes what a site refuses for the sake of our address, or None where there is none."""
    ways = []
    if len(settings.sources) > 1:
        ways.append("from another address of its pool that the site takes")
    if (route := next((one for one in settings.route if one.when == "sender-reputation"), None)) is not None:
        ways.append(f"by the route to {route.host}")
    if not ways:
        return None
    said = ", or ".join(ways)
    return f"The recipient is tried again at once, {said}; when nothing of that is open, the refusal stands."


def _suppresses(classified: Classified, settings: Settings) -> str:
    setting = f'([suppression] on = "{settings.suppression.on}")'
    found = on_failure(classified, Status.HARDFAIL, settings.suppression)
    if found is None:
        if classified.permanent:
            return f"The address is not suppressed: others may still reach it {setting}."
        return f"The address is not suppressed, also when it fails in the end {setting}."
    if found.times > 1:
        within = span(found.within_s)
        return (
            f"The address is suppressed when {found.times} of its messages have failed so within {within} {setting}."
        )
    if classified.permanent:
        return f"The address is suppressed: the tenant cannot mail it until it is taken off {setting}."
    return f"The address is suppressed when it fails for good in the end {setting}."


def _lane(result: Reply | Failure, classified: Classified) -> str | None:
    """Return what the site's lane does, or None when nothing."""
    if classified.lane == "slow":
        return (
            f"The lane to this site carries one message a minute on one connection for {span(SLOW_S)}, and half of"
            " everything for as long again."
        )
    if classified.lane == "block":
        return (
            f"The lane to this site rests for {span(FIRST_BLOCK_S)}, twice as long each time up to"
            f" {span(LONGEST_BLOCK_S)}."
        )
    refused = isinstance(result, Reply) and (result.code == 421 or result.stage in BEFORE_MAIL)
    failed = isinstance(result, Failure) and not classified.permanent and result.kind not in _SILENT
    if refused or failed:
        return (
            f"The lane to this site rests for {span(FIRST_REST_S)}, twice as long each time up to"
            f" {span(LONGEST_REST_S)}, and then tries with a single connection."
        )
    return None
