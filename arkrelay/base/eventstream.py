"""The frame of a stream of Server-Sent Events (WHATWG HTML, "Server-sent events"), for API and dashboard alike."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from arkrelay.model.errors import StoreError

log = structlog.get_logger()

MEDIA: Final = "text/event-stream"


def begin(**headers: str) -> web.StreamResponse:
    """Return the answer before its first event, with these header fields besides."""
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no", **headers})  # nginx would keep them back
    response.content_type, response.charset = MEDIA, "utf-8"
    return response


async def run(
    request: web.Request,
    response: web.StreamResponse,
    send: Callable[[web.StreamResponse], Awaitable[None]],
    **told: str,
) -> web.StreamResponse:
    """Send the head and what ``send`` writes, and return the response when either side has ended it.

    After the head nothing but the end of the connection can say that something went wrong: a StoreError is logged
    with the fields ``told``, anything else is raised.
    """
    await response.prepare(request)
    try:
        await send(response)
        await response.write_eof()
    except ConnectionError:
        pass  # the client has gone
    except BaseException as error:
        if request.transport is not None:  # no second answer is to stand behind the one that was begun
            request.transport.abort()
        if not isinstance(error, StoreError):
            raise
        log.warning("event_stream_cut", error=str(error), **told)
    return response
