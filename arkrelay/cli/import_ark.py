"""What an organisation has at Ark, read by its REST API (Ark contract §1-§8): nothing is changed there."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from arkrelay.cli import foreign
from arkrelay.cli.client import on_loopback
from arkrelay.cli.import_plan import excluded_hosts
from arkrelay.cli.state import Failed
from arkrelay.cli.suppression_files import Passed, Row, parse_row

URL_OF_ARK = "https://api.arkhq.io/v1"  # Ark contract §1
PER_PAGE = 100  # Ark contract §3: the most
BETWEEN_S = 0.11  # Ark contract §4: 10 requests a second, and a little air
TRIES = 6
RETRIED = frozenset({408, 409, 429})  # Ark contract §6, and 500 upwards
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # Ark contract §6
RETRY_AFTER_S = 60.0  # Ark contract §4: more is not heeded
CONNECT_S, ANSWER_S = 10.0, 60.0

T = TypeVar("T")
Said = Mapping[str, Any]


class Denied(Failed):
    """Ark said no, for good."""

    def __init__(self, path: str, status: int, said: str, hint: str = "") -> None:
        self.status, self.said = status, said
        super().__init__(f"GET {path}: {said}", hint)


class _Tenant(msgspec.Struct, rename="camel"):
    id: str
    name: str
    status: str = "active"
    metadata: dict[str, Any] | None = None


class _Credential(msgspec.Struct, rename="camel"):
    id: int | str
    name: str
    type: str
    hold: bool = False
    key: str | None = None


class _Domain(msgspec.Struct, rename="camel"):
    id: int | str
    name: str


class _Webhook(msgspec.Struct, rename="camel"):
    id: int | str
    name: str
    url: str
    events: list[str] | None = None
    all_events: bool | None = False
    enabled: bool | None = True


class _Track(msgspec.Struct, rename="camel"):
    domain_id: int | str
    name: str
    ssl_enabled: bool | None = True
    track_clicks: bool | None = True
    track_opens: bool | None = True
    excluded_click_domains: str | None = None


class Ark:
    """Ark's REST API, asked one question after the other; the key is sent to ``base`` and nowhere else."""

    def __init__(self, base: str, key: str) -> None:
        parts = urlsplit(base)
        local = parts.scheme == "http" and on_loopback(parts.netloc) is not None
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise Failed(f"{base}: expected https://host/v1", "a key is sent over TLS only, or on loopback")
        self._base, self._key = base.rstrip("/"), key
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._next_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    def get(self, path: str, **query: object) -> Said:
        """Return the whole answer; raises Denied when Ark says no, Failed when it does not answer."""
        return self._runner.run(self._get(path, {name: str(value) for name, value in query.items()}))

    def data(self, path: str, kind: type[T], **query: object) -> T:
        """Return ``data`` of the answer as ``kind``; raises Failed for what the contract does not have."""
        return self._convert(path, self.get(path, **query).get("data"), kind)

    def pages(self, path: str, kind: type[T]) -> Iterator[list[T]]:
        """Yield the rows page by page, to the end that contract §3 gives."""
        page = 1
        while True:
            answer = self.get(path, page=page, perPage=PER_PAGE)
            rows = self._convert(path, answer.get("data"), list[kind])  # type: ignore[valid-type]
            if rows:
                yield rows
            if not rows or page >= _int(answer.get("totalPages"), page + 1):
                return
            page += 1

    def count(self, path: str) -> int:
        """Return how many rows a list has."""
        return _int(self.get(path, page=1, perPage=1).get("total"), 0)

    def _convert(self, path: str, value: object, kind: type[T]) -> T:
        try:
            return msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError as error:
            raise Failed(f"GET {path} did not answer as Ark does: {error}") from None

    async def _get(self, path: str, query: Mapping[str, str]) -> Said:
        url = URL(self._base + path, encoded=True).update_query(query)
        why, hint = "", ""
        for number in range(TRIES):
            wait_s = min(FIRST_WAIT_S * 2**number, LONGEST_WAIT_S)
            try:
                status, headers, body = await self._ask(url)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = str(error) or type(error).__name__
            else:
                if status == 200 and isinstance(body, dict):
                    return body
                why, hint = _said(status, body)
                again = headers.get("x-should-retry", "")
                if again == "false" or (again != "true" and status not in RETRIED and status < 500):
                    raise Denied(path, status, why, hint)
                wait_s = _retry_after(headers, wait_s)
            if number + 1 < TRIES:
                await asyncio.sleep(wait_s)
        raise Failed(f"GET {path}: {why} (asked {TRIES} times)", hint)

    async def _ask(self, url: URL) -> tuple[int, Mapping[str, str], object]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
            headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}
            self._session = aiohttp.ClientSession(timeout=timeout, headers=headers)
        await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
        self._next_at = time.monotonic() + BETWEEN_S
        # a redirect could take the key elsewhere
        async with self._session.get(url, allow_redirects=False) as response:
            try:
                body = await response.json(content_type=None)
            except ValueError:
                body = None
            return response.status, response.headers.copy(), body


class ArkList:
    """The suppressions of one tenant at Ark: counted now, read when they are taken."""

    def __init__(self, ark: Ark, path: str) -> None:
        self._ark, self._path = ark, path
        self.count = ark.count(path)

    def parts(self) -> Iterator[tuple[list[Row], list[Passed]]]:
        """Yield what each page holds."""
        number = 0
        for page in self._ark.pages(self._path, dict[str, Any]):
            rows: list[Row] = []
            passed: list[Passed] = []
            for number, one in enumerate(page, number + 1):  # noqa: B020 -- it counts on over pages
                cells = {name.lower(): str(value) for name, value in one.items() if value is not None}
                found = parse_row(number, cells, "ark")
                (rows if isinstance(found, Row) else passed).append(found)  # type: ignore[arg-type]
            yield rows, passed


def read_ark(ark: Ark, only: Sequence[str], tell: Callable[[str], None]) -> foreign.Foreign:
    """Return what the key reaches, or just the tenants ``only``; ``tell`` is called with each tenant's name."""
    found = foreign.Foreign("Ark")
    if only:
        tenants = [ark.data(f"/tenants/{_part(one)}", _Tenant) for one in only]
        found.left.append(foreign.Left("webhooks", "of all tenants", "run it without --tenant for these"))
    else:
        try:
            tenants = [one for page in ark.pages("/tenants", _Tenant) for one in page]
        except Denied as error:
            if error.status == 403:
                error.hint = "a tenant's own key reaches that tenant only: name it with --tenant"
            raise
        found.webhooks = [_webhook(one) for one in ark.data("/platform/webhooks", list[_Webhook])]
    for one in tenants:
        tell(one.name)
        found.tenants.append(_read_tenant(ark, one))
    found.left.append(foreign.Left("organisation keys", "", "Ark does not show them: arkrelay key add NAME"))
    found.advice.append("mail that waits at Ark is sent from there: leave the account open until its queue is empty")
    return found


def _read_tenant(ark: Ark, one: _Tenant) -> foreign.Tenant:
    base = f"/tenants/{_part(one.id)}"
    tenant = foreign.Tenant(one.id, one.name, one.status, one.metadata or {})
    domains = ark.data(f"{base}/domains", dict[str, list[_Domain]]).get("domains", [])
    names = {str(each.id): each.name.lower() for each in domains}
    tenant.domains = [foreign.Domain(each.name) for each in domains]
    for page in ark.pages(f"{base}/credentials", _Credential):
        for each in page:
            key, note = None, ""
            try:
                key = ark.data(f"{base}/credentials/{_part(each.id)}", _Credential, reveal="true").key or None
            except Denied as error:  # one that is not shown does not keep back the rest
                if error.status == 401:
                    raise
                note = error.said
            tenant.credentials.append(foreign.Credential(each.name, each.type, each.hold, key, note))
    listed = ark.data(f"{base}/webhooks", dict[str, list[_Webhook]]).get("webhooks", [])
    for hook in listed:  # the list does not say who takes all events (Ark contract §8.9)
        tenant.webhooks.append(_webhook(ark.data(f"{base}/webhooks/{_part(hook.id)}", _Webhook)))
    for track in ark.data(f"{base}/tracking", dict[str, list[_Track]]).get("trackDomains", []):
        domain = names.get(str(track.domain_id))
        if domain is None:
            tenant.left.append(foreign.Left("track domain", track.name, "its domain is not in Ark's list"))
        else:
            tenant.track_domains.append(_track(track, domain))
    tenant.suppressions = ArkList(ark, f"{base}/suppressions")
    return tenant


def _webhook(one: _Webhook) -> foreign.Webhook:
    every = bool(one.all_events)
    return foreign.Webhook(
        one.name, one.url, () if every else tuple(one.events or ()), every, one.enabled is not False
    )


def _track(one: _Track, domain: str) -> foreign.TrackDomain:
    return foreign.TrackDomain(
        one.name,
        domain,
        ssl=one.ssl_enabled is not False,
        clicks=one.track_clicks is not False,
        opens=one.track_opens is not False,
        excluded=excluded_hosts(one.excluded_click_domains),
    )


def _part(value: object) -> str:
    return quote(str(value), safe="")


def _int(value: object, instead: int) -> int:
    return value if isinstance(value, int) else instead


def _said(status: int, body: object) -> tuple[str, str]:
    """Return what Ark said and what it suggests (Ark contract §2.2)."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return f"it answered {status}", ""
    return str(error.get("message") or f"it answered {status}"), str(
        error.get("suggestion") or error.get("hint") or ""
    )


def _retry_after(headers: Mapping[str, str], instead: float) -> float:
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if 0 < wait_s <= RETRY_AFTER_S:
            return wait_s
    return instead
