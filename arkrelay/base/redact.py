"""What may be kept of a request's and an answer's text: all but secrets and the content of attachments and messages.

A body that is JSON is parsed, which costs less than to search it for the names of what must go, and written again, so
that no spelling of a name (an escape, a key twice) hides anything. What is not JSON is kept up to the first word
that sounds like a secret. Nothing here is a judgement of a client: it only makes what we keep harmless.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from arkrelay.base.log import SECRET_KEYS, SECRET_TEXT

KEPT_BYTES: Final = 25_000  # of a body (Ark contract §8.2, §15)
MARK: Final = "... [truncated]"  # Ark contract §8.2
REDACTED: Final = "[redacted]"
NOT_KEPT: Final = "... [not JSON: the rest is not kept]"
TEXT_CHARS: Final = 500  # of a header, a parameter or an error, which come from outside
MAX_PARAMETERS: Final = 50
# 85 000 empty lists in so much text take 6 MB and 3 ms to build; more is parsed only when somebody has looked at it
PARSED_BYTES: Final = 256_000
SLACK_BYTES: Final = 1000  # a secret that begins before the cut ends within this

_SECRET_NAMES: Final = SECRET_KEYS | {
    *("key", "smtpusername", "smtp_username", "apikey", "api-key", "x-api-key", "token", "access_token"),
    *("passwd", "privatekey", "private-key", "bearer"),
}
_SIZED_NAMES: Final = frozenset({"rawmessage", "raw_message"})
# in the objects of "attachments" only what describes them is kept
_DESCRIBING_NAMES: Final = frozenset({"filename", "contenttype", "content_type", "name", "size", "hash", "contentid"})
_NAMES: Final = _SECRET_NAMES | _SIZED_NAMES | {"attachments"}
_LONG: Final = frozenset({str, list, dict})
_TELLTALE: Final = re.compile(
    r"raw_?message|attachment|content|smtp_?username|secret|passw|authori[sz]ation|bearer|token|api[-_]?key"
    r"|private[-_ ]?key|\bkey\b|\\u00[2-7]|[A-Za-z0-9+/=_-]{100}",  # the last: base64 of whatever it may be
    re.IGNORECASE,
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def body_text(raw: bytes, own_key: str = "", *, looked_at: bool = False) -> str:
    """Return what is kept of a body: at most ``KEPT_BYTES`` and the mark that says that it was cut.

    ``own_key`` is the key that came with the request; wherever it stands it goes. ``looked_at``: the body was parsed
    before, so it is no monster, whatever its length.
    """
    if not looked_at and len(raw) > PARSED_BYTES:
        return _opaque(raw, own_key)
    try:
        encoded = _encode(_harmless(_decode(raw), described=False))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return _opaque(raw, own_key)
    if len(encoded) <= KEPT_BYTES:
        return clean(encoded.decode(), own_key)
    head = clean(encoded[: KEPT_BYTES + SLACK_BYTES].decode("utf-8", "ignore"), own_key)
    return _cut(head) + MARK


def clean(text: str, own_key: str = "") -> str:
    """Return the text without anything that looks like one of our keys or sealed secrets, or is ``own_key``."""
    ours = "ark_" in text
    if own_key and (ours or "ark_" not in own_key):
        text = text.replace(own_key, REDACTED)
    return SECRET_TEXT.sub(REDACTED, text) if ours or "sealed:" in text else text


def short(text: str, own_key: str = "", limit: int = TEXT_CHARS) -> str:
    """Return a header, a path or an error as it may be kept."""
    if len(text) > limit + SLACK_BYTES:
        text = text[: limit + SLACK_BYTES]
    return clean(text, own_key)[:limit]


def parameters(query: Mapping[str, str], own_key: str = "") -> dict[str, str]:
    """Return the parameters of a query as they may be kept."""
    kept: dict[str, str] = {}
    for name, value in query.items():
        if len(kept) == MAX_PARAMETERS:
            break
        kept[short(name, own_key)] = REDACTED if name.lower() in _SECRET_NAMES else short(value, own_key)
    return kept


def _harmless(value: Any, *, described: bool) -> Any:
    """Return the JSON value without what must not be kept; ``described``: it belongs to an attachment."""
    kind = type(value)
    if kind is str:
        return _size(value) if described else value[: KEPT_BYTES + SLACK_BYTES]  # the rest is cut anyway
    if kind is list:
        return [_harmless(item, described=described) for item in value]
    if kind is not dict:
        return value
    kept = {}
    for name, item in value.items():
        known = name.lower()
        if described or known in _NAMES:
            item = _named(known, item, described=described)  # noqa: PLW2901 -- what is kept of it
        elif type(item) in _LONG:
            item = _harmless(item, described=False)  # noqa: PLW2901 -- likewise
        kept[name] = item
    return kept


def _named(name: str, value: Any, *, described: bool) -> Any:
    if name in _SIZED_NAMES:
        return _size(value) if type(value) is str else REDACTED
    if name in _SECRET_NAMES:
        return REDACTED if value else value
    return _harmless(value, described=name == "attachments" or (described and name not in _DESCRIBING_NAMES))


def _size(base64: str) -> str:
    """Return what stands in the place of base64: how many bytes it is."""
    return f"[{len(base64) * 3 // 4 - base64[-2:].count('=')} bytes]"


def _opaque(raw: bytes, own_key: str) -> str:
    """Return what is kept of a body that is not JSON; a form or a broken object may hold anything."""
    text = clean(raw[: KEPT_BYTES + SLACK_BYTES].decode("utf-8", "replace"), own_key)
    if (found := _TELLTALE.search(text)) is not None and found.start() < KEPT_BYTES:
        return text[: found.start()] + NOT_KEPT
    return text if len(raw) <= KEPT_BYTES else _cut(text) + MARK


def _cut(text: str) -> str:
    return text.encode()[:KEPT_BYTES].decode("utf-8", "ignore")
