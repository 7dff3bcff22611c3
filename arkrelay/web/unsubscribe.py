"""The page on which a recipient leaves a stream, and the one click of mail programs (RFC 8058).

GET shows who and what, and one button; it does nothing, because programs look at links. POST acts, whoever sends it
and how often: it needs no cookie, no login and no script, and leads nowhere (RFC 8058 §3.1). What is shown of the
recipient's address is what its owner recognises it by: the page's address may have been forwarded with the mail.
"""

import base64
import hashlib
from html import escape
from importlib import resources

from aiohttp import web

from arkrelay.mail.unsubscribe import TOKEN
from arkrelay.model.errors import StoreError
from arkrelay.relay.unsubscribe import BY_CLICK, BY_PAGE, Subscription, Unsubscriber
from arkrelay.web.client import HEADERS, plain

PREFIX = "u"
BODY_BYTES = 4096  # a form of one field
PAGE = resources.files("arkrelay.web").joinpath("templates/unsubscribe.html").read_text("utf-8")
STYLE = resources.files("arkrelay.web").joinpath("templates/page.css").read_text("utf-8")
# No source but the one stylesheet, known by its hash (CSP Level 3 §2.3.1); the form goes to this page alone.
POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)


def token_of(path: str) -> str | None:
    """Return what stands behind ``/u/`` at the end of a path, or None: not ours.

    A proxy may have lengthened the path. Of a longer one only a token's own form is ours: a tenant may be named "u".
    """
    parts = path.split("/")
    if len(parts) < 3 or parts[-2] != PREFIX:
        return None
    return parts[-1] if len(parts) == 3 or TOKEN.fullmatch(parts[-1].lower()) else None


async def answer(unsubscriber: Unsubscriber, token: str, request: web.Request) -> web.Response:
    """Return the page, having done what a POST asks."""
    if request.method not in {"GET", "HEAD", "POST"}:
        return plain(405, "Only GET and POST are answered here.", Allow="GET, HEAD, POST")
    try:
        found = await unsubscriber.find(token)
        if found is None:
            return _page(404, _unknown())
        if request.method == "POST":
            by = BY_PAGE if "page=1" in await _body(request) else BY_CLICK
            await unsubscriber.end(found, by)
            return _page(200, _ended(found))
    except StoreError:
        return _page(503, _later())
    return _page(200, _ended(found) if found.ended else _question(found))


async def _body(request: web.Request) -> str:
    """Return the beginning of the form; RFC 8058 §3.2 has one field, and we do not insist on it."""
    return (await request.content.read(BODY_BYTES)).decode("ascii", "replace")


def _question(found: Subscription) -> str:
    return (
        f"<h1>Unsubscribe?</h1><p>{_who(found)} will no longer get {_what(found)}.</p>"
        '<form method="post"><input type="hidden" name="page" value="1">'
        '<button name="List-Unsubscribe" value="One-Click">Unsubscribe</button></form>'
        "<p class=note>If you did not mean to, just close this page: nothing has changed.</p>"
    )


def _ended(found: Subscription) -> str:
    return (
        f'<h1>Unsubscribed</h1><p role="status">{_who(found)} will no longer get {_what(found)}.</p>'
        "<p class=note>Mail that is already on its way may still arrive.</p>"
    )


def _unknown() -> str:
    return (
        "<h1>This link is not known</h1><p>It may be incomplete, or the mail that it came with is from long ago.</p>"
        "<p class=note>Use the link of a newer mail, or answer to its sender.</p>"
    )


def _later() -> str:
    return "<h1>Not now</h1><p>Nothing was changed, because our database is busy. Try again in a moment.</p>"


def _who(found: Subscription) -> str:
    return f"<strong>{escape(veiled(found.recipient.address))}</strong>"


def _what(found: Subscription) -> str:
    sender = f"<strong>{escape(found.sender)}</strong>"
    if found.stream:
        return f"<strong>{escape(found.stream)}</strong> mail from {sender}"
    return f"mail from {sender}"


def veiled(address: str) -> str:
    """Return an address as its owner recognises it: ``jo•••@example.com``."""
    local, _, domain = address.rpartition("@")
    return f"{local[: min(2, len(local) // 2)]}•••@{domain}"


def _page(status: int, content: str) -> web.Response:
    return web.Response(
        status=status,
        text=PAGE.replace("{style}", STYLE).replace("{content}", content),
        content_type="text/html",
        charset="utf-8",
        headers=HEADERS | {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"},
    )
