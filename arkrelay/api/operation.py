"""An operation: a path, what it is called, who may ask, and the handler; and everything that happens around one.

A handler is a plain coroutine of an ``Ask``. Its annotations say what it takes and gives: they are what requests are
checked against, and what ``/openapi.json`` is made of.
"""

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
from aiohttp import web

from arkrelay.api.ask import Ask
from arkrelay.api.auth import require_changer
from arkrelay.api.body import SMALL_BYTES, parse_object, read
from arkrelay.api.idempotency import Replay
from arkrelay.api.model import Nothing, Page, convert
from arkrelay.api.parts import BODY, CALLER, PARSED, REQUEST_ID, SENT
from arkrelay.api.refusal import ApiError
from arkrelay.config.secrets import create_host_key
from arkrelay.relay.callers import Caller

Handler = Callable[[Ask[Any, Any]], Awaitable[Any]]

_encode = msgspec.json.Encoder().encode


class Scope(Enum):
    """Which keys an operation is for."""

    ANY = "any"  # organisation keys, and a tenant's key for its own tenant
    ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the table of routes."""

    method: str
    path: str  # below /v1, and at the root
    name: str  # as the official client calls it, the request log too (Ark contract §8.2)
    handler: Handler
    scope: Scope = Scope.ANY
    status: int = 200  # of a success
    body_bytes: Callable[[web.Request], int] | int = SMALL_BYTES
    also: tuple[int, ...] = ()  # other statuses of a success,
    refuses: tuple[int, ...] = ()  # and of a refusal, that its kind does not have (openapi)
    replayed: Callable[[Ask[Any, Any], bytes], None] | None = None  # sets the headers of an answer that is repeated
    tests: bool = False  # a test key may ask it though it changes something: it reaches nobody, or looks for itself
    secret: bool = False  # its answer may show a key: kept sealed, and in no log
    beside: tuple[tuple[str, type[Any]], ...] = ()  # what a Page has as ``more``
    media: tuple[str, ...] = ()  # what a StreamResponse, or an answer that may be one, comes as

    @property
    def types(self) -> tuple[type[Any], type[Any], Any]:
        """What the handler takes as query and as body, and what it returns."""
        hints = get_type_hints(self.handler)
        (ask,) = (hints[name] for name in inspect.signature(self.handler).parameters)
        query, body = get_args(ask)
        return query, body, _but_streams(hints["return"])

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]

    def serve(self) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler for aiohttp."""
        query_type, body_type, _ = self.types
        msgspec.inspect.multi_type_info((query_type, body_type))  # one that cannot be checked fails now
        takes_body = self.method in {"POST", "PATCH"}

        async def handle(request: web.Request) -> web.StreamResponse:
            caller = request[CALLER]
            if self.scope is Scope.ORGANISATION:
                _require_organisation(caller)
            if caller.test and self.method != "GET" and not self.tests:
                require_changer(caller)
            raw = b""
            if takes_body:
                raw = request[BODY] = await read(request, self._limit(request))
            query = Nothing() if query_type is Nothing else convert(_query(request), query_type, lax=True)
            ask: Ask[Any, Any] = Ask(request, caller, query, None, self.status)
            if self.method != "POST":
                ask.body = _body(raw, body_type)
                return await self._run(ask)
            idempotency = ask.parts.idempotency
            found = await idempotency.claim(
                caller.owner, request, request.path.removeprefix("/v1"), raw, lambda data: envelope(ask, data)
            )
            if isinstance(found, Replay):
                body = await self._opened(ask, found.receipt.body)
                if self.replayed is not None:
                    self.replayed(ask, body)
                return _json(body, found.receipt.status, ask.headers)
            if found is None:
                ask.body = _body(raw, body_type)
                return await self._run(ask)
            try:
                ask.body = _body(raw, body_type)
                ask.claim = found
                return await self._run(ask)
            finally:
                idempotency.release(found)

        return handle

    def _limit(self, request: web.Request) -> int:
        return self.body_bytes if isinstance(self.body_bytes, int) else self.body_bytes(request)

    async def _run(self, ask: Ask[Any, Any]) -> web.StreamResponse:
        ask.request[PARSED] = True
        try:
            result = await self.handler(ask)
        finally:
            ask.request[SENT] = (ask.email_id, ask.recipients)
        if isinstance(result, web.StreamResponse):
            return result
        claim = ask.claim
        if claim is None:
            body = await asyncio.to_thread(envelope, ask, result) if ask.heavy else envelope(ask, result)
            return _json(body, ask.status, ask.headers)
        kept = claim.receipt is not None  # in the transaction of the mail
        receipt = claim.answered(result, ask.status)
        if not kept:
            await ask.parts.idempotency.keep(replace(receipt, body=await self._sealed(ask, receipt.body)))
        return _json(receipt.body, receipt.status, ask.headers)

    async def _sealed(self, ask: Ask[Any, Any], body: bytes) -> bytes:
        """Return an answer as it is kept for a repeated request."""
        if not self.secret:
            return body
        key = await asyncio.to_thread(create_host_key, ask.snapshot.settings.state_dir)
        return key.seal(body.decode()).encode()

    async def _opened(self, ask: Ask[Any, Any], body: bytes) -> bytes:
        if not self.secret:
            return body
        key = await asyncio.to_thread(create_host_key, ask.snapshot.settings.state_dir)
        return key.open(body.decode()).encode()


def _but_streams(result: Any) -> Any:
    """Return what a handler may return, without the streams that some of its callers get instead."""
    kinds = [
        kind
        for kind in (get_args(result) if isinstance(result, UnionType) else ())
        if not (isinstance(kind, type) and issubclass(kind, web.StreamResponse))
    ]
    return kinds[0] if len(kinds) == 1 else result


def envelope(ask: Ask[Any, Any], data: object) -> bytes:
    """Return the answer as the contract wraps it (§2.1); a page has no ``success``."""
    meta = {"requestId": ask.request[REQUEST_ID]}
    if isinstance(data, Page):
        return encode(
            {
                "data": data.rows,
                "page": data.page,
                "perPage": data.per_page,
                "total": data.total,
                "totalPages": math.ceil(data.total / data.per_page),
                **(data.more or {}),
                "meta": meta,
            }
        )
    return encode({"success": True, "data": data, "meta": meta})


def encode(value: object) -> bytes:
    """Return compact JSON; half a surrogate pair (from an odd charset) becomes a question mark."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _json(body: bytes, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def _query(request: web.Request) -> dict[str, str]:
    return {name: value for name in request.query if (value := request.query[name])}


def _body(raw: bytes, kind: type[Any]) -> Any:
    if kind is Nothing:
        return Nothing()
    return convert(parse_object(raw), kind)


def _require_organisation(caller: Caller) -> None:
    if caller.tenant_id is not None:
        raise ApiError(
            403, "permission_denied", "This needs an organisation key; a tenant's key sees its tenant only."
        )
