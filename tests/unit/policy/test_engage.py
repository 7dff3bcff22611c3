"""Who came by, what is tracked, and which stream may be left."""

import pytest
from multidict import CIMultiDict

from arkrelay.model.tenant import Tenant, TrackDomain, Unsubscribe
from arkrelay.policy.engage import STREAM_CHARS, Visitor, stream_of, tracks_clicks, tracks_opens, visitor

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.mark.parametrize(
    ("method", "headers", "who"),
    [
        ("GET", {"User-Agent": FIREFOX}, Visitor.PERSON),
        ("HEAD", {"User-Agent": FIREFOX}, Visitor.HEAD),
        ("GET", {"User-Agent": FIREFOX, "purpose": "prefetch"}, Visitor.PREFETCH),
        ("GET", {"User-Agent": FIREFOX, "Sec-Purpose": "prefetch;prerender"}, Visitor.PREFETCH),
        ("GET", {"User-Agent": FIREFOX, "X-Moz": "Prefetch"}, Visitor.PREFETCH),
        ("GET", {"User-Agent": FIREFOX, "X-Purpose": "preview"}, Visitor.PREFETCH),
        ("GET", {"User-Agent": "Mozilla/5.0"}, Visitor.PROXY),
        ("GET", {"User-Agent": f"{FIREFOX} (via ggpht.com GoogleImageProxy)"}, Visitor.PROXY),
        ("GET", {"User-Agent": "YahooMailProxy; https://help.yahoo.com"}, Visitor.PROXY),
        ("GET", {}, Visitor.SCANNER),
        ("GET", {"User-Agent": "python-requests/2.32"}, Visitor.SCANNER),
        ("GET", {"User-Agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}, Visitor.SCANNER),
        ("GET", {"User-Agent": "curl/8.5"}, Visitor.SCANNER),
        ("GET", {"User-Agent": "Mozilla/5.0 (Linux; Android 11; CUBOT P50) Chrome/120.0"}, Visitor.PERSON),
    ],
)
def test_who_came_by(method: str, headers: dict[str, str], who: Visitor) -> None:
    assert visitor(method, CIMultiDict(headers)) is who


@pytest.mark.parametrize("setting", [True, False])
@pytest.mark.parametrize(
    ("said", "header", "wanted"),
    [(None, None, None), (True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_a_message_says_what_it_wants_before_its_domain(
    said: bool | None,
    header: bool | None,
    wanted: bool | None,
    setting: bool,
) -> None:
    track = TrackDomain(name="t", domain="x.test", opens=setting, clicks=setting)
    expected = setting if wanted is None else wanted
    assert tracks_opens(track, said=said, header=header) is expected
    words = {True: "HtmlAndText", False: "None", None: None}[header]
    assert tracks_clicks(track, said=said, header=words) == (expected, expected)


@pytest.mark.parametrize(("word", "wanted"), [("HtmlOnly", (True, False)), ("TextOnly", (False, True))])
def test_links_of_one_kind_alone(word: str, wanted: tuple[bool, bool]) -> None:
    assert tracks_clicks(TrackDomain(name="t", domain="x.test"), said=None, header=word) == wanted


@pytest.mark.parametrize(
    ("unsubscribe", "tag", "named", "stream"),
    [
        (Unsubscribe(), "news", None, None),
        (Unsubscribe(tags=("news",)), "news", None, "news"),
        (Unsubscribe(tags=("news",)), "receipt", None, None),
        (Unsubscribe(enabled=True), "receipt", None, ""),
        (Unsubscribe(enabled=True, tags=("news",)), "news", None, "news"),
        (Unsubscribe(enabled=True, tags=("news",)), "news", " offers ", "offers"),
        (Unsubscribe(), None, "x" * 200, "x" * STREAM_CHARS),
        (Unsubscribe(), None, " ", None),
    ],
)
def test_the_stream_is_what_was_named_most_closely(
    unsubscribe: Unsubscribe, tag: str | None, named: str | None, stream: str | None
) -> None:
    assert stream_of(Tenant(id="acme", name="Acme", unsubscribe=unsubscribe), tag, named) == stream
