"""The dashboard: which requests are its own, who is signed in, and from a handler's answer to a page.

Whoever has a key signs in with it once; root and the service's user on the control socket need none. Every form
carries the token of its session, and what comes from another site is refused: the cookie is not sent with it
(SameSite), the token is not known to it, and browsers say so themselves (Sec-Fetch-Site). Local peers are believed
under a name of this host only: a name that an attacker's DNS leads to 127.0.0.1 is not one.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from arkrelay.config.snapshot import digest
from arkrelay.model.errors import ArkrelayError, Conflict, NotFound, StoreError
from arkrelay.policy.limits import is_trusted
from arkrelay.relay.callers import Caller, WrongKey
from arkrelay.relay.settings import ChangeRefused
from arkrelay.web.render import ASSETS, PREFIX, asset, render, url
from arkrelay.web.sessions import Session, Sessions
from arkrelay.web.visit import Handler, Page, Parts, Visit

log = structlog.get_logger()

FORM_BYTES: Final = 65_536
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "arkrelay-theme"
THEME_S: Final = 365 * 86400
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "arkrelay"})
_OPEN: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Route:
    """One page or verb; ``path`` is below the prefix, with ``{name}`` for one segment."""

    method: str
    path: str
    handler: Handler


class Dashboard:
    """Answers what is below ``/dashboard``, and leads there from ``/``."""

    def __init__(self, parts: Parts, routes: tuple[Route, ...]) -> None:
        self._parts = parts
        self._routes = [(route, _pattern(route.path)) for route in routes]
        self._sessions = Sessions()

    async def answer(
        self, request: web.Request, local: Callable[[], Caller | None], request_id: str
    ) -> web.StreamResponse | None:
        """Return the answer, or None for a request that is not for us."""
        path = request.path
        if path == "/" and "text/html" not in request.headers.get("Accept", ""):
            return None  # no browser: for a client of the API there is no such path
        if path in {"/", PREFIX} and request.method in _OPEN:
            return _guarded(web.Response(status=303, headers={"Location": url()}))
        if not path.startswith(f"{PREFIX}/"):
            return None
        answer = await _Turn(self, request, local, request_id).answer(path.removeprefix(f"{PREFIX}/"))
        return answer if answer.prepared else _guarded(answer)

    @property
    def parts(self) -> Parts:
        """The daemon's parts."""
        return self._parts

    @property
    def sessions(self) -> Sessions:
        """Who is signed in."""
        return self._sessions

    def find(self, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """Return the handler for a method and path with what its braces stand for; None where there is none."""
        wanted = "GET" if method == "HEAD" else method
        for route, pattern in self._routes:
            match = pattern.fullmatch(path)
            if match is not None and route.method == wanted:
                return route.handler, match.groupdict()
        return None


class _Turn:
    """One request and its answer."""

    def __init__(
        self, dashboard: Dashboard, request: web.Request, local: Callable[[], Caller | None], request_id: str
    ) -> None:
        self._dashboard, self._request, self._local, self._request_id = dashboard, request, local, request_id
        self._parts, self._sessions = dashboard.parts, dashboard.sessions
        self._token: str | None = None  # of a session that this answer begins
        self._session: Session | None = None

    async def answer(self, path: str) -> web.StreamResponse:
        request = self._request
        if path in ASSETS and request.method in _OPEN:
            return _asset(path)
        try:
            response = await self._serve(path)
        except (NotFound, Conflict, ChangeRefused, StoreError, web.HTTPException) as error:
            response = await self._failed(error)
        except ConnectionError:
            raise
        except Exception:
            if request.transport is not None:
                log.exception("page_crashed", request_id=self._request_id, method=request.method, path=request.path)
            response = await self._error(
                500, "That did not work", "Something went wrong on our side; the log knows it by the number below."
            )
        if self._token is not None and not response.prepared:
            self._set_cookie(response, self._token)
        return response

    async def _serve(self, path: str) -> web.StreamResponse:
        request = self._request
        if request.method not in {"GET", "HEAD", "POST"}:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD", "POST"])
        session = self._session = self._find_session()
        form = await self._form() if request.method == "POST" else {}
        if request.method == "POST" and self._from_elsewhere:
            return await self._error(403, "Not from here", "This form was sent by another site. Nothing was done.")
        if path == "sign-in":
            return await self._sign_in(form)
        if session is None:
            return await self._turned_away(path, form)
        if request.method == "POST" and not session.accepts(form.get("csrf", "")):
            return await self._error(
                403, "Not from here", "This form is not of your session: go back, reload the page, and try again."
            )
        if path == "theme" and request.method == "POST":
            return self._theme(form)
        if path == "sign-out" and request.method == "POST":
            self._sessions.close(self._cookie() or "")
            response = web.Response(status=303, headers={"Location": url("sign-in")})
            response.del_cookie(self._cookie_name, path="/", secure=self._secure, httponly=True, samesite="Strict")
            return response
        found = self._dashboard.find(request.method, path)
        if found is None:
            raise NotFound("There is no such page.")
        handler, match = found
        result = await handler(Visit(request, self._parts, session, match, form))
        return result if isinstance(result, web.StreamResponse) else await self._page(result, session)

    # -- who asks --------------------------------------------------------------------------------------------------

    def _find_session(self) -> Session | None:
        now, snapshot = time.monotonic(), self._parts.live.snapshot
        token = self._cookie()
        session = self._sessions.find(token, snapshot, now) if token else None
        if session is not None and session.key_digest is not None:
            return session
        ours = _host(self._request) in LOCAL_HOSTS and not self._from_elsewhere
        local = self._local() if ours else None
        if local is None:
            return None  # also with the session of a local peer, who comes by another way
        if session is None:
            self._token, session = self._sessions.open(local, None, now)
        return session

    async def _sign_in(self, form: Mapping[str, str]) -> web.StreamResponse:
        request, snapshot = self._request, self._parts.live.snapshot
        back = _inside(form.get("next") or request.query.get("next", ""))
        if request.method != "POST":
            if self._session is not None:
                return web.Response(status=303, headers={"Location": back})
            return await self._sign_in_page("", back)
        key = form.get("key", "").strip()
        if not key:
            return await self._sign_in_page("Paste a key.", back, 400)
        try:
            caller = self._parts.guesses.caller(snapshot, key, request.remote or "", time.monotonic())
        except WrongKey as error:
            if error.wait_s:
                response = await self._sign_in_page(f"{error} Try again in {error.wait_s} s.", back, 429)
                response.headers["Retry-After"] = str(error.wait_s)
                return response
            return await self._sign_in_page(f"{error} SMTP passwords do not open the dashboard.", back, 401)
        if caller.suspended or caller.hold:
            why = f"The tenant is {caller.suspended}." if caller.suspended else "This key is on hold."
            return await self._sign_in_page(why, back, 403)
        self._sessions.close(self._cookie() or "")
        self._token, _ = self._sessions.open(caller, digest(key), time.monotonic())
        log.info("signed_in", tenant=caller.tenant_id, key_name=caller.name, client=request.remote)
        return web.Response(status=303, headers={"Location": back})

    async def _turned_away(self, path: str, form: Mapping[str, str]) -> web.StreamResponse:
        """Lead who is not signed in to where that is done."""
        request = self._request
        if path == "theme" and request.method == "POST":
            return self._theme(form)  # of the page to sign in, which has no session yet
        if request.method == "POST" or path == "events/stream":
            return await self._error(403, "Signed out", "You are not signed in any more. Nothing was done.")
        back = request.rel_url.raw_path_qs if path else None
        return web.Response(status=303, headers={"Location": url("sign-in", next=back)})

    async def _sign_in_page(self, problem: str, back: str, status: int = 200) -> web.Response:
        page = Page("sign_in.html", "Sign in", {"problem": problem, "next": back}, status)
        return await self._page(page, None)

    @property
    def _from_elsewhere(self) -> bool:
        """Whether the browser says that a page of another site asks (W3C Fetch Metadata)."""
        return self._request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}

    @property
    def _secure(self) -> bool:
        """Whether the browser speaks TLS, to us or to a proxy of ours."""
        request = self._request
        if request.secure:
            return True
        trusted = self._parts.live.snapshot.settings.limits.trusted_addresses
        return is_trusted(request.remote or "", trusted) and request.headers.get("X-Forwarded-Proto") == "https"

    @property
    def _cookie_name(self) -> str:
        return "__Host-arkrelay" if self._secure else "arkrelay"

    def _cookie(self) -> str | None:
        return self._request.cookies.get(self._cookie_name)

    def _set_cookie(self, response: web.StreamResponse, token: str) -> None:
        response.set_cookie(self._cookie_name, token, path="/", httponly=True, samesite="Strict", secure=self._secure)

    def _theme(self, form: Mapping[str, str]) -> web.Response:
        theme = form.get("theme", "")
        response = web.Response(status=303, headers={"Location": _inside(form.get("next", ""))})
        if theme in THEMES:
            response.set_cookie(
                THEME_COOKIE, theme, max_age=THEME_S, path=PREFIX, httponly=True, samesite="Strict",
                secure=self._secure,
            )  # fmt: skip
        return response

    async def _form(self) -> dict[str, str]:
        """Return the fields that were posted; the last of one name counts."""
        request = self._request
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType
        raw = b""
        while chunk := await request.content.read(FORM_BYTES):
            raw += chunk
            if len(raw) > FORM_BYTES:
                raise web.HTTPRequestEntityTooLarge(FORM_BYTES, len(raw))
        return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200))

    # -- what is answered ------------------------------------------------------------------------------------------

    async def _page(self, page: Page, session: Session | None) -> web.Response:
        notices: list[tuple[str, str]] = []
        if session is not None:
            notices, session.notices = session.notices, []
        theme = self._request.cookies.get(THEME_COOKIE, "auto")
        data = {
            "title": page.title,
            "here": self._request.path.removeprefix(f"{PREFIX}/").partition("/")[0],
            "back": self._request.rel_url.raw_path_qs if self._request.method in _OPEN else url(),
            "session": session,
            "who": None if session is None else session.caller,
            "notices": notices,
            "theme": theme if theme in THEMES else "auto",
            "themes": THEMES,
            "snapshot": self._parts.live.snapshot,
            "now": time.time(),
            **page.data,
        }
        text = await asyncio.to_thread(render, page.template, data)
        return web.Response(status=page.status, text=text, content_type="text/html", charset="utf-8")

    async def _failed(self, error: ArkrelayError | web.HTTPException) -> web.StreamResponse:
        match error:
            case NotFound():
                return await self._error(404, "Not found", _sentence(str(error)))
            case Conflict() | ChangeRefused():
                if self._session is not None and self._request.method == "POST":
                    self._session.notices.append(("bad", _sentence(str(error))))
                    return web.Response(status=303, headers={"Location": self._back_from_post()})
                return await self._error(409, "That cannot be done", _sentence(str(error)))
            case StoreError():
                log.warning("page_failed", request_id=self._request_id, path=self._request.path, error=str(error))
                return await self._error(
                    503, "Not now", "The database is busy or unavailable: try again in a moment."
                )
            case web.HTTPException():
                return await self._error(error.status, error.reason, "This request cannot be understood.")
        raise error

    def _back_from_post(self) -> str:
        """Return the page that a verb was on: the longest beginning of its path that is one, of the same tenant."""
        path = self._request.path.removeprefix(f"{PREFIX}/")
        verb = self._dashboard.find("POST", path)
        tenant = self._request.query.get("tenant") if verb is None else verb[1].get("tenant")
        while path:
            page = self._dashboard.find("GET", path)
            if page is not None:
                return url(*path.split("/"), tenant=None if "tenant" in page[1] else tenant)
            path = path.rpartition("/")[0]
        return url()

    async def _error(self, status: int, title: str, sentence: str) -> web.Response:
        data = {"sentence": sentence, "status": status, "request_id": self._request_id}
        return await self._page(Page("error.html", title, data, status), self._session)


def _guarded(response: web.StreamResponse) -> web.StreamResponse:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _asset(name: str) -> web.Response:
    return web.Response(
        body=asset(name),
        content_type=ASSETS[name],
        charset="utf-8",
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _inside(path: str) -> str:
    """Return a path to go on to, if it is one of ours; another site's is not."""
    ours = path.startswith(f"{PREFIX}/") and "\\" not in path and "//" not in path.partition("?")[0]
    return path if ours and path.isascii() and path.isprintable() else url()


def _host(request: web.Request) -> str:
    """Return the name by which we were asked, without its port."""
    return re.sub(r":\d+$", "", request.headers.get("Host", "")).lower()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
