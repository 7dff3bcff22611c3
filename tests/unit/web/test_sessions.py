"""Sessions end when they should, and a token is worth nothing to who reads our memory."""

from pathlib import Path

import pytest
from peers.configuration import Folder

from arkrelay.config.snapshot import Snapshot, digest
from arkrelay.relay.callers import Caller, find_caller
from arkrelay.web.sessions import IDLE_S, MOST, Sessions

KEY = "ark_live_0123456789abcdef0123456789"
TENANT = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{KEY}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.tenant("acme", TENANT)
    return made


def opened(snapshot: Snapshot, now: float = 0.0) -> tuple[Sessions, str]:
    caller = find_caller(snapshot, KEY)
    assert caller is not None
    sessions = Sessions()
    token, _ = sessions.open(caller, digest(KEY), now)
    return sessions, token


def test_a_session_lives_while_it_is_used_and_not_longer(folder: Folder) -> None:
    snapshot = folder.load()
    sessions, token = opened(snapshot)
    assert sessions.find(token, snapshot, IDLE_S - 1) is not None
    assert sessions.find(token, snapshot, 2 * IDLE_S - 2) is not None
    assert sessions.find(token, snapshot, 3 * IDLE_S - 1) is None
    assert sessions.find(token, snapshot, 0) is None


@pytest.mark.parametrize(
    "after",
    [
        pytest.param("", id="removed"),
        pytest.param(TENANT.replace(KEY, KEY[::-1]), id="replaced"),
        pytest.param(TENANT + "hold = true\n", id="on-hold"),
        pytest.param(TENANT.replace('"api"', '"smtp"'), id="another-kind"),
        pytest.param('status = "suspended"\n' + TENANT, id="tenant-suspended"),
    ],
)
def test_a_session_ends_with_its_key(folder: Folder, after: str) -> None:
    sessions, token = opened(folder.load())
    folder.tenant("acme", after)
    assert sessions.find(token, folder.load(), 1) is None
    assert len(sessions) == 0


def test_a_key_that_moves_to_another_tenant_opens_nothing_there(folder: Folder) -> None:
    sessions, token = opened(folder.load())
    folder.tenant("acme")
    folder.tenant("other", TENANT)
    assert sessions.find(token, folder.load(), 1) is None


def test_what_a_key_may_do_is_what_it_may_do_now(folder: Folder) -> None:
    sessions, token = opened(folder.load())
    folder.tenant("acme", TENANT + "permissions = []\n")
    found = sessions.find(token, folder.load(), 1)
    assert found is not None
    assert not found.caller.may_send


def test_an_organisation_key_likewise(folder: Folder) -> None:
    folder.write("platform.toml", f'[[keys]]\nname = "ops"\nsecret = "{KEY[::-1]}ark"\n')
    snapshot = folder.load()
    caller = find_caller(snapshot, f"{KEY[::-1]}ark")
    assert caller is not None
    sessions = Sessions()
    token, _ = sessions.open(caller, digest(f"{KEY[::-1]}ark"), 0)
    assert sessions.find(token, snapshot, 1) is not None
    folder.write("platform.toml", "")
    assert sessions.find(token, folder.load(), 2) is None


def test_a_token_and_a_key_are_nowhere_in_memory(folder: Folder) -> None:
    sessions, token = opened(folder.load())
    assert token not in repr(sessions._open)
    assert KEY not in repr(sessions._open)
    session = next(iter(sessions._open.values()))
    assert session.csrf not in repr(session)


def test_no_session_accepts_another_ones_token() -> None:
    sessions = Sessions()
    _, first = sessions.open(Caller(None, "a"), None, 0)
    _, second = sessions.open(Caller(None, "a"), None, 0)
    assert first.accepts(first.csrf)
    for token in ("", second.csrf, first.csrf[:-1], "\ud800", "é"):
        assert not first.accepts(token)


def test_there_are_never_more_than_so_many_and_the_idlest_goes_first(folder: Folder) -> None:
    snapshot = folder.load()
    sessions, token = opened(snapshot)
    idle, _ = sessions.open(Caller(None, "a"), None, 0)
    for _ in range(MOST - 2):
        sessions.open(Caller(None, "a"), None, 0)
    assert sessions.find(token, snapshot, 1) is not None
    sessions.open(Caller(None, "a"), None, 1)
    sessions.open(Caller(None, "a"), None, 1)
    assert len(sessions) == MOST
    assert sessions.find(token, snapshot, 1) is not None
    assert sessions.find(idle, snapshot, 1) is None


def test_signing_out_ends_what_is_still_open(folder: Folder) -> None:
    snapshot = folder.load()
    sessions, token = opened(snapshot)
    session = sessions.find(token, snapshot, 1)
    assert session is not None
    assert session.holds(snapshot)
    sessions.close(token)
    assert not session.holds(snapshot)
    assert sessions.find(token, snapshot, 1) is None
