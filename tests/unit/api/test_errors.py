"""Every exception has an answer in the contract's form, and a surprise of ours tells nothing of the inside."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from arkrelay.api.errors import answer_errors, error_response, finish_headers, new_request_id
from arkrelay.api.refusal import ApiError
from arkrelay.model.errors import ArkrelayError, Conflict, NotFound, Refused, StoreError, StoreFull


@asynccontextmanager
async def answering(error: Callable[[], Exception]) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async def handler(_: web.Request) -> web.Response:
        raise error()

    app = web.Application(middlewares=[answer_errors])
    app.on_response_prepare.append(finish_headers)
    app.router.add_get("/x", handler)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_surprise_is_a_500_whose_id_stands_beside_the_traceback() -> None:
    with structlog.testing.capture_logs() as logs:
        async with answering(lambda: RuntimeError("the inside: /var/lib/secret")) as client:
            response = await client.get("/x")
            answer = await response.text()
    assert response.status == 500
    assert "inside" not in answer
    assert "secret" not in answer
    assert "Runtime" not in answer
    body = json.loads(answer)
    assert body["error"]["code"] == "internal_error"
    (line,) = [entry for entry in logs if entry["event"] == "request_crashed"]
    assert line["request_id"] == body["meta"]["requestId"] == response.headers["X-Request-Id"]
    assert line["exc_info"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (ApiError(418, "teapot", "No."), 418, "teapot", None),
        (NotFound("there is no message x"), 404, "not_found", None),
        (Conflict("it is sent"), 409, "conflict", "false"),
        (Refused(550, "5.7.1", "not verified", "from"), 422, "domain_not_verified", None),
        (Refused(550, "5.6.0", "no From", "rawMessage"), 422, "validation_error", None),
        (Refused(452, "4.5.3", "too much this month"), 422, "send_limit_exceeded", None),
        (Refused(452, "4.3.1", "no room"), 507, "insufficient_storage", None),
        (Refused(421, "4.3.2", "stopping"), 503, "unavailable", None),
        (Refused(535, "5.7.8", "gone"), 401, "expired_api_key", None),
        (StoreFull("no room at /var/lib"), 507, "insufficient_storage", None),
        (StoreError("SELECT secret FROM x"), 503, "store_unavailable", None),
        (ArkrelayError("something known"), 422, "validation_error", None),
        (web.HTTPNotFound(), 404, "not_found", None),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), 405, "method_not_allowed", None),
        (web.HTTPUnsupportedMediaType(), 415, "validation_error", None),
    ],
)
async def test_each_exception_has_its_answer(error: Exception, status: int, code: str, retry: str | None) -> None:
    async with answering(lambda: error) as client:
        response = await client.get("/x")
        body = await response.json()
    assert (response.status, body["success"], body["error"]["code"]) == (status, False, code)
    assert response.headers.get("x-should-retry") == retry
    assert body["meta"]["requestId"] == response.headers["X-Request-Id"]
    assert "SELECT" not in body["error"]["message"]
    assert "/var" not in body["error"]["message"]


async def test_an_unknown_expectation_has_a_request_id_too() -> None:
    async with answering(lambda: NotFound("x")) as client:
        response = await client.get("/x", headers={"Expect": "miracles"})
    assert response.status == 417
    assert response.headers["X-Request-Id"].startswith("req_")


def test_a_refusal_that_closes_says_so_and_when_to_come_back() -> None:
    response = error_response(ApiError(429, "rate_limit_exceeded", "Slower.", retry_after_s=7, close=True), "req_1")
    assert response.headers["Retry-After"] == "7"
    assert response.keep_alive is False


def test_request_ids_are_16_url_safe_characters() -> None:
    assert len({new_request_id() for _ in range(100)}) == 100
    assert len(new_request_id()) == len("req_") + 16
