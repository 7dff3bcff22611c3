"""The official Python client, strict, over every operation: by /v1 and without it, sync and async."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("e2e.sdk")  # its assertions shall say what they compared

from e2e.sdk import domains, emails, figures, tenants, webhooks  # noqa: E402 -- only later imports are rewritten
from e2e.sdk.table import SCENES  # noqa: E402 -- likewise
from peers.arkclient import OPERATIONS, parameters  # noqa: E402 -- likewise
from peers.arkdoor import ArkDoor, open_ark_door  # noqa: E402 -- likewise

from arkrelay.api.routes import OPERATIONS as SERVED  # noqa: E402 -- likewise

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAYED = (domains, emails, figures, tenants, webhooks)  # importing them fills SCENES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("ark")) as opened:
        yield opened


async def test_no_operation_is_forgotten_here_or_by_the_daemon() -> None:
    assert len(OPERATIONS) == 58
    assert set(SCENES) == set(OPERATIONS)
    served = {operation.name: (operation.method, operation.path) for operation in SERVED}
    assert {name: served.get(name) for name in OPERATIONS} == OPERATIONS


@pytest.mark.parametrize(
    ("sync", "bare"),
    [
        pytest.param(True, False, id="sync"),
        pytest.param(False, False, id="async"),
        pytest.param(False, True, id="without-v1"),
    ],
)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_official_client_does_it(door: ArkDoor, name: str, sync: bool, bare: bool) -> None:
    api = door.api(sync=sync, bare=bare)
    await SCENES[name](api, door)
    done = [exchange for exchange in api.exchanges if exchange.operation == OPERATIONS[name]]
    assert any(exchange.status < 300 for exchange in done)
    assert {exchange.path.startswith("/v1/") for exchange in done} == {not bare}
    assert api.given[name] == parameters(api.client, name)
