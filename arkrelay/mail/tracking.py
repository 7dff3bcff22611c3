"""Links that lead over us, a pixel (Ark contract §12), a way to unsubscribe, in a message that is otherwise the same.

``find`` reads a message once and says what is to be replaced; ``Rewriting.render`` writes it for one recipient. The
parts that change are decoded and encoded again as they were; nothing else moves by a byte. What is not understood
(charset, encoding, a signature around it) is left alone, because a message that arrives untracked is better than one
that arrives broken.

A link's token has 16 characters (12 bytes): 5 of the recipient's number, 2 of the link's place among those of its
message, 5 of HMAC-SHA256 over both and the tenant. The address that it stands for is in our database and never in the
URL, so no token leads anywhere that its tenant did not write; the code keeps strangers from trying numbers (2**40),
and from costing us a look-up. Case matters: base64url (RFC 4648 §5).
"""

import base64
import binascii
import hashlib
import hmac
import html
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from arkrelay.mail.header import CRLF, LINE_LIMIT
from arkrelay.mail.leaves import Leaf, TooMuch, text_leaves
from arkrelay.mail.markup import Link, read_html, read_text
from arkrelay.mail.mediatype import IDENTITY, make_mime, set_encoding
from arkrelay.mail.transfer import to_base64, to_quoted_printable
from arkrelay.mail.unsubscribe import PLACEHOLDER

__all__ = ["LINKS", "LinkTokens", "Rewriting", "TooMuch", "Wishes", "find"]

LINKS = 65_535  # different ones of a message; the place of a link has two bytes
TOKEN_CHARS = 16  # Ark contract §12

# Contain ASCII and no other character has a byte of it; UTF-16, ISO-2022 and the likes of Shift JIS do not.
_CHARSET = re.compile(
    rb"utf-?8|us-ascii|ascii|iso-?8859-\d{1,2}|latin-?1|(?:windows-|cp)125\d|koi8-[ru]|euc-(?:jp|kr)|gb2312|tis-620"
)
_PADDING = re.compile(rb"=[ \t]++(?=\r\n)")  # a soft line break that a gateway has put blanks behind
_PGP = b"-----BEGIN PGP "  # text that somebody signed or encrypted (RFC 9580 §6.2, §7)
_NOTRACK = re.compile(rb"\+notrack", re.IGNORECASE)
_NOTRACK_WORD = re.compile(rb"notrack", re.IGNORECASE)  # its plus sign may be written as a character reference
# What programs that make links of text may have taken along is not of it.
_TOKEN = re.compile(r"([A-Za-z0-9_-]{16})[^A-Za-z0-9/\x00-\x20\x7f]{0,8}")
_LINK_PURPOSE = b"arkrelay link\0"
_TENANT_PURPOSE = b"arkrelay tenant\0"
_RECIPIENT_BYTES, _PLACE_BYTES, _CODE_BYTES = 5, 2, 5
_LEAVE, _PIXEL = -2, -1  # places from the end of what ``render`` writes: behind the links


class LinkTokens:
    """Makes and reads the tokens of links and tenants under one secret; another secret's are not recognised."""

    __slots__ = ("_keyed", "_of_tenant", "tenant")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret for links needs at least 16 bytes")
        self._keyed = hmac.new(secret, _LINK_PURPOSE, hashlib.sha256)
        self._of_tenant = hmac.new(secret, _TENANT_PURPOSE, hashlib.sha256)
        self.tenant = lru_cache(maxsize=4096)(self._tenant)

    def link(self, tenant_id: str, recipient_id: int, place: int) -> str:
        """Return the token of a recipient's link; raises OverflowError for a place or number that has no room."""
        payload = recipient_id.to_bytes(_RECIPIENT_BYTES, "big") + place.to_bytes(_PLACE_BYTES, "big")
        return base64.urlsafe_b64encode(payload + self._code(tenant_id, payload)).decode()

    def parse(self, tenant_id: str, token: str) -> tuple[int, int] | None:
        """Return recipient and place, or None for what we did not make for this tenant.

        Punctuation behind a token does no harm.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        raw = base64.urlsafe_b64decode(match[1])
        payload, code = raw[:-_CODE_BYTES], raw[-_CODE_BYTES:]
        if not hmac.compare_digest(code, self._code(tenant_id, payload)):
            return None
        return int.from_bytes(payload[:_RECIPIENT_BYTES], "big"), int.from_bytes(payload[_RECIPIENT_BYTES:], "big")

    def _tenant(self, tenant_id: str) -> str:
        """Return what stands for the tenant in URLs, which recipients see: not its id."""
        keyed = self._of_tenant.copy()
        keyed.update(tenant_id.encode())
        return base64.urlsafe_b64encode(keyed.digest()[:6]).decode()

    def _code(self, tenant_id: str, payload: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(payload + tenant_id.encode())
        return keyed.digest()[:_CODE_BYTES]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a message: a pixel, links in HTML, links in text; hosts whose links stay as they are.

    ``leave``: there is an address to unsubscribe at, which goes where a placeholder stands. With none of them
    ``http+notrack://`` is still made ``http://``: it is nobody's scheme.
    """

    opens: bool = False
    html_links: bool = False
    text_links: bool = False
    excluded: frozenset[str] = frozenset()
    leave: bool = False


@dataclass(frozen=True, slots=True)
class _Change:
    """A part to be written anew: pieces of its decoded text, and what stands between two of them."""

    leaf: Leaf
    header: bytes
    pieces: tuple[bytes, ...]
    gaps: tuple[int | bytes, ...]  # one fewer: a place, or what is written for all recipients


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How one message is written for any of its recipients; ``urls`` are its links, each at its place."""

    urls: tuple[str, ...]
    _content: bytes
    _changes: tuple[_Change, ...]

    def render(self, base: str, pixel_url: str, token: Callable[[int], str], leave_url: str = "") -> bytes:
        """Return the message with links ``base`` + token of their place, and the pixel that is at ``pixel_url``.

        ``leave_url`` is where to unsubscribe.
        """
        written = [(base + token(place)).encode() for place in range(len(self.urls))]
        pixel = (
            b'\r\n<div style="display:none;max-height:0;overflow:hidden">'
            b'<img src="%b" width="1" height="1" border="0" alt=""></div>\r\n' % pixel_url.encode()
        )
        written += [leave_url.encode(), pixel]
        done: list[bytes] = []
        position = 0
        for change in self._changes:
            text = [change.pieces[0]]
            for gap, piece in zip(change.gaps, change.pieces[1:], strict=True):
                text += [gap if isinstance(gap, bytes) else written[gap], piece]
            done += [self._content[position : change.leaf.start], _encode(change, b"".join(text), self._content)]
            position = change.leaf.end
        return b"".join((*done, self._content[position:]))


def find(content: bytes, wishes: Wishes, expired: Callable[[], bool]) -> Rewriting | None:
    """Return what is to be replaced in the message, or None when that is nothing.

    Raises ``TooMuch`` for a message that is too large in its structure, or when ``expired`` says so.
    """
    places: dict[str, int] = {}
    changes: list[_Change] = []
    opens = wishes.opens
    for leaf in text_leaves(content, expired):
        charset = (leaf.charset or b"us-ascii").decode("ascii", "replace")
        if not _CHARSET.fullmatch(leaf.charset or b"us-ascii"):
            continue
        text = _decode(content[leaf.body : leaf.end], leaf.encoding)
        if text is None or _PGP in text:
            continue
        if charset in {"us-ascii", "ascii"}:
            charset = "utf-8"  # what is declared so and holds more is UTF-8, mostly
        pixel = opens and leaf.kind == b"text/html"
        change = _change(leaf, content, text, charset, wishes, places, expired, pixel=pixel)
        if change is not None:
            opens = opens and not pixel  # one pixel for a message: a second would count twice
            changes.append(change)
    if not changes:
        return None
    return Rewriting(tuple(places), content, tuple(changes))


def _change(
    leaf: Leaf,
    content: bytes,
    text: bytes,
    charset: str,
    wishes: Wishes,
    places: dict[str, int],
    expired: Callable[[], bool],
    *,
    pixel: bool,
) -> _Change | None:
    """Return how the part changes, or None: it does not."""
    gaps: list[tuple[int, int, int | bytes]] = []
    if wishes.leave and b"unsubscribe" in text:
        gaps += [(match.start(), match.end(), _LEAVE) for match in PLACEHOLDER.finditer(text)]
    marks = [end for _, end, _ in gaps], [start for start, _, _ in gaps]
    tracked = wishes.html_links if leaf.kind == b"text/html" else wishes.text_links and not leaf.flowed
    links, pixel_at = (
        _links(leaf, text, charset, expired) if pixel or tracked or _NOTRACK_WORD.search(text) else ([], 0)
    )
    for link in links:
        if _holds(link, *marks):
            continue  # it leads nowhere before its placeholder is filled in, and then to each reader's own place
        if link.notrack:
            gaps.append((link.start, link.end, _plain(link, text[link.start : link.end])))
        elif tracked and link.host not in wishes.excluded and (link.url in places or len(places) < LINKS):
            gaps.append((link.start, link.end, places.setdefault(link.url, len(places))))
    if pixel:
        gaps.append((pixel_at, pixel_at, _PIXEL))
    if not gaps:
        return None
    gaps.sort(key=lambda gap: gap[:2])
    pieces: list[bytes] = []
    position = 0
    for start, end, _ in gaps:
        pieces.append(text[position:start])
        position = end
    pieces.append(text[position:])
    return _Change(leaf, content[leaf.start : leaf.body], tuple(pieces), tuple(gap for _, _, gap in gaps))


def _links(leaf: Leaf, text: bytes, charset: str, expired: Callable[[], bool]) -> tuple[Sequence[Link], int]:
    """Return the links of a part, and where a pixel goes if it is HTML."""
    if leaf.kind == b"text/html":
        markup = read_html(text, charset, expired)
        if markup is not None:
            return markup.links, markup.pixel
    else:
        links = read_text(text, charset, expired)
        if links is not None:
            return links, 0
    raise TooMuch("it takes too long")


def _holds(link: Link, ends: Sequence[int], starts: Sequence[int]) -> bool:
    """Whether a placeholder stands in a link; where they end and start is in ascending order."""
    at = bisect_right(ends, link.start)
    return at < len(starts) and starts[at] < link.end


def _plain(link: Link, raw: bytes) -> bytes:
    """Return a link without its ``+notrack``, and otherwise as it was written, unless that was in entities."""
    plain, changed = _NOTRACK.subn(b"", raw, count=1)
    return plain if changed else html.escape(link.url).encode()


def _decode(body: bytes, encoding: bytes) -> bytes | None:
    """Return the text of a part, or None when it could not be written again as it was."""
    if encoding in IDENTITY:
        return body
    if encoding == b"base64":
        try:
            return binascii.a2b_base64(body)
        except binascii.Error:
            return None
    if encoding == b"quoted-printable":
        text = binascii.a2b_qp(_PADDING.sub(b"=", body))  # RFC 2045 §6.7, rule 3
        return text if binascii.a2b_qp(to_quoted_printable(text)) == text else None
    return None


def _encode(change: _Change, text: bytes, content: bytes) -> bytes:
    """Return the part, header and body, as it was encoded; in quoted-printable where a line became too long."""
    header, leaf = change.header, change.leaf
    if leaf.encoding == b"base64":
        body = to_base64(text)
        return header + (body if content.endswith(CRLF, leaf.body, leaf.end) else body.removesuffix(CRLF))
    if leaf.encoding == b"quoted-printable":
        return header + to_quoted_printable(text)
    if len(text) > LINE_LIMIT and max(map(len, text.split(CRLF))) > LINE_LIMIT:  # RFC 5322 §2.1.1
        header = header.removesuffix(CRLF)
        header = header if leaf.start else make_mime(header, text)
        return set_encoding(header, b"quoted-printable") + CRLF + to_quoted_printable(text)
    return header + text
