"""After an outage nobody is stormed: one connection to each destination, within the limit in all; all arrives."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script, closed_port

from arkrelay.wire.dns import TROUBLE_TTL_S

DESTINATIONS = 60
EACH = 3
CONCURRENCY = 8


@pytest.mark.parametrize("what", ["peers", "dns"])
async def test_when_everything_comes_back_at_once_connections_stay_within_their_limits(
    tmp_path: Path, what: str
) -> None:
    port = closed_port()
    domains = [f"d{number}.test" for number in range(DESTINATIONS)]
    async with DnsServer() as dns:
        for domain in domains:
            dns.set(domain, "MX", f"10 mx.{domain}.")
            dns.set(f"mx.{domain}", "A", "127.0.0.1")
        if what == "dns":
            dns.fail("*", "*", "servfail")
        limit = f"concurrency = {CONCURRENCY}"
        async with Relay(tmp_path, dns=dns.address, mx_port=port, delivery=limit, first_delay="1s") as relay:
            for number in range(EACH):
                await relay.send(*(f"r{number}@{domain}" for domain in domains))
            # each destination was tried; what came while it rested waits for its first try
            await relay.until(
                "/v1/status",
                lambda answer: (
                    answer["data"]["queue"]["softfail"] >= DESTINATIONS and not answer["data"]["connections"]
                ),
            )
            dns.heal()
            await asyncio.sleep(TROUBLE_TTL_S)  # as long a failed look-up is remembered
            async with Mx(Script(dot=Delay(0.02, "250 2.0.0 taken")), port=port) as mx:
                # a person cannot wait: the worst of herds, for every rest and every delay ends in one moment
                await relay.call("POST", "/v1/queue/flush", {})
                await mx.wait(DESTINATIONS * EACH, timeout_s=30)
                assert mx.most <= CONCURRENCY
                assert mx.connections == DESTINATIONS, "three messages are no reason for a second connection"
                arrived = Counter(one.recipients[0] for one in mx.messages)
                assert len(arrived) == DESTINATIONS * EACH
                assert max(arrived.values()) == 1
                await relay.stop()
