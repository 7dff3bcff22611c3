"""Every page of the dashboard and every verb, below its prefix."""

from arkrelay.web import message, messages, overview
from arkrelay.web.dashboard import Dashboard, Route
from arkrelay.web.visit import Parts

ROUTES = (
    Route("GET", "", overview.show),
    Route("GET", "messages", messages.show),
    Route("GET", "search", messages.search),
    Route("GET", "messages/{id}", message.show),
    Route("GET", "messages/{id}/raw", message.raw),
    Route("GET", "messages/{id}/html", message.html),
    Route("POST", "messages/{id}/{verb}", message.operate),
)


def make_dashboard(parts: Parts) -> Dashboard:
    """Return the dashboard, ready to answer."""
    return Dashboard(parts, ROUTES)
