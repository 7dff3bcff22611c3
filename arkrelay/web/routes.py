"""Every page of the dashboard and every verb, below its prefix."""

from arkrelay.web import (
    credentials,
    deliveries,
    doctor,
    domains,
    events,
    message,
    messages,
    overview,
    requests,
    suppressions,
    usage,
    webhooks,
)
from arkrelay.web.dashboard import Dashboard, Route
from arkrelay.web.visit import Parts

DOMAIN = "domains/{tenant}/{name}"
CREDENTIALS = "credentials/{tenant}"
WEBHOOK = "webhooks/{owner}/{id}"
ROUTES = (
    Route("GET", "", overview.show),
    Route("GET", "search", messages.search),
    Route("GET", "messages", messages.show),
    Route("POST", "messages", messages.operate),
    Route("GET", "messages/{id}", message.show),
    Route("GET", "messages/{id}/raw", message.raw),
    Route("GET", "messages/{id}/html", message.html),
    Route("POST", "messages/{id}/{verb}", message.operate),
    Route("GET", "domains", domains.show_all),
    Route("POST", "domains/add", domains.add),
    Route("GET", DOMAIN, domains.show),
    Route("POST", f"{DOMAIN}/verify", domains.verify),
    Route("POST", f"{DOMAIN}/delete", domains.remove),
    Route("GET", "doctor", doctor.show),
    Route("POST", "doctor/look", doctor.look),
    Route("GET", "credentials", credentials.show),
    Route("POST", f"{CREDENTIALS}/add", credentials.add),
    Route("POST", f"{CREDENTIALS}/{{id}}/reveal", credentials.reveal),
    Route("POST", f"{CREDENTIALS}/{{id}}/hold", credentials.hold),
    Route("POST", f"{CREDENTIALS}/{{id}}/delete", credentials.remove),
    Route("GET", "suppressions", suppressions.show),
    Route("POST", "suppressions/{tenant}/add", suppressions.add),
    Route("POST", "suppressions/{tenant}/delete", suppressions.remove),
    Route("GET", "webhooks", webhooks.show_all),
    Route("POST", "webhooks", webhooks.add),
    Route("GET", WEBHOOK, webhooks.show),
    Route("POST", WEBHOOK, webhooks.change),
    Route("POST", f"{WEBHOOK}/delete", webhooks.remove),
    Route("POST", f"{WEBHOOK}/test", deliveries.test),
    Route("GET", f"{WEBHOOK}/deliveries/{{delivery}}", deliveries.show),
    Route("POST", f"{WEBHOOK}/deliveries/{{delivery}}/replay", deliveries.replay),
    Route("GET", "events", events.show),
    Route("GET", "events/stream", events.stream),
    Route("GET", "usage", usage.show),
    Route("GET", "requests", requests.show_all),
    Route("GET", "requests/{id}", requests.show),
)


def make_dashboard(parts: Parts) -> Dashboard:
    """Return the dashboard, ready to answer."""
    return Dashboard(parts, ROUTES)
