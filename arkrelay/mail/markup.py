"""Links in text and HTML: where each stands and what it says, so that it can be replaced without touching the rest.

HTML is read by the rules of its tokenizer (WHATWG HTML §13.2.5) as far as they decide what is a tag: comments,
scripts, styles and attribute values may hold anything that looks like one. What Outlook reads in conditional
comments is read too. Work is linear in the length: expressions are possessive, and a tag that is never closed ends
the reading, as it does in a browser. All of it is in bytes, for charsets that contain ASCII.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from html.entities import html5
from typing import NamedTuple

URL_CHARS = 8000  # of a link that is followed: servers take 8 KB for a request line (RFC 9110 §4.1)

# An attribute, with its value as the tokenizer ends it; an "=" belongs to the name before it, and a quote that is not
# closed swallows the rest of the document, so that such a tag is none.
_ATTRIBUTE_TEXT = (
    rb"([^ \t\r\n\f/>][^ \t\r\n\f/>=]*+)(?:[ \t\r\n\f]*+=[ \t\r\n\f]*+"
    rb"(?:\"([^\"]*+)\"|'([^']*+)'|((?![\"'])[^ \t\r\n\f>]*+))|(?![ \t\r\n\f]*+=))"
)
_ATTRIBUTE = re.compile(_ATTRIBUTE_TEXT)
_TAG = re.compile(rb"<(/?[a-zA-Z][^ \t\r\n\f/>]*+)((?:[ \t\r\n\f/]++|" + _ATTRIBUTE_TEXT + rb")*+)>")
_OPENING = re.compile(rb"<(?:!--|[!?]|/?[a-zA-Z]|/)")
_COMMENT_END = re.compile(rb"--!?>")
_CONDITIONAL = re.compile(rb"<!--\[if[^>]*+>", re.IGNORECASE)  # what Outlook shows; its end is a bogus comment
# Elements whose content is text whatever it looks like (§13.2.5.1 and §13.2.6.2).
_RAW = re.compile(rb"(?:script|style|title|textarea|xmp|iframe|noembed|noframes|plaintext)\Z", re.IGNORECASE)
# Of what a URL may hold (RFC 3986 §2) no brackets: in text they belong to what is around it.
# Text and tags of no interest, as long as it is plain where each ends: passed over at once, since a newsletter has
# many of them to a link (64 KB are read in 0.86 ms, and 2.0 without). What is not so plain is read as any tag is.
_BORING = re.compile(
    rb"(?:[^<]++|<(?!/?(?:a|area|body|script|style|title|textarea|xmp|iframe|noembed|noframes|plaintext)[ \t\r\n\f/>]"
    rb"|/?v:)/?[a-zA-Z](?:[^<>\"'=]|=[ \t\r\n\f]*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|(?=[^\"'<>= \t\r\n\f])))*+>)++",
    re.IGNORECASE,
)
_TEXT_URL = re.compile(rb"(?<![A-Za-z0-9+.-])https?(\+notrack)?://[!#$%&'()*+,./0-9:;=?@A-Z_a-z~-]*+", re.IGNORECASE)
_AFTER_BYTES = 64  # looked at behind a URL in text
_SPACE = re.compile(r"\s")
_URL = re.compile(r"(https?)://([^\s/?#\\]+)([^\s\\]*)", re.IGNORECASE)
_NOTRACK = re.compile(r"(https?)\+notrack://", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:[!-?A-~]*@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
_UNSAFE = re.compile(r"[^!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]")
# In an attribute "&copy=1" is no ©, nor is "&section" a § (WHATWG HTML §13.2.5.73); html.unescape thinks of text.
_REFERENCE = re.compile(r"&(?:(#0*[0-9]{1,7}|#[xX]0*[0-9a-fA-F]{1,6});?|([A-Za-z][A-Za-z0-9]{0,40}+)(;|(?!=)))")
_TURNS = 256  # tags between two looks at the clock


class Link(NamedTuple):
    """A link, from ``start`` to ``end``, as its reader understands it; ``notrack``: its writer says so."""

    start: int
    end: int
    url: str  # in ASCII, as a Location field takes it
    host: str  # lower case
    notrack: bool


class Markup(NamedTuple):
    """What was found in HTML: its links, and where a pixel goes."""

    links: list[Link]
    pixel: int


def read_html(data: bytes, charset: str, expired: Callable[[], bool]) -> Markup | None:
    """Return the links of ``a`` and ``area`` and of Outlook's shapes, or None when ``expired`` says so.

    The pixel goes before the last ``</body>``, or at the end.
    """
    found: list[Link] = []
    pixel = len(data)
    for number, tag in enumerate(_tags(data)):
        if number % _TURNS == 0 and expired():
            return None
        name = tag[1].lower()
        if name == b"/body":
            pixel = tag.start()
        elif name in {b"a", b"area"} or name.startswith(b"v:"):
            link = _href(data, tag, charset)
            if link is not None:
                found.append(link)
    return Markup(found, pixel)


def read_text(data: bytes, charset: str, expired: Callable[[], bool]) -> list[Link] | None:
    """Return the bare URLs of plain text, without the punctuation behind them, or None when ``expired`` says so.

    One of which it is not plain where it ends is none (Ark contract §12: "followed by whitespace or end"): programs
    that make links of text would take the rest of the word along, and people read what they take away.
    """
    found: list[Link] = []
    for number, match in enumerate(_TEXT_URL.finditer(data)):
        if number % _TURNS == 0 and expired():
            return None
        start = match.start()
        raw = _without_punctuation(match[0], data[start - 1 : start])
        if match[1] is None and not _ends(data, start, start + len(raw), charset):
            continue
        link = _link(start, start + len(raw), raw, charset, entities=False)
        if link is not None:
            found.append(link)
    return found


def _tags(data: bytes) -> Iterator[re.Match[bytes]]:
    """Yield every tag that a reader would take for one, but for those of no interest."""
    position = 0
    while True:
        boring = _BORING.match(data, position)
        opening = _OPENING.search(data, position if boring is None else boring.end())
        if opening is None:
            return
        at = opening.start()
        if opening[0] == b"<!--":
            position = _after_comment(data, at)
        elif opening[0] in {b"<!", b"<?", b"</"}:  # a bogus comment, or the end of a conditional one
            position = data.find(b">", at) + 1
            if not position:
                return
        else:
            tag = _TAG.match(data, at)
            if tag is None:  # never closed: the reader drops all that follows
                return
            yield tag
            position = tag.end()
            if _RAW.match(tag[1]):
                position = _after_raw(data, tag[1], position)


def _after_comment(data: bytes, at: int) -> int:
    conditional = _CONDITIONAL.match(data, at)
    if conditional is not None:
        return conditional.end()
    if data.startswith((b"<!-->", b"<!--->"), at):
        return data.find(b">", at) + 1
    end = _COMMENT_END.search(data, at + 4)
    return len(data) if end is None else end.end()


def _after_raw(data: bytes, name: bytes, position: int) -> int:
    """Return where the end tag of an element begins whose content is text; the end of the data without one."""
    if name.lower() == b"plaintext":
        return len(data)
    end = re.compile(rb"</" + name + rb"(?=[ \t\r\n\f/>])", re.IGNORECASE).search(data, position)
    return len(data) if end is None else end.start()


def _href(data: bytes, tag: re.Match[bytes], charset: str) -> Link | None:
    """Return the link of the first ``href``, the only one that counts (§13.2.5.33)."""
    for attribute in _ATTRIBUTE.finditer(data, tag.start(2), tag.end(2)):
        if attribute[1].lower() == b"href":
            group = next((number for number in (2, 3, 4) if attribute[number] is not None), None)
            if group is None:
                return None
            return _link(attribute.start(group), attribute.end(group), attribute[group], charset, entities=True)
    return None


def _link(start: int, end: int, raw: bytes, charset: str, *, entities: bool) -> Link | None:
    """Return the link, or None for one that is not http(s) to a host, or that readers may understand differently."""
    if len(raw) > 2 * URL_CHARS:
        return None
    try:
        text = raw.decode(charset)
    except (UnicodeDecodeError, LookupError):
        return None
    if entities:
        text = _REFERENCE.sub(_character, text) if "&" in text else text
        # WHATWG URL §4.4: white space around a URL goes, and so do line ends and tabs inside
        text = text.strip(" \t\r\n\f").translate({9: None, 10: None, 13: None})
    if _NOTRACK.match(text) is not None:  # nobody's scheme, whatever follows
        return Link(start, end, _NOTRACK.sub(r"\1://", text, count=1), "", notrack=True)
    match = _URL.fullmatch(text.replace(" ", "%20"))
    if match is None:
        return None
    authority = _AUTHORITY.fullmatch(match[2])
    if authority is None:
        return None
    url = f"{match[1].lower()}://{match[2]}{_UNSAFE.sub(_percent, match[3])}"
    if len(url) > URL_CHARS:
        return None
    return Link(start, end, url, authority[1].lower(), notrack=False)


def _character(match: re.Match[str]) -> str:
    """Return what a character reference in an attribute stands for."""
    if match[1] is not None:
        return html.unescape(f"&{match[1]};")
    return html5.get(match[2] + match[3], match[0])


def _percent(match: re.Match[str]) -> str:
    """Return a character as a URL may hold it (RFC 3986 §2.1, RFC 3987 §3.1)."""
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def _without_punctuation(raw: bytes, before: bytes) -> bytes:
    """Return a URL without what belongs to the sentence around it: ``(see http://a.test/b_(c).)``, ``*http://a.test*``.

    ``before`` is the character in front of it.
    """
    depth = 0
    for index, char in enumerate(raw):
        depth += (char == 0x28) - (char == 0x29)
        if depth < 0:
            raw = raw[:index]
            break
    emphasis = before if before in {b"*", b"_", b"~"} else b""
    return raw.rstrip(b".,;:!?'" + emphasis)


def _ends(data: bytes, start: int, end: int, charset: str) -> bool:
    """Whether readers take a URL in text to end here: white space or the end, with punctuation before at most."""
    around = data[start - 1 : start] + data[end : end + 1]
    if around in {b"()", b"<>"}:  # also how Markdown writes where a link leads
        return True
    after = data[end : end + _AFTER_BYTES]
    text = after.decode(charset, "replace")
    word = _SPACE.split(text, maxsplit=1)[0]
    if len(after) == _AFTER_BYTES and word == text:
        return False
    return all(char in "<>`|\u200b" or unicodedata.category(char)[0] in "PZ" for char in word)
