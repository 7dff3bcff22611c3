"""A person asks the command line what was posted to a webhook, and is not misled by a wrong name."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.receiver import Receiver

HOST = "127.0.0.2"
SETTINGS = f"""
[webhooks]
retry = []
allow_http = true
allow_destinations = ["{HOST}/32"]
"""
HOOK = '[[webhooks]]\nname = "Shop"\nid = "{id}"\nurl = "http://{host}:{port}/{path}"\n'


async def command(relay: Relay, *words: str) -> tuple[int, str, str]:
    """Run one command line as a user would; return its status and what it printed on either stream."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arkrelay", "webhook", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ARKRELAY_CONFIG": str(relay.config)},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        receiver = await stack.enter_async_context(Receiver(HOST))
        made = Relay(
            tmp_path,
            dns=dns.address,
            tenant=HOOK.format(id="7", host=HOST, port=receiver.port, path="500"),
            more=SETTINGS,
        )
        platform = made.folder / "platform.toml"
        platform.write_text(HOOK.format(id="pwh_7", host=HOST, port=receiver.port, path=""))
        platform.chmod(0o600)
        await stack.enter_async_context(made)
        await made.send("ann@nowhere.test")
        await made.until(
            "/v1/control/webhooks",
            lambda answer: all(one["answeredAt"] for one in answer["data"]["webhooks"]),
        )
        yield made


async def test_one_delivery_is_shown_with_what_was_sent_and_what_came_back(relay: Relay) -> None:
    code, out, _ = await command(relay, "deliveries", "7")
    head, row = out.splitlines()[:2]
    assert (code, head.split()[-1]) == (0, "ERROR")
    assert row.endswith("It answered 500")
    code, out, _ = await command(relay, "delivery", "7", row.split()[0])
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["id", row.split()[0]]
    assert "webhook      7 (Shop)" in lines
    assert "error        It answered 500" in lines
    assert any("X-Ark-Signature: " in line for line in lines)
    assert f'  "event": "{row.split()[1]}",' in lines
    assert lines[-2:] == ["answer", "as asked"]

    code, out, _ = await command(relay, "deliveries", "--platform", "pwh_7")
    row = out.splitlines()[1]
    assert (code, row.split()[-1]) == (0, "-"), "nothing is wrong with it"
    code, out, _ = await command(relay, "delivery", "--platform", "pwh_7", row.split()[0], "--json")
    one = json.loads(out)
    assert (code, one["tenantId"], one["error"], one["response"]["body"]) == (0, "acme", None, "taken")
    assert one["request"]["payload"]["event"] == row.split()[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("replay", "--failed", "nosuch"), ("no webhook nosuch", "there are: 7")),
        (("replay", "--failed", "--platform", "nosuch"), ("no webhook nosuch", "there are: pwh_7")),
        (("replay", "--failed", "--tenant", "nosuch"), ("no tenant nosuch", "there is: acme")),
        (("replay", "nosuch", "whr_1"), ("no webhook nosuch", "there are: 7")),
        (("replay", "7", "whr_nosuch"), ("no delivery whr_nosuch", "")),
        (("deliveries", "nosuch"), ("no webhook nosuch", "there are: 7")),
        (("deliveries", "--platform", "nosuch"), ("no webhook nosuch", "there are: pwh_7")),
        (("deliveries", "--tenant", "nosuch", "7"), ("no tenant nosuch", "there is: acme")),
        (("delivery", "nosuch", "whr_1"), ("no webhook nosuch", "there are: 7")),
        (("delivery", "7", "whr_nosuch"), ("no delivery whr_nosuch", "")),
        (("test", "nosuch"), ("no webhook nosuch", "there are: 7")),
    ],
)
async def test_a_name_that_nothing_has_is_an_error_and_says_what_there_is(
    relay: Relay, words: tuple[str, ...], says: tuple[str, str]
) -> None:
    code, out, err = await command(relay, *words)
    assert (code, out) == (1, "")
    assert all(text in err for text in says), err


async def test_what_is_put_back_is_named_in_full_or_refused(relay: Relay) -> None:
    path = "/v1/control/webhooks/replay"
    for body in ({"webhookId": "nosuch"}, {"tenantId": "nosuch"}, {"tenantId": "acme", "webhookId": "pwh_7"}):
        answer = await relay.call("POST", path, body, status=404)
        assert answer["error"]["code"] == "not_found"
    for body in ({"webhookId": "7"}, {"tenantId": "acme", "webhookId": "7"}, {"tenantId": "acme"}, {}):
        await relay.call("POST", path, body)
    code, out, _ = await command(relay, "replay", "--failed", "--platform", "pwh_7")
    assert (code, out) == (0, "0 events wait again\n"), "nothing of it was given up"
