"""Where requests for pages leave the API: to the dashboard, which the daemon hands in."""

from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Middleware

from arkrelay.api.auth import local_peer
from arkrelay.api.errors import Handler
from arkrelay.api.parts import CONTROL, REQUEST_ID
from arkrelay.relay.callers import Caller

# A request, who is at the other end of the control socket (None: nobody who needs no key), and the request's id.
# None: it is for no page.
Pages = Callable[[web.Request, Callable[[], Caller | None], str], Awaitable[web.StreamResponse | None]]


def show_pages(pages: Pages) -> Middleware:
    """Return the middleware that lets the dashboard answer what is its own, by its own way of signing in."""

    @web.middleware
    async def shown(request: web.Request, handler: Handler) -> web.StreamResponse:
        local = partial(local_peer, request) if request.config_dict[CONTROL] else _nobody
        answer = await pages(request, local, request[REQUEST_ID])
        return await handler(request) if answer is None else answer

    return shown


def _nobody() -> None:
    return None
