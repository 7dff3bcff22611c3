"""Every operation of the HTTP door is asked here, by those who may and those who may not.

``EXAMPLES`` has one line for each: a new operation without one fails the first test.
"""

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

import pytest
import pytest_asyncio
from aiohttp import web
from peers.restdoor import ACME_KEY, OTHER_KEY, Answer, RestDoor, open_rest_door, raw

from arkrelay.api.model import Page
from arkrelay.api.operation import Operation
from arkrelay.api.routes import OPERATIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("routes")) as opened:
        yield opened


ORGANISATION = "organisation"  # a tenant's key is 403
TENANT = "tenant"  # a tenant's key gets its own
FOREIGN = "foreign"  # a tenant's key gets its own by id, and a foreign id is as unknown as an unknown one
Made = Mapping[str, str]  # what was made for the same path already
Maker = Callable[[RestDoor, Made], Awaitable[str]]
Body = Callable[[RestDoor, Path], Awaitable[dict[str, Any] | None]]


async def none(_: RestDoor, __: Path) -> None:
    return None


def always(**body: Any) -> Body:
    async def made(_: RestDoor, __: Path) -> dict[str, Any]:
        return body

    return made


async def one_id(door: RestDoor, _: Path) -> dict[str, Any]:
    return {"ids": [await door.held("queue")]}


async def batch(_: RestDoor, __: Path) -> dict[str, Any]:
    return {"from": "app@sender.test", "emails": [{"to": ["routes@rcpt.test"], "subject": "x", "text": "x"}]}


async def target(_: RestDoor, folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "copy.tar.gz")}


async def again(door: RestDoor, _: Path) -> dict[str, Any]:
    return {"since": 0, "webhookId": await a_webhook(door, {})}


async def new_track_domain(door: RestDoor, _: Path) -> dict[str, Any]:
    return {"domainId": int(await a_domain(door, {})), "name": "track"}


def fresh(prefix: str, suffix: str = "", **body: Any) -> Body:
    """A body with a name that nothing has."""

    async def made(_: RestDoor, __: Path) -> dict[str, Any]:
        return {"name": new(prefix, suffix), **body}

    return made


def hides_acme(answer: Answer) -> bool:
    return "acme" not in answer.text


def nothing_done(answer: Answer) -> bool:
    return bool(answer.data == {"count": 0})


def nothing_found(answer: Answer) -> bool:
    return bool(answer.body["data"] == [])


def not_its_domain(answer: Answer) -> bool:
    return (answer.status, answer.code) == (422, "domain_not_verified")


LETTER: dict[str, Any] = {"from": "app@sender.test", "to": ["routes@rcpt.test"]}
HOOK: dict[str, Any] = {"name": "routes", "url": "https://nobody.rcpt.test/hook", "events": ["MessageBounced"]}
EVENT = {"event": "MessageSent"}


@dataclass(frozen=True)
class Example:
    """A request that succeeds, on the operation's own path; ``makers`` make what stands in its braces.

    ``foreign`` looks at what another tenant's key gets for it where ``who`` is TENANT.
    """

    who: str
    query: str = ""
    body: Body = none
    makers: Mapping[str, Maker] = field(default_factory=dict)
    foreign: Callable[[Answer], bool] = hides_acme


async def make(door: RestDoor, path: str, body: dict[str, Any], name: str = "id") -> str:
    """Return the id of something new."""
    answer = await door.ask("POST", f"/v1{path}", body)
    assert answer.status in {200, 201}, answer.text
    return str(answer.data[name])


_numbers = itertools.count()


def new(prefix: str, suffix: str = "") -> str:
    """Return a name that nothing has."""
    return f"{prefix}{next(_numbers)}{suffix}"


async def acme(_: RestDoor, __: Made) -> str:
    return "acme"


async def a_tenant(door: RestDoor, _: Made) -> str:
    return await make(door, "/tenants", {"name": new("Tenant ")})


async def a_credential(door: RestDoor, _: Made) -> str:
    return await make(door, "/tenants/acme/credentials", {"name": new("c"), "type": "api"})


async def a_domain(door: RestDoor, _: Made) -> str:
    return await make(door, "/tenants/acme/domains", {"name": new("d", ".routes.test")})


async def a_track_domain(door: RestDoor, made: Made) -> str:
    return await make(door, "/tenants/acme/tracking", {"name": "track", "domainId": int(await a_domain(door, made))})


async def a_webhook(door: RestDoor, _: Made) -> str:
    return await make(door, "/tenants/acme/webhooks", HOOK)


async def a_platform_webhook(door: RestDoor, _: Made) -> str:
    return await make(door, "/platform/webhooks", HOOK)


async def a_delivery(door: RestDoor, made: Made) -> str:
    """Return a delivery of the webhook in the path."""
    return await make(door, f"/tenants/acme/webhooks/{made['webhookId']}/test", EVENT, "deliveryId")


async def a_platform_delivery(door: RestDoor, made: Made) -> str:
    hook = await a_platform_webhook(door, made)
    return await make(door, f"/platform/webhooks/{hook}/test", EVENT, "deliveryId")


async def an_email(door: RestDoor, _: Made) -> str:
    return await door.held("routes")


async def an_address(_: RestDoor, __: Made) -> str:
    return "who@x.test"


async def listed(door: RestDoor, _: Made) -> str:
    await door.ask("POST", "/v1/tenants/acme/suppressions", {"address": "listed@x.test"})
    return "listed@x.test"


async def a_request(door: RestDoor, _: Made) -> str:
    answer = await door.ask("GET", "/v1/emails?perPage=1", key=ACME_KEY)
    return answer.headers["X-Request-Id"]


async def a_lane(_: RestDoor, __: Made) -> str:
    return "site.test"


MAKERS: dict[str, Maker] = {
    "lane": a_lane,
    "requestId": a_request,
    "tenantId": acme,
    "emailId": an_email,
    "email": an_address,
    "credentialId": a_credential,
    "domainId": a_domain,
    "trackingId": a_track_domain,
    "webhookId": a_webhook,
    "deliveryId": a_delivery,
}
PLATFORM: dict[str, Maker] = {"webhookId": a_platform_webhook, "deliveryId": a_platform_delivery}
UNKNOWN = {"tenantId": "nobody", "emailId": "A" * 24, "requestId": "req_" + "A" * 16}
OF_ACME = {"credentialId", "domainId", "trackingId", "webhookId"}
EXAMPLES: dict[str, Example] = {
    "emails.send": Example(TENANT, body=always(**LETTER, subject="x", text="x"), foreign=not_its_domain),
    "emails.send_batch": Example(TENANT, body=batch, foreign=not_its_domain),
    "emails.send_raw": Example(
        TENANT, body=always(**LETTER, rawMessage=raw("routes@rcpt.test")), foreign=not_its_domain
    ),
    "emails.list": Example(TENANT, "perPage=1"),
    "emails.retrieve": Example(FOREIGN, "expand=full"),
    "emails.retrieve_deliveries": Example(FOREIGN),
    "emails.retry": Example(FOREIGN),
    "emails.why": Example(FOREIGN),
    "emails.list_reports": Example(FOREIGN),
    "lanes.list": Example(ORGANISATION),
    "lanes.sources": Example(ORGANISATION),
    "doctor.retrieve": Example(ORGANISATION),
    "lanes.rest": Example(ORGANISATION),
    "lanes.resume": Example(ORGANISATION),
    "lanes.limit": Example(ORGANISATION, body=always(connections=3)),
    "queue.list": Example(TENANT, "status=held&perPage=2"),
    "queue.retry": Example(TENANT, body=one_id, foreign=nothing_done),
    "queue.flush": Example(TENANT, body=always(domain="nothing.test"), foreign=nothing_done),
    "queue.hold": Example(TENANT, body=one_id, foreign=nothing_done),
    "queue.release": Example(TENANT, body=one_id, foreign=nothing_done),
    "queue.delete": Example(TENANT, body=one_id, foreign=nothing_done),
    "why.retrieve": Example(FOREIGN, "q={emailId}"),
    "explain.retrieve": Example(TENANT, "reply=550+5.7.1+spam&provider=google"),
    "events.list": Example(TENANT, "after=0&limit=1"),
    "status.retrieve": Example(ORGANISATION),
    "control.reload": Example(ORGANISATION),
    "control.plan": Example(ORGANISATION),
    "control.tls": Example(ORGANISATION),
    "control.webhooks": Example(ORGANISATION),
    "control.replay_webhooks": Example(ORGANISATION, body=again),
    "control.backup": Example(ORGANISATION, body=target),
    "control.db.retrieve": Example(ORGANISATION),
    "control.db.check": Example(ORGANISATION),
    "control.db.prune": Example(ORGANISATION),
    "control.db.vacuum": Example(ORGANISATION),
    "tenants.create": Example(ORGANISATION, body=fresh("Tenant ")),
    "tenants.list": Example(ORGANISATION),
    "tenants.retrieve": Example(FOREIGN),
    "tenants.update": Example(ORGANISATION, body=always(metadata={"plan": "pro"}), makers={"tenantId": a_tenant}),
    "tenants.delete": Example(ORGANISATION, makers={"tenantId": a_tenant}),
    "tenants.credentials.create": Example(FOREIGN, body=fresh("c", type="smtp")),
    "tenants.credentials.list": Example(FOREIGN),
    "tenants.credentials.retrieve": Example(FOREIGN, "reveal=true"),
    "tenants.credentials.update": Example(FOREIGN, body=always(hold=True)),
    "tenants.credentials.delete": Example(FOREIGN),
    "tenants.domains.create": Example(FOREIGN, body=fresh("d", ".routes.test")),
    "tenants.domains.list": Example(FOREIGN),
    "tenants.domains.retrieve": Example(FOREIGN),
    "tenants.domains.delete": Example(FOREIGN),
    "tenants.domains.verify": Example(FOREIGN),
    "tenants.tracking.create": Example(FOREIGN, body=new_track_domain),
    "tenants.tracking.list": Example(FOREIGN),
    "tenants.tracking.retrieve": Example(FOREIGN),
    "tenants.tracking.update": Example(FOREIGN, body=always(trackOpens=False)),
    "tenants.tracking.delete": Example(FOREIGN),
    "tenants.tracking.verify": Example(FOREIGN),
    "tenants.suppressions.create": Example(FOREIGN, body=always(address="listed@x.test", reason="asked for it")),
    "tenants.suppressions.list": Example(FOREIGN),
    "tenants.suppressions.undo": Example(FOREIGN, body=always(cause="failure", dryRun=True)),
    "tenants.suppressions.import": Example(FOREIGN, body=always(entries=[{"address": "routes@rcpt.test"}])),
    "tenants.suppressions.retrieve": Example(FOREIGN),
    "tenants.suppressions.delete": Example(FOREIGN, makers={"email": listed}),
    "tenants.webhooks.create": Example(FOREIGN, body=always(**HOOK)),
    "tenants.webhooks.list": Example(FOREIGN),
    "tenants.webhooks.retrieve": Example(FOREIGN),
    "tenants.webhooks.update": Example(FOREIGN, body=always(name="other")),
    "tenants.webhooks.delete": Example(FOREIGN),
    "tenants.webhooks.list_deliveries": Example(FOREIGN),
    "tenants.webhooks.retrieve_delivery": Example(FOREIGN),
    "tenants.webhooks.replay_delivery": Example(FOREIGN),
    "tenants.webhooks.test": Example(FOREIGN, body=always(**EVENT)),
    "tenants.usage.retrieve": Example(FOREIGN),
    "tenants.usage.retrieve_timeseries": Example(FOREIGN, "granularity=day&period=today"),
    "usage.retrieve": Example(ORGANISATION),
    "usage.list_tenants": Example(ORGANISATION),
    "usage.export": Example(ORGANISATION, "format=csv"),
    "limits.retrieve": Example(TENANT),
    "logs.list": Example(TENANT, "requestId={requestId}", foreign=nothing_found),
    "logs.retrieve": Example(FOREIGN),
    "platform.webhooks.create": Example(ORGANISATION, body=always(**HOOK)),
    "platform.webhooks.list": Example(ORGANISATION),
    "platform.webhooks.list_deliveries": Example(ORGANISATION),
    "platform.webhooks.retrieve_delivery": Example(ORGANISATION, makers=PLATFORM),
    "platform.webhooks.replay_delivery": Example(ORGANISATION, makers=PLATFORM),
    "platform.webhooks.retrieve": Example(ORGANISATION, makers=PLATFORM),
    "platform.webhooks.update": Example(ORGANISATION, body=always(enabled=False), makers=PLATFORM),
    "platform.webhooks.delete": Example(ORGANISATION, makers=PLATFORM),
    "platform.webhooks.test": Example(ORGANISATION, body=always(**EVENT), makers=PLATFORM),
}
KNOWN = [operation for operation in OPERATIONS if operation.name in EXAMPLES]
CASES = [pytest.param(operation, EXAMPLES[operation.name], id=operation.name) for operation in KNOWN]


async def test_every_operation_has_an_example_here() -> None:
    assert [operation.name for operation in OPERATIONS if operation.name not in EXAMPLES] == []
    assert set(EXAMPLES) <= {operation.name for operation in OPERATIONS}


async def test_each_operation_has_a_name_and_a_path_of_its_own() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


async def filled(operation: Operation, example: Example, door: RestDoor, **known: str) -> str:
    """Return the path of a request, with everything made that stands in braces."""
    path = f"{operation.path}?{example.query}" if example.query else operation.path
    made: dict[str, str] = {}
    for name in re.findall(r"\{(\w+)\}", path):
        maker = {**MAKERS, **example.makers}[name]
        made[name] = known.get(name) or await maker(door, made)
        path = path.replace(f"{{{name}}}", made[name])
    return path


@pytest.mark.parametrize(("operation", "example"), CASES)
async def test_each_operation_answers_in_its_shape(
    door: RestDoor, tmp_path: Path, operation: Operation, example: Example
) -> None:
    for number, key in enumerate([door.key] if example.who == ORGANISATION else [door.key, ACME_KEY]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, body = await filled(operation, example, door), await example.body(door, folder)
        answer = await door.ask(operation.method, f"/v1{path}", body, key=key)
        assert answer.status == operation.status, answer.text
        assert answer.headers["X-Request-Id"].startswith("req_")
        assert answer.headers["Server"] == "arkrelay"
        result = operation.types[2]
        if isinstance(result, type) and issubclass(result, web.StreamResponse):
            continue  # a file
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.body["meta"]["requestId"] == answer.headers["X-Request-Id"]
        assert answer.headers["Cache-Control"] == "no-store"
        if get_origin(result) is Page:
            assert set(answer.body) >= {"data", "page", "perPage", "total", "totalPages", "meta"}
            assert "success" not in answer.body
        else:
            assert set(answer.body) == {"success", "data", "meta"}
            assert answer.body["success"] is True


@pytest.mark.parametrize(("operation", "example"), CASES)
async def test_each_operation_knows_who_may_ask(
    door: RestDoor, tmp_path: Path, operation: Operation, example: Example
) -> None:
    method = operation.method
    path, body = await filled(operation, example, door), await example.body(door, tmp_path)
    without = await door.ask(method, path, body, key=None)
    assert (without.status, without.code) == (401, "authentication_required")
    foreign = await door.ask(method, path, body, key=OTHER_KEY)
    if example.who == ORGANISATION:
        assert (foreign.status, foreign.code) == (403, "permission_denied")
    elif example.who == TENANT:
        assert foreign.status < 500
        assert example.foreign(foreign), foreign.text
    else:
        assert (foreign.status, foreign.code) == (404, "not_found")
        unknown = await door.ask(method, await filled(operation, example, door, **UNKNOWN), body, key=OTHER_KEY)
        assert (unknown.status, unknown.code) == (404, "not_found")
        assert set(unknown.body["error"]) == set(foreign.body["error"])
    if OF_ACME & set(re.findall(r"\w+", operation.path)) and example.who == FOREIGN:
        crossed = await filled(operation, example, door, tenantId="other")
        answer = await door.ask(method, crossed, body, key=OTHER_KEY)  # what is acme's, asked for as other's
        assert (answer.status, answer.code) == (404, "not_found")
    stands = await door.ask(method, path, body)  # at the root too, and the others have changed nothing
    assert stands.status == operation.status, stands.text


async def test_open_paths_need_no_key_and_have_no_version(door: RestDoor) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        answer = await door.ask("GET", path, key=None)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["X-Request-Id"].startswith("req_")
        assert (await door.ask("GET", f"/v1{path}")).status == 404


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
