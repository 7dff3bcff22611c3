"""Every path that the HTTP door knows, and the application that serves them."""

import asyncio

from aiohttp import web

from arkrelay.api import control, domains, emails, health, queue, raw, suppressions
from arkrelay.api.auth import GUESSES_PER_MINUTE, MINUTE_S, authenticate, watch_connection
from arkrelay.api.errors import answer_errors, finish_headers
from arkrelay.api.parts import CONTROL, GUESSES, PARTS, STOPPING, Parts
from arkrelay.policy.limits import SlidingWindow

API = (
    ("GET", "/status", control.status),
    ("POST", "/control/reload", control.reload),
    ("GET", "/control/plan", control.plan),
    ("POST", "/control/backup", control.make_backup),
    ("GET", "/control/db", control.database),
    ("POST", "/control/db/{verb:check|prune|vacuum}", control.care),
    ("GET", "/queue", queue.list_queue),
    ("POST", "/queue/{verb:retry|hold|release|delete|flush}", queue.operate),
    ("GET", "/why", queue.explain),
    ("GET", "/events", queue.events),
    ("GET", "/emails", emails.list_emails),
    ("POST", "/emails/raw", raw.send_raw),
    ("GET", "/emails/{id}", emails.retrieve),
    ("GET", "/emails/{id}/deliveries", emails.deliveries),
    ("POST", "/emails/{id}/retry", emails.retry),
    ("GET", "/tenants/{tenant}/suppressions", suppressions.list_all),
    ("POST", "/tenants/{tenant}/suppressions", suppressions.create),
    ("GET", "/tenants/{tenant}/suppressions/{email}", suppressions.retrieve),
    ("DELETE", "/tenants/{tenant}/suppressions/{email}", suppressions.delete),
    ("GET", "/tenants/{tenant}/domains/{domain}", domains.retrieve),
    ("POST", "/tenants/{tenant}/domains/{domain}/verify", domains.verify),
)
HEALTH = (("GET", "/healthz", health.healthz), ("GET", "/readyz", health.readyz))
METRICS = (("GET", "/metrics", health.metrics),)


def new_guesses() -> SlidingWindow:
    """Return the count of wrong keys per client, which all listeners share."""
    return SlidingWindow(GUESSES_PER_MINUTE, MINUTE_S)


def make_app(
    parts: Parts,
    serve: frozenset[str],
    guesses: SlidingWindow,
    stopping: asyncio.Event,
    *,
    control_socket: bool = False,
) -> web.Application:
    """Return the application for listeners that serve ``serve`` (of api, dashboard, metrics, public)."""
    app = web.Application(middlewares=[watch_connection, answer_errors, authenticate])
    app.on_response_prepare.append(finish_headers)
    app[PARTS], app[GUESSES], app[STOPPING], app[CONTROL] = parts, guesses, stopping, control_socket
    table = [*HEALTH, *(METRICS if "metrics" in serve else ())]
    if "api" in serve:
        table += [(method, prefix + path, handler) for prefix in ("", "/v1") for method, path, handler in API]
    for method, path, handler in table:
        # GET answers HEAD too (RFC 9110 §9.3.2)
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
    return app
