"""The pixel and the redirect of track domains (Ark contract §12)."""

from base64 import b64decode

from aiohttp import web

from arkrelay.model.errors import StoreError
from arkrelay.model.tenant import Tenant
from arkrelay.policy.engage import Client, visitor
from arkrelay.relay.track import Tracker
from arkrelay.web.client import HEADERS, plain

# one transparent pixel, by the shortest PNG there is of it
PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
NO_ROBOTS = "User-agent: *\nDisallow: /"


async def answer(tracker: Tracker, tenant: Tenant, client: Client, request: web.Request) -> web.Response:
    """Return what a track host answers."""
    if request.method not in {"GET", "HEAD"}:
        return plain(405, "Only GET is answered here.", Allow="GET, HEAD")
    agent = request.headers.get("User-Agent", "")
    who = visitor(request.method, request.headers)
    match request.path.split("/")[1:]:
        case ["img", token, message] if tracker.is_token_of(tenant, token):
            tracker.opened(tenant, message, who, client, agent)
            return web.Response(body=PIXEL, content_type="image/png", headers=HEADERS)
        case [token, link] if tracker.is_token_of(tenant, token):
            try:
                url = await tracker.follow(tenant, link, who, client, agent)
            except StoreError:
                return plain(503, "This link cannot be looked up now: try again in a moment.", **{"Retry-After": "5"})
            if url is not None:
                return web.Response(status=307, headers=HEADERS | {"Location": url})
        case ["robots.txt"]:
            return plain(200, NO_ROBOTS)
    return unknown()


def is_old(tracker: Tracker, request: web.Request) -> bool:
    """Return whether this was a link or pixel at a host that is a track domain no more; nothing else looks so."""
    parts = request.path.removeprefix("/img").split("/")
    return len(parts) == 3 and "Authorization" not in request.headers and tracker.is_token(parts[1])


def unknown() -> web.Response:
    """Return the answer for what stands for nothing."""
    return plain(404, "There is no such link, or it is no longer kept.")
