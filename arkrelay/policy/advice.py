"""Whose fault a refusal is, what can be done, where to ask, and who speaks: the data of ``advice.toml``."""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources

from arkrelay.model.attempt import BounceClass, Classified
from arkrelay.policy.phrases import Phrase, Text


class Blame(StrEnum):
    """Whose fault it is."""

    RECIPIENT = "recipient"
    SERVER = "server"
    REPUTATION = "reputation"
    CONTENT = "content"
    AUTHENTICATION = "authentication"
    NETWORK = "network"
    US = "us"


IN_WORDS = {
    Blame.RECIPIENT: "the recipient's address",
    Blame.SERVER: "the recipient's server",
    Blame.REPUTATION: "the reputation of our address",
    Blame.CONTENT: "the content of the message",
    Blame.AUTHENTICATION: "our DNS or authentication",
    Blame.NETWORK: "the network",
    Blame.US: "our own policy or settings",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person is told about a class of refusals."""

    blame: Blame
    next: str
    bounce_class: BounceClass
    lane: str = ""
    text: Phrase | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Where to ask; ``url`` is empty where there is nobody to ask any more."""

    name: str
    url: str
    next: str
    site: str = ""
    text: Phrase | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """How somebody is known by his words, or by the source of the rule that fits."""

    name: str
    text: Phrase
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Book:
    """The whole of ``advice.toml``."""

    advice: tuple[Advice, ...]
    asks: frozenset[BounceClass]
    pages: tuple[Page, ...]
    sites: tuple[Site, ...]

    def about(self, classified: Classified, text: Text) -> Advice:
        """Return the advice for what a reply means; ``text`` is plain (``classify.plain``)."""
        return next(
            one
            for one in self.advice
            if one.bounce_class is classified.bounce_class
            and one.lane in {"", classified.lane}
            and (one.text is None or one.text.search(text))
        )

    def pages_for(self, bounce_class: BounceClass, site: str, text: Text) -> tuple[Page, ...]:
        """Return where to ask: lists that the reply names, and the site's own pages where they can help."""
        return tuple(
            page
            for page in self.pages
            if (not page.site or (page.site == site and bounce_class in self.asks))
            and (page.text is None or page.text.search(text))
        )

    def site_of(self, text: Text, source: str) -> str:
        """Return who speaks, by the reply's own words, else by where the rule is from; empty: nobody knows."""
        source = source.partition(":")[0]
        by_words = (one.name for one in self.sites if one.text.search(text))
        return next(by_words, next((one.name for one in self.sites if source in one.sources), ""))


@lru_cache(maxsize=1)
def book() -> Book:
    """Return the data of the package."""
    data = tomllib.loads(resources.files("arkrelay.policy").joinpath("advice.toml").read_text(encoding="utf-8"))
    return Book(
        advice=tuple(
            Advice(Blame(row["blame"]), row["next"], BounceClass(row["class"]), row.get("lane", ""), _phrase(row))
            for row in data["advice"]
        ),
        asks=frozenset(BounceClass(name) for name in data["asks"]),
        pages=tuple(
            Page(row["name"], row["url"], row["next"], row.get("site", ""), _phrase(row)) for row in data["pages"]
        ),
        sites=tuple(Site(row["name"], Phrase(row["text"]), frozenset(row["from"])) for row in data["sites"]),
    )


def _phrase(row: dict[str, str]) -> Phrase | None:
    return Phrase(row["text"]) if "text" in row else None
