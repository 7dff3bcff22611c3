"""The official client, sync and async alike, called by the names of its methods; and what it really asked.

Every request is counted where it leaves (httpx's hooks), not where a test says so: a retry is a second request.
"""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ark
import httpx

# Of the official client 0.18.1: the name of each method, and what it asks for.
OPERATIONS: dict[str, tuple[str, str]] = {
    name: (method, path)
    for name, (method, path) in json.loads(
        (Path(__file__).parents[1] / "e2e" / "operations.json").read_text()
    ).items()
}
_OPTIONS = {"extra_headers", "extra_query", "extra_body", "timeout"}  # that every method has
_FORMS = sorted(
    (
        (method, path.count("{"), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path)
        for method, path in OPERATIONS.values()
    ),
    key=lambda form: form[1],  # a literal segment wins over a parameter
)


def template(method: str, path: str) -> str | None:
    """Return the path of the operation that this request is, with or without /v1 before it; None for no operation."""
    bare = path.removeprefix("/v1")
    return next((shown for verb, _, form, shown in _FORMS if verb == method and form.fullmatch(bare)), None)


@dataclass(frozen=True)
class Exchange:
    """One request that was made, and the status that came back; ``path`` is as it was on the wire."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def operation(self) -> tuple[str, str | None]:
        return self.method, template(self.method, self.path)


@dataclass(frozen=True)
class Raw:
    """An answer as ``with_raw_response`` gives it."""

    status: int
    headers: Mapping[str, str]
    text: str
    parsed: Any  # by the client's model; None when the answer is not JSON


@dataclass
class Wire:
    """All that one client asked, in order."""

    exchanges: list[Exchange] = field(default_factory=list)

    def saw(self, response: httpx.Response) -> None:
        request = response.request
        path, _, query = request.url.raw_path.decode().partition("?")
        self.exchanges.append(
            Exchange(request.method, path, query, dict(request.headers), request.content, response.status_code)
        )

    async def saw_async(self, response: httpx.Response) -> None:
        self.saw(response)


Client = ark.Ark | ark.AsyncArk


def open_client(base_url: str, key: str, wire: Wire, *, sync: bool, **options: Any) -> Client:
    """Return a client that takes no answer but what its models say."""
    if sync:
        http = ark.DefaultHttpxClient(event_hooks={"response": [wire.saw]})
        return ark.Ark(api_key=key, base_url=base_url, http_client=http, _strict_response_validation=True, **options)
    http_async = ark.DefaultAsyncHttpxClient(event_hooks={"response": [wire.saw_async]})
    return ark.AsyncArk(
        api_key=key, base_url=base_url, http_client=http_async, _strict_response_validation=True, **options
    )


async def close(client: Client) -> None:
    """Close its connections."""
    if isinstance(client, ark.Ark):
        client.close()
    else:
        await client.close()


def parameters(client: Client, name: str) -> set[str]:
    """Return what a method takes beside the options that every method has."""
    return set(inspect.signature(_method(client, name)).parameters) - _OPTIONS


def code(error: ark.APIStatusError) -> str:
    """Return the error code of the body that came with it (Ark contract §2.2)."""
    body: Any = error.body
    return str(body["error"]["code"])


class Api:
    """A client during one test: ``await api("emails.list", page=2)``."""

    def __init__(self, client: Client, wire: Wire) -> None:
        self.client = client
        self.given: dict[str, set[str]] = {}  # with which parameters each method was called
        self._wire, self._from = wire, len(wire.exchanges)

    @property
    def exchanges(self) -> list[Exchange]:
        """What was asked since the test began."""
        return self._wire.exchanges[self._from :]

    def count(self, name: str) -> int:
        """Return how many requests for this operation were made."""
        return sum(exchange.operation == OPERATIONS[name] for exchange in self.exchanges)

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; raises what the client raises."""
        return await self._run(self._note(name, args, kwargs), args, kwargs)

    async def all(self, name: str, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Return every row of every page, as the client's own loop over the pages has it."""
        method = self._note(name, args, kwargs)
        if isinstance(self.client, ark.Ark):
            return await asyncio.to_thread(lambda: list(method(*args, **kwargs)))
        return [row async for row in method(*args, **kwargs)]

    async def raw(self, name: str, /, *args: Any, **kwargs: Any) -> Raw:
        """Return the answer with its headers."""
        self._note(name, args, kwargs)
        answer = await self._run(_method(self.client, name, raw=True), args, kwargs)
        text, parsed = answer.text(), None
        if inspect.isawaitable(text):
            text = await text
        if answer.headers["content-type"].startswith("application/json"):
            parsed = answer.parse()
            if inspect.isawaitable(parsed):
                parsed = await parsed
        return Raw(answer.status_code, answer.headers, text, parsed)

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        method = _method(self.client, name)
        self.given.setdefault(name, set()).update(inspect.signature(method).bind(*args, **kwargs).arguments)
        return method

    async def _run(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(self.client, ark.Ark):
            return await asyncio.to_thread(method, *args, **kwargs)
        return await method(*args, **kwargs)


def _method(client: Client, name: str, *, raw: bool = False) -> Callable[..., Any]:
    *resources, method = name.split(".")
    found: Any = client
    for resource in resources:
        found = getattr(found, resource)
    if raw:
        found = found.with_raw_response
    called: Callable[..., Any] = getattr(found, method)
    return called
