"""Who asks, also through a proxy of ours, and how often one client may."""

import ipaddress
import time

from aiohttp import web

from arkrelay.config.live import Live
from arkrelay.policy.engage import Client
from arkrelay.policy.limits import SlidingWindow, is_trusted, network_of

REQUESTS, SECONDS = 600, 10.0  # of one client: a mail service that fetches pictures for its readers stays below
CLIENTS = 1024  # remembered; times 600 times 8 bytes are 5 MB
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


class Clients:
    """Tells clients apart and counts them."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._window = SlidingWindow(REQUESTS, SECONDS, CLIENTS)

    def admit(self, request: web.Request) -> Client | None:
        """Return who asks, or None: it asks too often."""
        trusted = self._live.snapshot.settings.limits.trusted_addresses
        address = client_of(request.remote or "", request.headers.getall("X-Forwarded-For", []), trusted)
        client = Client(address, network_of(address))
        if is_trusted(address, trusted) or self._window.hit(client.network, time.monotonic()):
            return client
        return None


def client_of(remote: str, forwarded: list[str], trusted: tuple[str, ...]) -> str:
    """Return the client's address: what our own proxy says that it saw, or who is connected.

    A proxy appends the address that it saw, so of the list only what trusted hops added is believed: it is read from
    its end up to the first that is not trusted.
    """
    if not is_trusted(remote, trusted):
        return remote
    for hop in reversed([hop.strip() for line in forwarded for hop in line.split(",")]):
        try:
            address = str(ipaddress.ip_address(hop))
        except ValueError:
            return remote
        if not is_trusted(address, trusted):
            return address
        remote = address
    return remote


def plain(status: int, text: str, **headers: str) -> web.Response:
    """Return a short answer for people."""
    return web.Response(status=status, text=f"{text}\n", headers=HEADERS | headers)


def too_often() -> web.Response:
    """Return the answer to a client that asks too often."""
    return plain(429, "Too many requests: try again in a moment.", **{"Retry-After": str(int(SECONDS))})
