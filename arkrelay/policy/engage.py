"""What of a message is tracked, which stream its recipients may leave, and what a fetch of a pixel or link means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.tenant import Tenant, TrackDomain


class Visitor(StrEnum):
    """Who fetched a pixel or link, as far as the request tells; all but the last two count."""

    PERSON = "person"
    PROXY = "proxy"  # a mail service that fetches pictures for its readers, when they look or ahead of it
    SCANNER = "scanner"  # a program that looks for dangerous links, or any other that says it is a program
    PREFETCH = "prefetch"  # a browser ahead of its user
    HEAD = "head"  # somebody who wants to know where a link leads


@dataclass(frozen=True, slots=True)
class Client:
    """An address that asks, and what is counted as one client: it, or the /64 that it is in."""

    address: str
    network: str


STREAM_CHARS = 100
UNCOUNTED = frozenset({Visitor.PREFETCH, Visitor.HEAD})
_LINKS = {"None": (False, False), "HtmlAndText": (True, True), "HtmlOnly": (True, False), "TextOnly": (False, True)}
_PREFETCH = ("Purpose", "Sec-Purpose", "X-Purpose", "X-Moz")
# As these services name themselves; Apple's Mail Privacy Protection says "Mozilla/5.0" and nothing else.
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy|ProtonMail|\AMozilla/5\.0\Z", re.IGNORECASE)
# A Cubot is a telephone.
_SCANNER = re.compile(
    r"(?<!cu)bot\b|crawl|spider|scan|preview|barracuda|mimecast|proofpoint|symantec|forcepoint|cloudmark|trendmicro|sophos"
    r"|fortinet|bitdefender|kaspersky|safelinks|facebookexternalhit|\bcurl/|\bwget/|python|aiohttp|go-http-client|java/"
    r"|okhttp|libwww|headless|monitor",
    re.IGNORECASE,
)


def visitor(method: str, headers: Mapping[str, str]) -> Visitor:
    """Return who asks; headers are looked up without case by their mapping."""
    if method == "HEAD":
        return Visitor.HEAD
    if any("prefetch" in (value := headers.get(name, "").lower()) or "preview" in value for name in _PREFETCH):
        return Visitor.PREFETCH
    agent = headers.get("User-Agent", "").strip()
    if _PROXY.search(agent):
        return Visitor.PROXY
    return Visitor.SCANNER if not agent or _SCANNER.search(agent) else Visitor.PERSON


def tracks_opens(track: TrackDomain, *, said: bool | None, header: bool | None) -> bool:
    """Return whether a pixel is wanted: REST's ``trackOpens``, then the message's header, then the domain's setting.

    Both may say no as well as yes. Postmark lets no message override its server's yes (Ark contract §14.3); whoever
    writes "false" means it, and a pixel that is missing harms nobody.
    """
    return next((one for one in (said, header) if one is not None), track.opens)


def tracks_clicks(track: TrackDomain, *, said: bool | None, header: str | None) -> tuple[bool, bool]:
    """Return whether links in HTML and links in text are to be rewritten."""
    if said is not None:
        return said, said
    return _LINKS[header] if header is not None else (track.clicks, track.clicks)


def stream_of(tenant: Tenant, tag: str | None, named: str | None) -> str | None:
    """Return the stream that recipients may leave by one click; empty: all mail of the tenant. None: not offered."""
    if named is not None and (name := named.strip()):
        return name[:STREAM_CHARS]
    if tag is not None and tag in tenant.unsubscribe.tags:
        return tag
    return "" if tenant.unsubscribe.enabled else None
