"""Every route of the HTTP door is asked here, by those who may and those who may not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from peers.restdoor import ACME_KEY, OTHER_KEY, RestDoor, open_rest_door, raw

from arkrelay.api.routes import API, HEALTH, METRICS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("routes")) as opened:
        yield opened


SINGLE, PAGE, PLAIN = "single", "page", "plain"
ORGANISATION, TENANT, FOREIGN, ANYONE = "organisation", "tenant", "foreign is 404", "anyone"
Body = Callable[[RestDoor, Path], Awaitable[dict[str, Any] | None]]


async def none(_: RestDoor, __: Path) -> None:
    return None


async def one_id(door: RestDoor, _: Path) -> dict[str, Any]:
    return {"ids": [await door.held("queue")]}


async def flush_nothing(_: RestDoor, __: Path) -> dict[str, Any]:
    return {"domain": "nothing.test"}


async def message(_: RestDoor, __: Path) -> dict[str, Any]:
    return {"from": "app@sender.test", "to": ["routes@rcpt.test"], "rawMessage": raw("routes@rcpt.test")}


async def address(_: RestDoor, __: Path) -> dict[str, Any]:
    return {"address": "listed@x.test", "reason": "asked for it"}


async def target(_: RestDoor, folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "copy.tar.gz")}


# (method, template): (path, body, shape, who, success)
ROUTES: dict[tuple[str, str], list[tuple[str, Body, str, str, int]]] = {
    ("GET", "/healthz"): [("/healthz", none, PLAIN, ANYONE, 200)],
    ("GET", "/readyz"): [("/readyz", none, PLAIN, ANYONE, 200)],
    ("GET", "/metrics"): [("/metrics", none, PLAIN, ANYONE, 200)],
    ("GET", "/status"): [("/status", none, SINGLE, ORGANISATION, 200)],
    ("POST", "/control/reload"): [("/control/reload", none, SINGLE, ORGANISATION, 200)],
    ("GET", "/control/plan"): [("/control/plan", none, SINGLE, ORGANISATION, 200)],
    ("POST", "/control/backup"): [("/control/backup", target, SINGLE, ORGANISATION, 200)],
    ("GET", "/control/db"): [("/control/db", none, SINGLE, ORGANISATION, 200)],
    ("POST", "/control/db/{verb:check|prune|vacuum}"): [
        (f"/control/db/{verb}", none, SINGLE, ORGANISATION, 200) for verb in ("check", "prune", "vacuum")
    ],
    ("GET", "/queue"): [("/queue?status=held&perPage=2", none, PAGE, TENANT, 200)],
    ("POST", "/queue/{verb:retry|hold|release|delete|flush}"): [
        *((f"/queue/{verb}", one_id, SINGLE, TENANT, 200) for verb in ("hold", "release", "retry", "delete")),
        ("/queue/flush", flush_nothing, SINGLE, TENANT, 200),
    ],
    ("GET", "/why"): [("/why?q={id}", none, SINGLE, FOREIGN, 200)],
    ("GET", "/events"): [("/events?after=0&limit=1", none, SINGLE, TENANT, 200)],
    ("GET", "/emails"): [("/emails?perPage=1", none, PAGE, TENANT, 200)],
    ("POST", "/emails/raw"): [("/emails/raw", message, SINGLE, TENANT, 200)],
    ("GET", "/emails/{id}"): [("/emails/{id}?expand=full", none, SINGLE, FOREIGN, 200)],
    ("GET", "/emails/{id}/deliveries"): [("/emails/{id}/deliveries", none, SINGLE, FOREIGN, 200)],
    ("POST", "/emails/{id}/retry"): [("/emails/{id}/retry", none, SINGLE, FOREIGN, 200)],
    ("GET", "/tenants/{tenant}/suppressions"): [("/tenants/acme/suppressions", none, PAGE, FOREIGN, 200)],
    ("POST", "/tenants/{tenant}/suppressions"): [("/tenants/acme/suppressions", address, SINGLE, FOREIGN, 201)],
    ("GET", "/tenants/{tenant}/suppressions/{email}"): [
        ("/tenants/acme/suppressions/who@x.test", none, SINGLE, FOREIGN, 200)
    ],
    ("DELETE", "/tenants/{tenant}/suppressions/{email}"): [
        ("/tenants/acme/suppressions/{listed}", none, SINGLE, FOREIGN, 200)
    ],
    ("GET", "/tenants/{tenant}/domains/{domain}"): [
        ("/tenants/acme/domains/sender.test", none, SINGLE, FOREIGN, 200)
    ],
    ("POST", "/tenants/{tenant}/domains/{domain}/verify"): [
        ("/tenants/acme/domains/sender.test/verify", none, SINGLE, FOREIGN, 200)
    ],
}
CASES = [
    pytest.param(method, *case, id=f"{method} {case[0].partition('?')[0]}")
    for (method, _), cases in ROUTES.items()
    for case in cases
]


async def test_no_route_is_forgotten_here() -> None:
    assert set(ROUTES) == {(method, path) for method, path, _ in (*API, *HEALTH, *METRICS)}


async def fill(path: str, door: RestDoor) -> str:
    if "{id}" in path:
        return path.replace("{id}", await door.held("routes"))
    if "{listed}" in path:
        await door.ask("POST", "/v1/tenants/acme/suppressions", {"address": "listed@x.test"})
        return path.replace("{listed}", "listed@x.test")
    return path


@pytest.mark.parametrize(("method", "path", "body", "shape", "who", "success"), CASES)
@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_each_route_answers_in_its_shape(
    door: RestDoor,
    tmp_path: Path,
    prefix: str,
    method: str,
    path: str,
    body: Body,
    shape: str,
    who: str,
    success: int,
) -> None:
    if who == ANYONE and prefix:
        assert (await door.ask(method, prefix + path)).status == 404
        return
    keys = [door.key] if who in {ORGANISATION, ANYONE} else [door.key, ACME_KEY]
    for number, key in enumerate(keys):
        folder = tmp_path / str(number)
        folder.mkdir()
        answer = await door.ask(method, prefix + await fill(path, door), await body(door, folder), key=key)
        assert answer.status == success, answer.text
        assert answer.headers["X-Request-Id"].startswith("req_")
        assert answer.headers["Server"] == "arkrelay"
        if shape == PLAIN:
            assert answer.headers["Content-Type"].startswith("text/plain")
            continue
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.body["meta"]["requestId"] == answer.headers["X-Request-Id"]
        assert answer.headers["Cache-Control"] == "no-store"
        if shape == SINGLE:
            assert set(answer.body) == {"success", "data", "meta"}
            assert answer.body["success"] is True
        else:
            assert set(answer.body) == {"data", "page", "perPage", "total", "totalPages", "meta"}


@pytest.mark.parametrize(("method", "path", "body", "shape", "who", "success"), CASES)
async def test_each_route_knows_who_may_ask(
    door: RestDoor, tmp_path: Path, method: str, path: str, body: Body, shape: str, who: str, success: int
) -> None:
    path, content = await fill(path, door), await body(door, tmp_path)
    without = await door.ask(method, path, content, key=None)
    if who == ANYONE:
        assert without.status == success
        return
    assert (without.status, without.code) == (401, "authentication_required")
    foreign = await door.ask(method, path, content, key=OTHER_KEY)
    if who == ORGANISATION:
        assert (foreign.status, foreign.code) == (403, "permission_denied")
    elif who == FOREIGN:
        assert (foreign.status, foreign.code) == (404, "not_found")
    elif path == "/emails/raw":
        assert (foreign.status, foreign.code) == (422, "domain_not_verified")
    elif path.startswith("/queue/"):
        assert foreign.data == {"count": 0}
    else:
        assert "acme" not in foreign.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/emails/", 404, "not_found"),
        ("GET", "//v1/emails", 404, "not_found"),
        ("GET", "/v1/../v1/nothing", 404, "not_found"),
        ("POST", "/v1/queue/explode", 404, "not_found"),
        ("POST", "/v1/control/db/drop", 404, "not_found"),
        ("PUT", "/v1/emails", 405, "method_not_allowed"),
        ("DELETE", "/v1/status", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/emails", 405, "method_not_allowed"),
        ("TRACE", "/v1/emails", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_are_told_to_those_who_have_a_key(
    door: RestDoor, method: str, path: str, status: int, code: str
) -> None:
    answer = await door.ask(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert ("Allow" in answer.headers) is (status == 405)
    without = await door.ask(method, path, key=None)
    assert (without.status, without.code) == (401, "authentication_required")


@pytest.mark.parametrize("path", ["/healthz", "/v1/status", "/status", "/v1/emails"])
async def test_head_is_get_without_the_body(door: RestDoor, path: str) -> None:
    answer = await door.ask("HEAD", path)
    assert answer.status == 200
    assert answer.text == ""
    assert int(answer.headers["Content-Length"]) > 0


async def test_a_listener_serves_what_it_is_told_to_and_no_more(door: RestDoor) -> None:
    assert (await door.ask("GET", "/metrics", key=None, base=door.metrics)).status == 200
    assert (await door.ask("GET", "/healthz", key=None, base=door.metrics)).status == 200
    assert (await door.ask("GET", "/v1/status", base=door.metrics)).status == 404
