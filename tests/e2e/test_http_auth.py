"""Who may ask: keys, the control socket's peers, guesses, and that no key is ever told."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from peers.restdoor import ACME_KEY, GONE_KEY, SMTP_KEY, STRANGER, RestDoor, open_rest_door

from arkrelay.base.log import GATHER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = 65534
ASK = """
import os, socket, sys
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n" + sys.argv[2].encode() + b"\\r\\n")
print(s.makefile("rb").readline().decode().split()[1])
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("auth")) as opened:
        yield opened


async def test_an_organisation_key_opens_everything_and_a_tenants_its_own(door: RestDoor) -> None:
    assert (await door.ask("GET", "/v1/status")).status == 200
    assert (await door.ask("GET", "/v1/emails", key=ACME_KEY)).status == 200
    assert (await door.ask("GET", "/v1/status", key=ACME_KEY)).code == "permission_denied"


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        pytest.param("Basic YTpi", 401, "authentication_required", id="basic"),
        pytest.param("Bearer", 401, "authentication_required", id="no-key"),
        pytest.param("Bearer   ", 401, "authentication_required", id="blank-key"),
        pytest.param(ACME_KEY, 401, "authentication_required", id="no-scheme"),
        pytest.param("Bearer ark_live_unknown", 401, "invalid_api_key", id="unknown"),
        pytest.param(f"Bearer {ACME_KEY[:-1]}", 401, "invalid_api_key", id="cut-off"),
        pytest.param(f"Bearer {ACME_KEY.upper()}", 401, "invalid_api_key", id="other-case"),
        pytest.param(f"Bearer {SMTP_KEY}", 401, "invalid_api_key", id="smtp-password"),
        pytest.param("Bearer \u00e4\u00f6", 401, "invalid_api_key", id="not-ascii"),
        pytest.param("Bearer " + "x" * 8000, 401, "invalid_api_key", id="long"),
        pytest.param(f"Bearer {GONE_KEY}", 403, "tenant_suspended", id="suspended-tenant"),
        pytest.param(f"bearer  {ACME_KEY} ", 200, "", id="any-case-and-spaces"),
    ],
)
async def test_only_a_known_bearer_key_opens(door: RestDoor, authorization: str, status: int, code: str) -> None:
    answer = await door.ask("GET", "/v1/emails", key=None, headers={"Authorization": authorization})
    assert answer.status == status
    if code:
        assert answer.code == code


async def test_a_removed_key_is_refused_after_the_reload(door: RestDoor) -> None:
    extra = "ark_live_extra-0123456789abcdef"
    path = door.relay.folder / "tenants" / "other.toml"
    before = path.read_text()
    path.write_text(before + f'[[credentials]]\nname = "extra"\ntype = "api"\nsecret = "{extra}"\n')
    assert (await door.ask("POST", "/v1/control/reload")).status == 200
    assert (await door.ask("GET", "/v1/emails", key=extra)).status == 200
    path.write_text(before)
    assert (await door.ask("POST", "/v1/control/reload")).status == 200
    assert (await door.ask("GET", "/v1/emails", key=extra)).status == 401


async def test_a_broken_file_is_told_with_every_problem_and_changes_nothing(door: RestDoor) -> None:
    path = door.relay.folder / "tenants" / "other.toml"
    before = path.read_text()
    path.write_text('nome = "x"\n')
    for method, asked in (("GET", "/v1/control/plan"), ("POST", "/v1/control/reload")):
        answer = await door.ask(method, asked)
        assert (answer.status, answer.code) == (422, "validation_error")
        assert {problem["file"] for problem in answer.body["problems"]} == {str(path)}
        assert answer.body["meta"]["requestId"] == answer.headers["X-Request-Id"]
    path.write_text(before)
    assert (await door.ask("POST", "/v1/control/reload")).data == {"changes": [], "restart": []}


async def test_an_address_that_guesses_is_not_listened_to_for_a_while(door: RestDoor) -> None:
    for _ in range(30):
        answer = await door.ask("GET", "/v1/emails", key="wrong", source=STRANGER)
        assert answer.status == 401
    for key in ("wrong", door.key):
        answer = await door.ask("GET", "/v1/emails", key=key, source=STRANGER)
        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert (await door.ask("GET", "/healthz", key=None, source=STRANGER)).status == 200
    assert (await door.ask("GET", "/v1/emails")).status == 200


async def test_who_is_trusted_may_err_as_often_as_he_likes(door: RestDoor) -> None:
    for _ in range(40):
        assert (await door.ask("GET", "/v1/emails", key="wrong")).status == 401


async def test_the_control_socket_is_for_root_and_the_service(door: RestDoor) -> None:
    socket = door.relay.socket
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert (await door.ask("GET", "/v1/status", key=None, socket=socket)).status == 200
    assert (await door.ask("GET", "/v1/status", key=ACME_KEY, socket=socket)).status == 403  # a key narrows


async def test_another_unix_socket_believes_keys_only(door: RestDoor) -> None:
    assert stat.S_IMODE(door.unix.stat().st_mode) == 0o660
    assert (await door.ask("GET", "/v1/status", key=None, socket=door.unix)).status == 401
    assert (await door.ask("GET", "/v1/status", socket=door.unix)).status == 200


async def asked_by(uid: int, socket: Path, header: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", ASK.format(uid=uid, gid=uid), str(socket), header, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    return out.decode().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_needs_a_key_even_where_the_socket_lets_him_in(door: RestDoor) -> None:
    socket = door.relay.socket
    assert await asked_by(0, socket) == "200"
    folders = [folder for folder in socket.parents if folder.stat().st_mode & 0o001 == 0]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (socket, *folders)}
    assert await asked_by(NOBODY, socket) == ""  # no way to the socket at all
    try:
        for path, mode in modes.items():
            path.chmod(0o666 if path is socket else mode | 0o001)
        assert await asked_by(NOBODY, socket) == "401"
        assert await asked_by(NOBODY, socket, f"Authorization: Bearer {door.key}\r\n") == "200"
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert [line["uid"] for line in await door.relay.logged("peer_refused")] == [NOBODY]


async def test_no_key_is_in_the_log_or_in_an_answer(door: RestDoor) -> None:
    wrong = "ark_live_wrong-key-that-somebody-typed"
    plain = "hand-made-wrong-key"
    answers = [
        await door.ask("GET", "/v1/emails", key=wrong),
        await door.ask("GET", "/v1/emails", key=plain),
        await door.ask("GET", "/v1/status", key=ACME_KEY),
        await door.ask("GET", "/v1/status"),
        await door.ask("GET", "/v1/control/plan"),
        await door.ask("GET", "/metrics", key=wrong),
    ]
    await asyncio.sleep(GATHER_S)
    await door.ask("GET", "/v1/status", key=door.key)  # by its answer all is written that was gathered
    await door.relay.logged("key_refused")
    log = door.relay.log.read_text()
    for secret in (wrong, plain, ACME_KEY, GONE_KEY, SMTP_KEY, door.key):
        assert secret not in log
        assert all(secret not in answer.text for answer in answers)
