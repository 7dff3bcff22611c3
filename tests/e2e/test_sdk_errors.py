"""What the official client makes of a refusal: which exception, what it says, and how often the client asked."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import ark
import pytest
import pytest_asyncio
from peers.arkclient import code
from peers.arkdoor import ACME_KEY, HOURLY, OTHER_KEY, SMTP_KEY, ArkDoor, mailbox, open_ark_door, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = pytest.mark.parametrize("sync", [pytest.param(True, id="sync"), pytest.param(False, id="async")])
ORGANISATION = ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("errors")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    """Give a relay that takes one request a second from each key."""
    async with open_ark_door(tmp_path_factory.mktemp("slow"), requests_per_s=1) as opened:
        yield opened


def letter(**more: Any) -> dict[str, Any]:
    return {"from_": "app@sender.test", "to": [mailbox("err")], "subject": "hello", "text": "Hello.", **more}


@BOTH
@pytest.mark.parametrize(
    ("key", "name", "args", "kwargs", "error", "told", "field"),
    [
        pytest.param(ORGANISATION, "emails.send", (), letter(to=["bob"]), ark.BadRequestError,
                     "invalid_email_format", "to[0]", id="bad-address"),
        pytest.param(ORGANISATION, "emails.send", (), letter(to=[]), ark.BadRequestError,
                     "validation_error", "to", id="nobody"),
        pytest.param(ORGANISATION, "emails.list", (), {"per_page": 101}, ark.BadRequestError,
                     "validation_error", "perPage", id="page-too-long"),
        pytest.param("ark_live_nobody", "emails.list", (), {}, ark.AuthenticationError,
                     "invalid_api_key", None, id="unknown-key"),
        pytest.param(SMTP_KEY, "emails.list", (), {}, ark.AuthenticationError,
                     "invalid_api_key", None, id="smtp-key"),
        pytest.param(ACME_KEY, "platform.webhooks.list", (), {}, ark.PermissionDeniedError,
                     "permission_denied", None, id="tenant-key-on-platform"),
        pytest.param(ACME_KEY, "tenants.create", (), {"name": "Mine"}, ark.PermissionDeniedError,
                     "permission_denied", None, id="tenant-key-makes-tenant"),
        pytest.param(ORGANISATION, "emails.retrieve", ("nothing",), {}, ark.NotFoundError,
                     "not_found", None, id="unknown-email"),
        pytest.param(OTHER_KEY, "tenants.retrieve", ("acme",), {}, ark.NotFoundError,
                     "not_found", None, id="foreign-tenant"),
        pytest.param(ORGANISATION, "tenants.domains.create", ("acme",), {"name": "sender.test"}, ark.ConflictError,
                     "already_exists", None, id="domain-twice"),
        pytest.param(OTHER_KEY, "emails.send", (), letter(), ark.UnprocessableEntityError,
                     "domain_not_verified", "from", id="foreign-domain"),
    ],
)  # fmt: skip
async def test_each_refusal_is_its_exception_and_asked_once(
    door: ArkDoor,
    sync: bool,
    key: str,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: type[ark.APIStatusError],
    told: str,
    field: str | None,
) -> None:
    api = door.api(sync=sync, key=key)
    with pytest.raises(error) as refused:
        await api(name, *args, **kwargs)
    body: Any = refused.value.body
    assert body["success"] is False
    assert (code(refused.value), body["error"].get("field")) == (told, field)
    assert body["error"]["message"]
    assert body["meta"]["requestId"] == refused.value.response.headers["X-Request-Id"]
    assert len(api.exchanges) == 1


@BOTH
async def test_too_many_requests_are_waited_for(slow: ArkDoor, sync: bool) -> None:
    api = slow.api(sync=sync)
    await api("limits.retrieve")
    began = time.monotonic()
    for _ in range(2):
        await api("limits.retrieve")
    assert time.monotonic() - began > 0.9
    statuses = [exchange.status for exchange in api.exchanges]
    assert statuses.count(200) == 3
    assert statuses.count(429) >= 2
    assert len(statuses) <= 3 * 3  # two retries each


@BOTH
async def test_too_many_requests_are_an_exception_in_the_end(slow: ArkDoor, sync: bool) -> None:
    api = slow.api(sync=sync, max_retries=0)
    with pytest.raises(ark.RateLimitError) as refused:
        await asyncio.gather(*(api("limits.retrieve") for _ in range(2)))
    assert code(refused.value) == "rate_limit_exceeded"
    headers = refused.value.response.headers
    assert (headers["Retry-After"], headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("1", "1", "0")
    assert "x-should-retry" not in headers


@BOTH
async def test_a_key_for_another_body_is_a_conflict_that_is_not_repeated(door: ArkDoor, sync: bool) -> None:
    api, key = door.api(sync=sync), unique("other-body")
    first = await api("emails.send", **letter(idempotency_key=key))
    with pytest.raises(ark.ConflictError) as refused:
        await api("emails.send", **letter(idempotency_key=key))
    assert code(refused.value) == "idempotency_conflict"
    assert [exchange.status for exchange in api.exchanges] == [200, 409]
    assert first.data.id


@BOTH
async def test_a_refused_request_may_use_its_key_again(door: ArkDoor, sync: bool) -> None:
    api, key = door.api(sync=sync), unique("corrected")
    given = letter(idempotency_key=key)
    with pytest.raises(ark.BadRequestError):
        await api("emails.send", **{**given, "to": ["nobody"]})
    assert (await api("emails.send", **given)).data.to == given["to"]


@BOTH
async def test_a_key_of_another_form_is_refused(door: ArkDoor, sync: bool) -> None:
    api = door.api(sync=sync)
    for key in ("", "a b", "x" * 256):
        with pytest.raises(ark.BadRequestError) as refused:
            await api("emails.send", **letter(idempotency_key=key))
        body: Any = refused.value.body
        assert body["error"]["field"] == "Idempotency-Key", key


@BOTH
async def test_every_post_knows_the_key(door: ArkDoor, sync: bool) -> None:
    api, headers = door.api(sync=sync), {"Idempotency-Key": unique("tenant")}
    made = [(await api("tenants.create", name="Twice", extra_headers=headers)).data for _ in range(2)]
    assert made[0] == made[1]
    assert (await api("tenants.delete", made[0].id)).data.deleted is True


async def test_one_key_at_once_is_one_message_for_every_client_that_waits(door: ArkDoor) -> None:
    """Some are told 409 while the first is under way; they ask again after Retry-After, and get its answer."""
    for _ in range(5):
        api = door.api(sync=False, max_retries=5)
        given = letter(idempotency_key=unique("at-once"), html="<p>long</p>" * 100_000)
        sent = await asyncio.gather(*(api("emails.send", **given) for _ in range(8)))
        assert len({one.data.id for one in sent}) == 1
        assert (await door.letter(given["to"][0])).recipients == given["to"]
        statuses = {exchange.status for exchange in api.exchanges}
        assert statuses <= {200, 409}
        if 409 in statuses:
            return
    pytest.fail("no request ever met another")


@BOTH
async def test_headers_tell_id_rate_and_send_limit(door: ArkDoor, sync: bool) -> None:
    api = door.api(sync=sync, key=ACME_KEY)
    now = time.time()
    answer = await api.raw("emails.send", **letter())
    headers = answer.headers
    assert headers["X-Request-Id"] == answer.parsed.meta.request_id
    assert int(headers["X-RateLimit-Limit"]) == 1000
    assert 0 <= int(headers["X-RateLimit-Remaining"]) < 1000
    assert now <= int(headers["X-RateLimit-Reset"]) <= now + 10
    used, remaining = int(headers["X-SendLimit-Used"]), int(headers["X-SendLimit-Remaining"])
    assert int(headers["X-SendLimit-Limit"]) == HOURLY
    assert used >= 1
    assert used + remaining == HOURLY
    assert now < int(headers["X-SendLimit-Reset"]) <= now + 3601
    assert int(headers["X-SendLimit-Reset"]) % 3600 == 0
    for name, args in (("emails.list", ()), ("tenants.retrieve", ("acme",))):
        read = await api.raw(name, *args)
        assert not [field for field in read.headers if field.lower().startswith("x-sendlimit")], name
        assert read.headers["X-RateLimit-Limit"] == "1000"


async def test_a_stream_is_read_like_any_answer(door: ArkDoor) -> None:
    client = door.api().client
    assert isinstance(client, ark.Ark)

    def read() -> tuple[int, Any]:
        with client.tenants.with_streaming_response.retrieve("acme") as response:
            return response.status_code, response.parse()

    status, tenant = await asyncio.to_thread(read)
    assert (status, tenant.data.id) == (200, "acme")


async def test_a_server_that_is_gone_is_a_connection_error(door: ArkDoor) -> None:
    client = ark.Ark(api_key=door.key, base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ark.APIConnectionError):
        await asyncio.to_thread(client.limits.retrieve)
    client.close()


@BOTH
async def test_the_loop_over_pages_ends_where_the_rows_do(door: ArkDoor, sync: bool) -> None:
    api = door.api(sync=sync)
    tenant = (await api("tenants.create", name=unique("Pages"))).data
    try:
        assert await api.all("tenants.suppressions.list", tenant.id, per_page=2) == []
        for count in (1, 2, 3, 4):
            await api("tenants.suppressions.create", tenant.id, address=mailbox("page"))
            before = api.count("tenants.suppressions.list")
            rows = await api.all("tenants.suppressions.list", tenant.id, per_page=2)
            assert len({row.id for row in rows}) == count
            assert api.count("tenants.suppressions.list") - before == -(-count // 2)
    finally:
        await api("tenants.delete", tenant.id)
