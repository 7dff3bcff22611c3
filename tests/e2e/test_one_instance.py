"""Two daemons on one state directory: the second one says so and goes, and the first one does not notice."""

import asyncio
import sys
from pathlib import Path

from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx

AT_ONCE_S = 10.0  # two seconds on an idle machine; most of it is Python starting


async def test_a_second_instance_ends_at_once_and_leaves_the_first_alone(tmp_path: Path) -> None:
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "A", "127.0.0.1")
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
            assert relay.process is not None
            second = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "arkrelay", "serve", "-c", str(relay.config)),
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(AT_ONCE_S):
                _, said = await second.communicate()
            assert second.returncode == 1
            lines = said.decode().splitlines()
            assert [line for line in lines if "another arkrelay runs on" in line] != [], lines
            assert f"(process {relay.process.pid})" in said.decode()
            assert "Traceback" not in said.decode()

            token = await relay.send(
                "ann@rcpt.test"
            )  # the doors are open and the control socket is still the first's
            await mx.wait(1)
            await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "sent")
            assert (await relay.get("/v1/status"))["data"]["epoch"] == 1


async def test_a_state_directory_is_free_again_when_its_process_was_killed(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    await relay.start()
    await relay.kill()
    await relay.start()
    assert (await relay.get("/v1/status"))["data"]["epoch"] == 2
    assert await relay.stop() == 0
