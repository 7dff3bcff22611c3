"""What monitors ask: /healthz (the process lives), /readyz (it accepts and delivers), /metrics (Prometheus)."""

from aiohttp import web

from arkrelay.api.parts import parts_of


async def healthz(_: web.Request) -> web.Response:
    """The process answers: 200."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """200 while mail is accepted and delivered, else 503 with the reason."""
    reason = parts_of(request).unready()
    return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)


async def metrics(request: web.Request) -> web.Response:
    """The counters and gauges in Prometheus' text format."""
    body = parts_of(request).metrics.render()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
