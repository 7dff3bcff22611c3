"""The body of a request: read with a limit and a deadline, and taken for JSON only when there is no doubt.

``json`` builds whatever it is told to: a thousand levels, numbers of a million digits, a million empty lists from
a few megabytes. So the text is looked at before it is parsed, and what is left of a body without its strings
is bounded. Two parsers that disagree about a key that stands twice are how checks are passed by: refused.
"""

import asyncio
import json
import math
import re
from itertools import accumulate
from typing import Any

from aiohttp import web

from arkrelay.api.refusal import ApiError

SMALL_BYTES = 1_000_000  # for everything but mail: a thousand ids, a reason
READ_S = 60.0  # a body must have come within this, and longer for a long one:
READ_RATE = 10_000.0  # bytes a second, on average
SKELETON_BYTES = 256_000  # of JSON without its strings: braces, commas, numbers
MAX_DEPTH = 20  # levels; deeper is nobody's honest message
MAX_DIGITS = 20  # of a number
NAME_CHARS = 100  # of a key that we quote

# Unrolled and possessive, so that no input makes it walk twice; a string that does not end goes to the end.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read(request: web.Request, limit: int) -> bytes:
    """Return the body as it came; raises ApiError 413 as soon as it is too long, 408 when it is too slow."""
    too_large = ApiError(413, "payload_too_large", f"The body is longer than {limit} bytes.", close=True)
    if (request.content_length or 0) > limit:
        raise too_large
    loop = asyncio.get_running_loop()
    began = loop.time()
    body = bytearray()
    try:
        while True:
            if request.transport is None:
                raise ConnectionResetError
            async with asyncio.timeout_at(began + READ_S + len(body) / READ_RATE):
                chunk = await request.content.readany()
            if not chunk:
                return bytes(body)
            body += chunk
            if len(body) > limit:
                raise too_large
    except TimeoutError:
        raise ApiError(408, "request_timeout", "The body came too slowly.", close=True) from None
    except web.RequestPayloadError:
        raise ApiError(400, "validation_error", "The body's chunks are broken.", close=True) from None


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that ``raw`` is, or ``{}`` when it is blank; raises ApiError 400 with a sentence.

    Refused: other than UTF-8, broken, deep or excessive JSON, NaN and infinity, huge numbers, a key twice, half
    a surrogate pair, anything that is not an object.
    """
    if not raw.strip():
        return {}
    _check_shape(raw)
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_number
        )
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise ApiError(400, "validation_error", "The body is not UTF-8.") from None
    except UnicodeEncodeError:
        raise ApiError(400, "validation_error", "The body holds half a surrogate pair.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(400, "validation_error", f"The body is not JSON: {error.msg} at {where}.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "validation_error", "The body must be a JSON object.")
    return value


def _check_shape(raw: bytes) -> None:
    skeleton = _STRING.sub(b"", raw)
    if len(skeleton) > SKELETON_BYTES:
        raise ApiError(400, "validation_error", "The body has too many values.")
    brackets = skeleton.translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ApiError(400, "validation_error", f"The JSON is nested deeper than {MAX_DEPTH} levels.")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))[:NAME_CHARS]  # type: ignore[func-returns-value]  # that it returns None is the point
        raise ApiError(400, "validation_error", f"The key {twice!r} stands twice in one object.", field=twice)
    return found


def _constant(name: str) -> Any:
    raise ApiError(400, "validation_error", f"{name} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ApiError(400, "validation_error", "A number in the body is too long.")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ApiError(400, "validation_error", "A number in the body is too large.")
    return number
