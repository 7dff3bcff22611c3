"""What a server's reply means and what can be done; beyond Ark's contract, used by the command line."""

import time

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Nothing, Query, Text, field
from arkrelay.api.refusal import ApiError
from arkrelay.model.attempt import BounceClass
from arkrelay.policy.advice import IN_WORDS, Blame
from arkrelay.policy.explain import explain, site_named
from arkrelay.policy.pasted import NotAReply
from arkrelay.store import tally


class ExplainQuery(Query):
    """``reply``: as it was pasted. ``provider`` is a lane's name or a provider's, ``host`` one of its MX hosts."""

    reply: Text
    provider: str | None = None
    host: str | None = None


class ClassName(Answer):
    """A class under the name and number that it has somewhere."""

    name: str
    code: int


class MatchedRule(Answer):
    """The rule that decided: what it asks of a reply, and who was seen to say so."""

    rule: str
    source: str


class AskAt(Answer):
    """Where to ask; the URL is empty where there is nobody to ask any more."""

    name: str
    url: str
    next: str


class DayCounts(Answer):
    """Attempts of the last 24 h at a site (null: at all): all, those that were taken, and those of the class."""

    site: str | None
    attempts: int
    taken: int
    of_class: int


class Explained(Answer):
    """What a reply means: the class in our words, on REST and on webhooks; what we do, and what a person can do."""

    sentence: str
    reply: str
    code: int | None
    smtp_enhanced_code: str | None
    assumed: str
    class_: BounceClass = field(name="class")
    rest_class: ClassName
    webhook_class: ClassName
    permanent: bool
    blame: Blame
    blame_words: str
    does: list[str]
    next: str
    pages: list[AskAt]
    matched: MatchedRule | None
    site: str | None
    last_day: DayCounts


async def retrieve(ask: Ask[ExplainQuery, Nothing]) -> Explained:
    """Say what a server's reply means: class, whose fault, what we do, where to ask, and how usual it is."""
    query, settings = ask.query, ask.snapshot.settings
    site = site_named(query.provider or "", query.host or "", settings)
    try:
        found = explain(query.reply, ask.parts.rules, settings, site)
    except NotAReply as error:
        raise ApiError(400, "validation_error", f"reply: {error}.", field="reply") from None
    now, where = time.time(), found.site or None
    counts = await ask.parts.store.read(lambda db: tally.last_day(db, now, ask.caller.tenant_id, where))
    (rest, rest_code), (webhook, webhook_code) = found.rest_class, found.webhook_class
    return Explained(
        sentence=found.sentence,
        reply=str(found.result),
        code=found.code,
        smtp_enhanced_code=found.enhanced,
        assumed=found.assumed,
        class_=found.bounce_class,
        rest_class=ClassName(name=rest, code=rest_code),
        webhook_class=ClassName(name=webhook, code=webhook_code),
        permanent=found.permanent,
        blame=found.blame,
        blame_words=IN_WORDS[found.blame],
        does=list(found.does),
        next=found.next,
        pages=[AskAt(name=page.name, url=page.url, next=page.next) for page in found.pages],
        matched=None if found.rule is None else MatchedRule(rule=str(found.rule), source=found.rule.source),
        site=where,
        last_day=DayCounts(
            site=where,
            attempts=counts.total(),
            taken=counts[tally.TAKEN],
            of_class=counts[found.bounce_class],
        ),
    )
