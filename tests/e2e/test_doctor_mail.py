"""`arkrelay doctor` and SMTP: port 25 out and in, strangers at our doors, and the policy that others hold us to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script, closed_port
from peers.policyhost import PolicyHost, policy
from peers.world import SOURCE, right_records, sound

Row = dict[str, Any]


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        right_records(server)
        yield server


async def rows_of(relay: Relay, check: str) -> list[Row]:
    found: list[Row] = (await relay.get("/v1/doctor?fresh=true"))["data"]["findings"]
    return [one for one in found if one["check"] == check]


async def test_a_port_25_that_is_shut_outwards_is_told_with_what_happened(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port(), probe=f"127.0.0.1:{closed_port()}") as relay:
        (row,) = await rows_of(relay, "port25")
        assert (row["level"], row["subject"]) == ("fail", SOURCE)
        assert "connection refused" in row["found"]
        assert "open port 25 outwards" in row["advice"]


async def test_a_test_host_that_turns_us_away_at_its_greeting_was_reached(tmp_path: Path, dns: DnsServer) -> None:
    async with (
        Mx(Script(banner="554 5.7.1 you are listed")) as probe,
        sound(tmp_path, dns, closed_port(), probe=f"127.0.0.1:{probe.port}") as relay,
    ):
        (row,) = await rows_of(relay, "port25")
        assert (row["level"], "you are listed" in row["found"]) == ("ok", True)


async def test_somebody_else_at_the_return_path_host_is_no_way_back(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as stranger:
        relay = sound(tmp_path, dns, closed_port())
        text = relay.config.read_text()
        relay.config.write_text(text.replace("[delivery]\nport = ", f"[delivery]\nport = {stranger.port} # "))
        async with relay:
            (row,) = await rows_of(relay, "return-path-port")
            assert row["level"] == "fail"
            assert 'service = "bounces"' in row["advice"]
            assert stranger.messages == []


async def test_a_return_path_host_that_leads_nowhere_and_one_that_leads_elsewhere(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        dns.remove("mx.relay.test")
        (row,) = await rows_of(relay, "return-path-mx")
        assert (row["level"], "without an address" in row["found"]) == ("warn", True)
        dns.remove("rp.relay.test")
        (row,) = await rows_of(relay, "return-path-mx")
        assert (row["level"], "NXDOMAIN" in row["found"]) == ("fail", True)


async def test_without_a_bounces_listener_nothing_comes_back(tmp_path: Path, dns: DnsServer) -> None:
    relay = sound(tmp_path, dns, closed_port())
    text = relay.config.read_text()
    relay.config.write_text(text.replace('service = "bounces"', 'service = "submission"'))
    async with relay:
        (row,) = await rows_of(relay, "return-path-port")
        assert (row["level"], "no [[listen]]" in row["found"]) == ("fail", True)


async def test_every_smtp_door_is_tried_and_none_takes_mail_of_strangers(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        rows = {row["subject"].split()[0]: row for row in await rows_of(relay, "relay") if row["level"] == "ok"}
        assert set(rows) == {"bounces", "submission", "submissions"}
        assert "550" in rows["bounces"]["found"]
        assert (
            "Authentication required" in rows["submission"]["found"]
        )  # under TLS: the demand for TLS proves nothing
        assert "Authentication required" in rows["submissions"]["found"]
        status = (await relay.get("/v1/status"))["data"]
        assert status["queue"]["pending"] == 0


async def test_an_mta_sts_policy_of_ours_must_name_our_hosts_and_they_must_keep_it(
    tmp_path: Path, dns: DnsServer
) -> None:
    pair = certificates.valid("mta-sts.rp.relay.test")
    dns.set("_mta-sts.rp.relay.test", "TXT", "v=STSv1; id=1")
    dns.set("mta-sts.rp.relay.test", "A", "127.0.0.1")
    async with PolicyHost(pair.server_context()) as web:
        relay = sound(tmp_path, dns, closed_port())
        text = relay.config.read_text()
        relay.config.write_text(text.replace("[delivery]\n", f"[delivery]\nmta_sts_port = {web.port}\n"))
        async with relay:
            (row,) = await rows_of(relay, "mta-sts")
            assert (row["level"], "404" in row["found"]) == ("fail", True)
            web.files["mta-sts.rp.relay.test"] = policy("enforce", "other.test")
            (row,) = await rows_of(relay, "mta-sts")
            assert "does not name the MX host mx.relay.test" in row["found"]
            web.files["mta-sts.rp.relay.test"] = policy("enforce", "mx.relay.test")
            (row,) = await rows_of(relay, "mta-sts")
            assert (row["level"], "certificate" in row["found"]) == ("fail", True)  # ours is for relay.test alone
            dns.set("rp.relay.test", "MX", "10 relay.test.")
            dns.set("relay.test", "A", "127.0.0.1")
            web.files["mta-sts.rp.relay.test"] = policy("enforce", "relay.test")
            (row,) = await rows_of(relay, "mta-sts")
            assert row["level"] == "ok", row
