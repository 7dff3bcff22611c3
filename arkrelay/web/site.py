"""Which requests are the world's, and who answers them."""

from aiohttp import web

from arkrelay.model.tenant import Tenant
from arkrelay.relay.track import Tracker
from arkrelay.relay.unsubscribe import Unsubscriber
from arkrelay.web import track, unsubscribe
from arkrelay.web.client import Clients, too_often


class Site:
    """What listeners with ``public`` show, beside what the HTTP door has itself."""

    def __init__(self, tracker: Tracker, unsubscriber: Unsubscriber, clients: Clients) -> None:
        self._tracker = tracker
        self._unsubscriber = unsubscriber
        self._clients = clients

    async def answer(self, request: web.Request) -> web.Response | None:
        """Return the answer, or None for a request that is not for us."""
        tenant = self._tenant(request.headers.get("Host", ""))
        token = None if tenant is not None else unsubscribe.token_of(request.path)
        if tenant is None and token is None:
            return track.unknown() if track.is_old(self._tracker, request) else None
        client = self._clients.admit(request)
        if client is None:
            return too_often()
        if tenant is not None:
            return await track.answer(self._tracker, tenant, client, request)
        return await unsubscribe.answer(self._unsubscriber, token or "", request)

    def _tenant(self, host: str) -> Tenant | None:
        """Return whose track domain the Host field names."""
        return self._tracker.tenant_of(host.partition(":")[0].removesuffix(".").lower())
