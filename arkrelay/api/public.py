"""Where the world's requests leave the API: to a door of its own, which the daemon hands in."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from arkrelay.api.errors import Handler

Public = Callable[[web.Request], Awaitable[web.Response | None]]  # None: not for the world


def ask_first(public: Public) -> Middleware:
    """Return the middleware that lets ``public`` answer what is its own."""

    @web.middleware
    async def asked(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await public(request)
        return await handler(request) if answer is None else answer

    return asked
