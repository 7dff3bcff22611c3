"""Every path that the HTTP door knows, and the application that serves them."""

from aiohttp import web

from arkrelay.api import (
    control,
    credentials,
    doctor,
    domains,
    emails,
    events,
    explain,
    health,
    hookstate,
    jwks,
    lanes,
    limits,
    logs,
    peertls,
    platform,
    queue,
    raw,
    reports,
    send,
    suppressions,
    tenants,
    tracking,
    usage,
    usage_export,
    webhooks,
)
from arkrelay.api.auth import authenticate, watch_connection
from arkrelay.api.description import Description
from arkrelay.api.errors import answer_errors, finish_headers
from arkrelay.api.operation import Operation, Scope
from arkrelay.api.pages import Pages, show_pages
from arkrelay.api.parts import CONTROL, PARTS, Parts
from arkrelay.api.public import Public, ask_first
from arkrelay.api.record import recorder
from arkrelay.api.sending import body_limit, tell_limit_again
from arkrelay.base.eventstream import MEDIA

TENANT = "/tenants/{tenantId}"
WEBHOOK = f"{TENANT}/webhooks/{{webhookId}}"
PLATFORM = "/platform/webhooks"
CREDENTIAL = f"{TENANT}/credentials/{{credentialId}}"
DOMAIN = f"{TENANT}/domains/{{domainId}}"
TRACKING = f"{TENANT}/tracking/{{trackingId}}"
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/emails", "emails.send", send.send, replayed=tell_limit_again, tests=True, body_bytes=body_limit
    ),
    Operation(
        "POST",
        "/emails/batch",
        "emails.send_batch",
        send.send_batch,
        replayed=tell_limit_again,
        tests=True,
        body_bytes=body_limit,
        also=(207,),
    ),
    Operation(
        "POST",
        "/emails/raw",
        "emails.send_raw",
        raw.send_raw,
        replayed=tell_limit_again,
        tests=True,
        body_bytes=body_limit,
    ),
    Operation("GET", "/emails", "emails.list", emails.list_all),
    Operation("GET", "/emails/{emailId}", "emails.retrieve", emails.retrieve),
    Operation("GET", "/emails/{emailId}/deliveries", "emails.retrieve_deliveries", emails.retrieve_deliveries),
    Operation("POST", "/emails/{emailId}/retry", "emails.retry", emails.retry, tests=True),
    Operation("GET", "/emails/{emailId}/why", "emails.why", emails.why),
    Operation("GET", "/emails/{emailId}/reports", "emails.list_reports", reports.list_all),
    Operation("GET", "/lanes", "lanes.list", lanes.list_all, scope=Scope.ORGANISATION),
    Operation("GET", "/sources", "lanes.sources", lanes.sources, scope=Scope.ORGANISATION),
    Operation("POST", "/lanes/{lane}/rest", "lanes.rest", lanes.rest, scope=Scope.ORGANISATION),
    Operation("POST", "/lanes/{lane}/resume", "lanes.resume", lanes.unrest, scope=Scope.ORGANISATION),
    Operation("POST", "/lanes/{lane}/limit", "lanes.limit", lanes.limit, scope=Scope.ORGANISATION),
    Operation("GET", "/queue", "queue.list", queue.list_all),
    Operation("POST", "/queue/retry", "queue.retry", queue.retry, tests=True),
    Operation("POST", "/queue/flush", "queue.flush", queue.flush, tests=True),
    Operation("POST", "/queue/hold", "queue.hold", queue.hold, tests=True),
    Operation("POST", "/queue/release", "queue.release", queue.release, tests=True),
    Operation("POST", "/queue/delete", "queue.delete", queue.delete, tests=True),
    Operation("GET", "/why", "why.retrieve", queue.explain, refuses=(404,)),
    Operation("GET", "/explain", "explain.retrieve", explain.retrieve),
    Operation("GET", "/events", "events.list", events.list_all, media=(MEDIA,)),
    Operation("GET", "/status", "status.retrieve", control.status, scope=Scope.ORGANISATION),
    Operation("GET", "/doctor", "doctor.retrieve", doctor.retrieve, scope=Scope.ORGANISATION, refuses=(404,)),
    Operation("POST", "/control/reload", "control.reload", control.reload, scope=Scope.ORGANISATION),
    Operation("GET", "/control/plan", "control.plan", control.plan, scope=Scope.ORGANISATION),
    Operation("GET", "/control/tls", "control.tls", peertls.show, scope=Scope.ORGANISATION),
    Operation("GET", "/control/webhooks", "control.webhooks", hookstate.list_all, scope=Scope.ORGANISATION),
    Operation(
        "POST",
        "/control/webhooks/replay",
        "control.replay_webhooks",
        hookstate.replay,
        scope=Scope.ORGANISATION,
        refuses=(404,),
    ),
    Operation("POST", "/control/backup", "control.backup", control.make_backup, scope=Scope.ORGANISATION),
    Operation("GET", "/control/db", "control.db.retrieve", control.database, scope=Scope.ORGANISATION),
    Operation("POST", "/control/db/check", "control.db.check", control.check, scope=Scope.ORGANISATION),
    Operation("POST", "/control/db/prune", "control.db.prune", control.prune, scope=Scope.ORGANISATION),
    Operation("POST", "/control/db/vacuum", "control.db.vacuum", control.vacuum, scope=Scope.ORGANISATION),
    Operation("POST", "/tenants", "tenants.create", tenants.create, scope=Scope.ORGANISATION, status=201),
    Operation("GET", "/tenants", "tenants.list", tenants.list_all, scope=Scope.ORGANISATION),
    Operation("GET", TENANT, "tenants.retrieve", tenants.retrieve),
    Operation("PATCH", TENANT, "tenants.update", tenants.update, scope=Scope.ORGANISATION),
    Operation("DELETE", TENANT, "tenants.delete", tenants.delete, scope=Scope.ORGANISATION),
    Operation(
        "POST",
        f"{TENANT}/credentials",
        "tenants.credentials.create",
        credentials.create,
        tests=True,
        status=201,
        secret=True,
    ),
    Operation("GET", f"{TENANT}/credentials", "tenants.credentials.list", credentials.list_all),
    Operation("GET", CREDENTIAL, "tenants.credentials.retrieve", credentials.retrieve, secret=True),
    Operation("PATCH", CREDENTIAL, "tenants.credentials.update", credentials.update, tests=True),
    Operation("DELETE", CREDENTIAL, "tenants.credentials.delete", credentials.delete, tests=True),
    Operation("POST", f"{TENANT}/domains", "tenants.domains.create", domains.create, status=201),
    Operation("GET", f"{TENANT}/domains", "tenants.domains.list", domains.list_all),
    Operation("GET", DOMAIN, "tenants.domains.retrieve", domains.retrieve),
    Operation("DELETE", DOMAIN, "tenants.domains.delete", domains.delete),
    Operation("POST", f"{DOMAIN}/verify", "tenants.domains.verify", domains.verify, tests=True),
    Operation("POST", f"{TENANT}/tracking", "tenants.tracking.create", tracking.create, status=201),
    Operation("GET", f"{TENANT}/tracking", "tenants.tracking.list", tracking.list_all),
    Operation("GET", TRACKING, "tenants.tracking.retrieve", tracking.retrieve),
    Operation("PATCH", TRACKING, "tenants.tracking.update", tracking.update),
    Operation("DELETE", TRACKING, "tenants.tracking.delete", tracking.delete),
    Operation("POST", f"{TRACKING}/verify", "tenants.tracking.verify", tracking.verify, tests=True),
    Operation("POST", f"{TENANT}/suppressions", "tenants.suppressions.create", suppressions.create, status=201),
    Operation("GET", f"{TENANT}/suppressions", "tenants.suppressions.list", suppressions.list_all),
    Operation("POST", f"{TENANT}/suppressions/undo", "tenants.suppressions.undo", suppressions.undo),
    Operation("POST", f"{TENANT}/suppressions/import", "tenants.suppressions.import", suppressions.import_many),
    Operation("GET", f"{TENANT}/suppressions/{{email}}", "tenants.suppressions.retrieve", suppressions.retrieve),
    Operation("DELETE", f"{TENANT}/suppressions/{{email}}", "tenants.suppressions.delete", suppressions.delete),
    Operation("GET", "/usage", "usage.retrieve", usage.retrieve, scope=Scope.ORGANISATION),
    Operation(
        "GET",
        "/usage/export",
        "usage.export",
        usage_export.export,
        scope=Scope.ORGANISATION,
        media=(usage_export.CSV, usage_export.NDJSON, usage_export.JSON),
    ),
    Operation(
        "GET",
        "/usage/tenants",
        "usage.list_tenants",
        usage.list_tenants,
        scope=Scope.ORGANISATION,
        beside=(("period", usage.UsagePeriod),),
    ),
    Operation("GET", f"{TENANT}/usage", "tenants.usage.retrieve", usage.retrieve_tenant),
    Operation("GET", f"{TENANT}/usage/timeseries", "tenants.usage.retrieve_timeseries", usage.retrieve_timeseries),
    Operation("GET", "/logs", "logs.list", logs.list_all),
    Operation("GET", "/logs/{requestId}", "logs.retrieve", logs.retrieve),
    Operation("GET", "/limits", "limits.retrieve", limits.retrieve),
    Operation("POST", f"{TENANT}/webhooks", "tenants.webhooks.create", webhooks.create, status=201),
    Operation("GET", f"{TENANT}/webhooks", "tenants.webhooks.list", webhooks.list_all),
    Operation("GET", WEBHOOK, "tenants.webhooks.retrieve", webhooks.retrieve),
    Operation("PATCH", WEBHOOK, "tenants.webhooks.update", webhooks.update),
    Operation("DELETE", WEBHOOK, "tenants.webhooks.delete", webhooks.delete),
    Operation("GET", f"{WEBHOOK}/deliveries", "tenants.webhooks.list_deliveries", webhooks.list_attempts),
    Operation(
        "GET",
        f"{WEBHOOK}/deliveries/{{deliveryId}}",
        "tenants.webhooks.retrieve_delivery",
        webhooks.retrieve_attempt,
    ),
    Operation(
        "POST",
        f"{WEBHOOK}/deliveries/{{deliveryId}}/replay",
        "tenants.webhooks.replay_delivery",
        webhooks.replay,
    ),
    Operation("POST", f"{WEBHOOK}/test", "tenants.webhooks.test", webhooks.test, tests=True),
    Operation("POST", PLATFORM, "platform.webhooks.create", platform.create, scope=Scope.ORGANISATION, status=201),
    Operation("GET", PLATFORM, "platform.webhooks.list", platform.list_all, scope=Scope.ORGANISATION),
    # before {webhookId}, whose form it has
    Operation(
        "GET",
        f"{PLATFORM}/deliveries",
        "platform.webhooks.list_deliveries",
        platform.list_attempts,
        scope=Scope.ORGANISATION,
    ),
    Operation(
        "GET",
        f"{PLATFORM}/deliveries/{{deliveryId}}",
        "platform.webhooks.retrieve_delivery",
        platform.retrieve_attempt,
        scope=Scope.ORGANISATION,
    ),
    Operation(
        "POST",
        f"{PLATFORM}/deliveries/{{deliveryId}}/replay",
        "platform.webhooks.replay_delivery",
        platform.replay,
        scope=Scope.ORGANISATION,
    ),
    Operation(
        "GET",
        f"{PLATFORM}/{{webhookId}}",
        "platform.webhooks.retrieve",
        platform.retrieve,
        scope=Scope.ORGANISATION,
    ),
    Operation(
        "PATCH", f"{PLATFORM}/{{webhookId}}", "platform.webhooks.update", platform.update, scope=Scope.ORGANISATION
    ),
    Operation(
        "DELETE", f"{PLATFORM}/{{webhookId}}", "platform.webhooks.delete", platform.delete, scope=Scope.ORGANISATION
    ),
    Operation(
        "POST",
        f"{PLATFORM}/{{webhookId}}/test",
        "platform.webhooks.test",
        platform.test,
        tests=True,
        scope=Scope.ORGANISATION,
    ),
)
HEALTH = (("GET", "/healthz", health.healthz), ("GET", "/readyz", health.readyz))
METRICS = (("GET", "/metrics", health.metrics),)
PUBLIC = (("GET", "/.well-known/jwks.json", jwks.keys),)


def make_app(
    parts: Parts,
    serve: frozenset[str],
    *,
    control_socket: bool = False,
    public: Public | None = None,
    pages: Pages | None = None,
) -> web.Application:
    """Return the application for listeners that serve ``serve`` (of api, dashboard, metrics, public).

    ``public``, where that is served, and then ``pages``, where the dashboard is, are asked first: some host names are
    the world's alone.
    """
    endpoints: dict[object, str] = {}  # the names of operations, by their handlers
    record = recorder(parts.requests.note, endpoints)
    asked = [ask_first(public)] if public is not None and "public" in serve else []
    if pages is not None and "dashboard" in serve:
        asked.append(show_pages(pages))
    app = web.Application(middlewares=[watch_connection, record, answer_errors, *asked, authenticate])
    app.on_response_prepare.append(finish_headers)
    app[PARTS], app[CONTROL] = parts, control_socket
    table = [*HEALTH, *(METRICS if "metrics" in serve else ()), *(PUBLIC if "public" in serve else ())]
    if "api" in serve:
        for operation in OPERATIONS:
            handler = operation.serve()
            endpoints[handler] = operation.name
            table += [(operation.method, prefix + operation.path, handler) for prefix in ("", "/v1")]
        described = Description(OPERATIONS)
        table += [("GET", f"{prefix}/openapi.json", described.openapi) for prefix in ("", "/v1")]
        table += [("GET", f"{prefix}/docs", described.docs) for prefix in ("", "/v1")]
    for method, path, handler in table:
        # GET answers HEAD too (RFC 9110 §9.3.2)
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
    return app
