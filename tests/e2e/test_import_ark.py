"""Moving in from Ark, played by a relay with Ark's API: what is taken works, and a second run changes nothing."""

import asyncio
import contextlib
import json
import smtplib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from peers.daemon import Relay

from arkrelay.config.load import load
from arkrelay.config.tenants import add_key

BETA = """\
name = "Beta GmbH"
status = "active"
[metadata]
external_id = "42"
[[credentials]]
name = "app"
type = "smtp"
secret = "beta-smtp-0123456789"
[[credentials]]
name = "held"
type = "api"
secret = "ark_live_beta-held-0123456789"
hold = true
[[credentials]]
name = "digest"
secret = "sha256:4d10151614ca726942c441fa0ad436d6f4b28cc9d7a46223f3697854610369c0"
[[domains]]
name = "beta.test"
[[domains]]
name = "second.test"
[[webhooks]]
name = "some"
url = "https://beta.test/hooks"
events = ["MessageSent", "MessageBounced"]
[[webhooks]]
name = "all"
url = "https://beta.test/all"
enabled = false
[[webhooks]]
name = "none"
url = "https://beta.test/none"
all_events = false
[[track_domains]]
name = "track"
domain = "beta.test"
clicks = false
excluded = ["beta.test", "www.beta.test"]
"""
CLASH = """\
name = "Clash"
[[credentials]]
name = "theirs"
secret = "taken-elsewhere-0123456789"
[[domains]]
name = "clash.test"
"""


@dataclass
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def results(self) -> dict[tuple[str | None, str, str], str]:
        return {(one["tenant"], one["what"], one["name"]): one["result"] for one in self.json["items"]}


@dataclass
class Move:
    """The service that is left, the relay that is moved to, and the file with the key."""

    ark: Relay
    here: Relay
    key_file: Path

    async def __call__(self, *words: str) -> Ran:
        """Run ``arkrelay import ark`` with these words."""
        url = f"http://127.0.0.1:{self.ark.port('http')}/v1"
        words = ("import", "ark", "--url", url, "--key-file", str(self.key_file), "-c", str(self.here.config), *words)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "arkrelay", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())


def tenant(relay: Relay, name: str, text: str) -> None:
    path = relay.folder / "tenants" / f"{name}.toml"
    path.write_text(text)
    path.chmod(0o600)


@pytest_asyncio.fixture
async def move(tmp_path: Path) -> AsyncIterator[Move]:
    for name in ("ark", "here"):
        (tmp_path / name).mkdir()
    more = '[public]\nurl = "https://relay.test"\n'
    ark, here = Relay(tmp_path / "ark", more=more), Relay(tmp_path / "here", more=more)
    tenant(ark, "beta", BETA)
    tenant(ark, "clash", CLASH)
    tenant(here, "old", 'name = "Old"\n[[domains]]\nname = "clash.test"\n'
                        '[[credentials]]\nname = "x"\nsecret = "taken-elsewhere-0123456789"\n')  # fmt: skip
    (ark.folder / "platform.toml").write_text('[[webhooks]]\nname = "central"\nurl = "https://central.test/"\n')
    (ark.folder / "platform.toml").chmod(0o600)
    _, key = add_key(ark.config, "ops")
    key_file = tmp_path / "ark.key"
    key_file.write_text(f"{key}\n")
    key_file.chmod(0o600)
    async with contextlib.AsyncExitStack() as stack:
        for relay in (ark, here):
            await stack.enter_async_context(relay)
        yield Move(ark, here, key_file)


def files(relay: Relay) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in relay.folder.rglob("*.toml")} | {
        str(path): b"" for path in (relay.state / "keys").rglob("*")
    }


async def suppress(relay: Relay, tenant_id: str, count: int) -> None:
    entries = [{"address": f"gone{n}@else.test", "reason": "hard fail", "createdAt": "2026-01-31T12:00:00Z"}
               for n in range(count)]  # fmt: skip
    await relay.call("POST", f"/v1/tenants/{tenant_id}/suppressions/import", {"entries": entries})


async def test_all_of_ark_is_taken_once_and_a_second_run_changes_nothing(move: Move) -> None:
    await suppress(move.ark, "beta", 205)  # three pages
    await suppress(move.here, "acme", 1)
    before = files(move.here)
    shown = await move("--json")
    assert (shown.code, shown.json["written"], files(move.here)) == (0, False, before)
    assert "nothing was written; --yes writes it" in shown.err

    ran = await move("--yes", "--json")
    assert ran.code == 0, ran.err
    assert ran.results() == {
        (None, "webhook", "central https://central.test/"): "taken",
        ("acme", "tenant", "Acme Inc"): "is here",
        ("acme", "domain", "sender.test"): "is here",
        ("acme", "credential", "production"): "is here",
        ("beta", "tenant", "Beta GmbH"): "taken",
        ("beta", "domain", "beta.test"): "taken",
        ("beta", "domain", "second.test"): "taken",
        ("beta", "credential", "app"): "taken",
        ("beta", "credential", "held"): "taken",
        ("beta", "credential", "digest"): "not taken",
        ("beta", "webhook", "some https://beta.test/hooks"): "taken",
        ("beta", "webhook", "all https://beta.test/all"): "taken",
        ("beta", "webhook", "none https://beta.test/none"): "taken",
        ("beta", "track domain", "track.beta.test"): "taken",
        ("beta", "suppressions", "205"): "taken",
        ("clash", "tenant", "Clash"): "taken",
        ("clash", "domain", "clash.test"): "not taken",
        ("clash", "credential", "theirs"): "not taken",
        (None, "organisation keys", ""): "not taken",
    }
    beta = load(move.here.config).tenants["beta"]
    assert (beta.name, dict(beta.metadata)) == ("Beta GmbH", {"external_id": "42"})
    assert sorted((one.name, one.type, one.hold) for one in beta.credentials) == [
        ("app", "smtp", False),
        ("held", "api", True),
    ]
    assert {one.name: (one.takes_all, one.events, one.enabled) for one in beta.webhooks} == {
        "some": (False, ("MessageSent", "MessageBounced"), True),
        "all": (True, (), False),
        "none": (False, (), True),
    }
    (track,) = beta.track_domains
    assert (track.full_name, track.clicks, track.opens, track.excluded) == (
        "track.beta.test", False, True, ("beta.test", "www.beta.test"),
    )  # fmt: skip
    assert all(len(one.dkim) == 1 for one in beta.domains)
    assert set(ran.json["dnsRecords"]) == {"beta.test", "second.test"}
    listed = await move.here.get("/v1/tenants/beta/suppressions?perPage=1")
    assert listed["total"] == 205
    assert listed["data"][0] | {"id": ""} == {
        "id": "", "address": listed["data"][0]["address"], "reason": "hard fail", "automatic": False,
        "createdAt": "2026-01-31T12:00:00.000Z", "stream": None, "cause": "import", "classification": None,
    }  # fmt: skip

    with smtplib.SMTP("127.0.0.1", move.here.port(), timeout=20) as client:  # the app, with its old name and password
        client.ehlo("client.test")
        assert client.login("beta/beta-smtp-0123456789", "beta-smtp-0123456789")[0] == 235

    written = files(move.here)
    again = await move("--yes", "--json")
    assert again.code == 0, again.err
    assert set(again.results().values()) == {"is here", "not taken"}
    notes = {one["what"]: one["note"] for one in again.json["items"]}
    assert notes["suppressions"] == "0 new, 205 here before"
    assert files(move.here) == written


async def test_what_is_here_is_not_overwritten_and_the_difference_is_said(move: Move) -> None:
    tenant(move.here, "beta", 'name = "Ours"\n[[credentials]]\nname = "app"\nsecret = "another-0123456789"\n'
           '[[webhooks]]\nname = "some"\nurl = "https://beta.test/hooks"\n')  # fmt: skip
    ran = await move("--yes", "--json", "--tenant", "beta")
    assert ran.code == 0, ran.err
    notes = {(one["what"], one["name"]): one["note"] for one in ran.json["items"] if one["result"] == "stays as here"}
    assert notes == {
        ("tenant", "Beta GmbH"): "name is Ours here, Beta GmbH there; metadata is none here, external_id=42 there",
        ("credential", "app"): "there is one of this name here, with another key",
        ("webhook", "some https://beta.test/hooks"): "events is all here, MessageBounced, MessageSent there",
    }
    beta = load(move.here.config).tenants["beta"]
    assert (beta.name, beta.credential("app") is not None, beta.webhooks[0].takes_all) == ("Ours", True, True)


async def test_lists_wait_for_a_daemon_that_does_not_run(move: Move) -> None:
    await suppress(move.ark, "beta", 3)
    await move.here.stop()
    ran = await move("--yes", "--json")
    assert ran.code == 1
    assert ran.results()["beta", "suppressions", "3"] == "not taken"
    await move.here.start()
    ran = await move("--yes", "--json")
    assert (ran.code, ran.results()["beta", "suppressions", "3"]) == (0, "taken")


async def test_no_key_of_theirs_is_shown_anywhere(move: Move) -> None:
    ran = await move("--yes")
    assert ran.code == 0, ran.err
    assert "credential" in ran.out
    key = move.key_file.read_text().strip()
    told = ran.out + ran.err + move.here.log.read_text()
    for secret in (key, "beta-smtp-0123456789", "ark_live_beta-held-0123456789"):
        assert secret not in told
        assert not any(secret.encode() in content for content in files(move.here).values())
    assert (move.here.folder / "tenants" / "beta.toml").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("key", "mode", "words", "says"),
    [
        pytest.param("ark_live_wrong", 0o600, (), "error: GET /tenants:", id="wrong-key"),
        pytest.param("two words", 0o600, (), "holds no key", id="no-key"),
        pytest.param("ark_live_x", 0o644, (), "readable by others", id="open-file"),
        pytest.param(None, 0o600, ("--tenant", "nobody"), "/tenants/nobody", id="no-such-tenant"),
        pytest.param(None, 0o600, ("--url", "http://ark.example/v1"), "expected https://host/v1", id="key-in-clear"),
        pytest.param("beta", 0o600, (), "name it with --tenant", id="a-tenants-own-key"),
    ],
)
async def test_what_cannot_be_read_is_said(
    move: Move, key: str | None, mode: int, words: tuple[str, ...], says: str
) -> None:
    if key == "beta":
        tenant(
            move.ark, "gamma", 'name = "G"\n[[credentials]]\nname = "k"\ntype = "api"\nsecret = "ark_live_gamma-01"\n'
        )
        await move.ark.call("POST", "/v1/control/reload")
        key = "ark_live_gamma-01"
    if key is not None:
        move.key_file.write_text(key)
    move.key_file.chmod(mode)
    before = files(move.here)
    ran = await move("--yes", *words)
    assert (ran.code, says in ran.err) == (1, True), ran.err
    assert files(move.here) == before
