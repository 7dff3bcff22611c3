"""`arkrelay domain dns` and `domain guide` as people use them: forms, --diff, --wait, and what is pasted."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import closed_port
from peers.world import KEY, right_records, sound

from arkrelay.cli.guide import PROVIDERS


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        right_records(server)
        yield server


@pytest.fixture
def relay(tmp_path: Path, dns: DnsServer) -> Relay:
    return sound(tmp_path, dns, closed_port())


async def domain(relay: Relay, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "arkrelay", "domain", *words, "-c", str(relay.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **relay.environment},
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_diff_says_what_is_missing_different_and_more_than_there_should_be(
    relay: Relay, dns: DnsServer
) -> None:
    assert (await domain(relay, "dns", "sender.test", "--diff"))[0] == 0
    dns.set("sender.test", "TXT", "v=spf1 mx -all", "other=1")
    dns.remove("psrp.sender.test")
    dns.set(KEY, "TXT", "v=DKIM1; p=AAAA")
    dns.remove("_dmarc.sender.test")
    status, out, _ = await domain(relay, "dns", "sender.test", "--diff", "--json")
    assert status == 1
    rows = {row["fullName"]: row for row in json.loads(out)["records"]}
    assert rows["sender.test"]["status"] == "different"
    assert "v=spf1 mx include:spf.relay.test -all" in rows["sender.test"]["advice"]  # merged, ready to paste
    assert rows["sender.test"]["found"] == ["v=spf1 mx -all"]
    assert rows["psrp.sender.test"]["status"] == "missing"
    assert rows[KEY]["status"] == "different"
    assert (rows["_dmarc.sender.test"]["status"], rows["_dmarc.sender.test"]["optional"]) == ("missing", True)
    right_records(dns)
    dns.remove("_dmarc.sender.test")
    assert (await domain(relay, "dns", "sender.test", "--diff"))[0] == 0  # a recommendation keeps nobody waiting
    dns.set("sender.test", "TXT", "v=spf1 a mx include:spf.relay.test ~all", "v=spf1 -all")
    status, out, _ = await domain(relay, "dns", "sender.test", "--diff")
    assert (status, "extra" in out) == (1, True)


async def test_it_waits_until_all_is_there_and_the_daemon_knows_then(relay: Relay, dns: DnsServer) -> None:
    dns.remove("psrp.sender.test")
    status, out, err = await domain(relay, "dns", "sender.test", "--wait", "--timeout", "0")
    assert (status, "waiting for CNAME psrp.sender.test" in out, "publish" in err or "point it" in err) == (
        1,
        True,
        True,
    )
    async with relay:
        dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
        status, out, _ = await domain(relay, "dns", "sender.test", "--wait", "--timeout", "30")
        assert status == 0
        assert "sender.test is verified" in out


async def test_the_machine_has_records_of_its_own(relay: Relay, dns: DnsServer) -> None:
    status, out, _ = await domain(relay, "dns", "--machine", "--format", "bind")
    assert (status, "$ORIGIN relay.test." in out, "rp 3600 IN MX 10 relay.test." in out) == (0, True, True)
    assert 'spf 3600 IN TXT "v=spf1 ip4:127.0.0.3 -all"' in out
    assert "PTR" in (await domain(relay, "dns", "--machine"))[2]
    assert (await domain(relay, "dns"))[0] == 2
    assert (await domain(relay, "dns", "--machine", "sender.test"))[0] == 2
    assert (await domain(relay, "dns", "sender.test", "--zone", "other.test"))[0] == 1
    status, out, _ = await domain(relay, "dns", "--machine", "--diff", "--json")
    rows = {(row["type"], row["fullName"]): row["status"] for row in json.loads(out)["records"]}
    assert rows["A", "relay.test"] == "ok"
    assert rows["MX", "rp.relay.test"] == "different"
    assert status == 1


async def test_every_guide_has_the_users_own_records_in_it(relay: Relay) -> None:
    key = json.loads((await domain(relay, "dns", "sender.test", "--json"))[1])["dkim"]["value"]
    for provider in PROVIDERS:
        status, out, _ = await domain(relay, "guide", provider, "sender.test")
        assert status == 0, provider
        assert "{" not in out, provider
        assert "s1._domainkey" in out
        assert "psrp" in out
        assert key in out.replace('" "', ""), provider
        dotted = provider in {"digitalocean", "google-cloud", "hetzner"}
        assert ("Value  rp.relay.test." in out) == dotted, provider
    assert (await domain(relay, "guide", "nobody", "sender.test"))[0] == 2
