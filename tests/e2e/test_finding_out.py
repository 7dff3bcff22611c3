"""What became of a mail is told in full: what was said in each attempt, what it means, how usual it is, when next."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script, Turns

from arkrelay.store.place import DATABASE

LISTED = "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"
SECRET = "smarthost-password"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("smarthost.test", "A", "127.0.0.1")
        for domain in ("rcpt.test", "other.test"):
            server.set(domain, "MX", "10 mx.site.test.")
        server.set("mx.site.test", "A", "127.0.0.1")
        yield server


async def command(relay: Relay, *words: str, given: str | None = None) -> tuple[int, str]:
    """Run one command line as a user would, and return its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arkrelay", *words),
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "ARKRELAY_CONFIG": str(relay.config)},
    )
    out, _ = await process.communicate(None if given is None else given.encode())
    assert process.returncode is not None
    return process.returncode, out.decode()


async def becomes(relay: Relay, token: str, status: str) -> dict[str, Any]:
    path = f"/v1/emails/{token}?expand=deliveries"
    found: dict[str, Any] = (await relay.until(path, lambda one: one["data"]["status"] == status))["data"]
    return found


def said(delivery: dict[str, Any]) -> list[str]:
    return [f"{line['who']}: {line['line']}" for line in delivery["transcript"]]


async def test_what_was_said_is_shown_by_rest_and_command_line_and_goes_after_its_retention(
    tmp_path: Path, dns: DnsServer
) -> None:
    script = Script(rcpt=Turns("550 5.1.1 no such user", None))
    more = '[retention]\ntranscripts = "2s"\n'
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay:
        refused = await becomes(relay, token := await relay.send("ann@rcpt.test"), "hardfail")
        (delivery,) = refused["deliveries"]
        lines = said(delivery)
        assert lines[0] == f"note: connecting to mx.site.test, 127.0.0.1 port {mx.port}"
        assert "peer: 220 mx.test ESMTP" in lines
        assert "we: EHLO relay.test" in lines
        assert "we: RCPT TO:<ann@rcpt.test>" in lines
        assert "peer: 550 5.1.1 no such user" in lines
        assert all(isinstance(line["ms"], int) and line["ms"] >= 0 for line in delivery["transcript"])
        sent = await becomes(relay, await relay.send("bob@rcpt.test"), "sent")
        assert said(sent["deliveries"][0])[-1] == "peer: 250 2.0.0 queued"

        code, out = await command(relay, "message", "show", token, "--transcript")
        assert code == 0
        assert "< 550 5.1.1 no such user" in out
        assert "> RCPT TO:<ann@rcpt.test>" in out
        code, out = await command(relay, "message", "show", token, "--json")
        assert json.loads(out)["deliveries"][0]["transcript"] == delivery["transcript"]
        history = (await relay.get(f"/v1/emails/{token}/deliveries"))["data"]["deliveries"]
        assert history[0]["transcript"] == delivery["transcript"]

        async with asyncio.timeout(15):
            while (await becomes(relay, token, "hardfail"))["deliveries"][0]["transcript"] is not None:
                await relay.call("POST", "/v1/control/db/prune")
                await asyncio.sleep(0.2)
        assert (await becomes(relay, token, "hardfail"))["deliveries"][0]["output"] == "550 5.1.1 no such user"
        code, out = await command(relay, "message", "show", token, "--transcript")
        assert "not kept" in out


@pytest.mark.parametrize(("kept", "failure", "success"), [("failures", True, False), ("off", False, False)])
async def test_only_what_is_asked_for_is_kept(
    tmp_path: Path, dns: DnsServer, kept: str, failure: bool, success: bool
) -> None:
    script = Script(rcpt=Turns("550 5.1.1 no such user", None))
    settings = f'transcripts = "{kept}"\n'
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=settings) as relay:
        refused = await becomes(relay, await relay.send("ann@rcpt.test"), "hardfail")
        sent = await becomes(relay, await relay.send("bob@rcpt.test"), "sent")
        assert (refused["deliveries"][0]["transcript"] is not None) is failure
        assert (sent["deliveries"][0]["transcript"] is not None) is success


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_the_password_of_a_smarthost_is_in_no_transcript_log_or_database(
    tmp_path: Path, dns: DnsServer, mechanism: str
) -> None:
    users = {"relay": "another"}
    script = Script(
        tls=certificates.valid("smarthost.test").server_context(),
        users=users,
        mechanisms=mechanism,
        auth=Turns(f"535 5.7.8 {SECRET} is wrong", "235 2.7.0 hello"),
    )
    async with Mx(script) as host:
        route = (
            f'[[route]]\ndomain = "*"\nhost = "smarthost.test:{host.port}"\ntls = "required"\n'
            f'username = "relay"\nsecret = "{SECRET}"\n'
        )
        relay = Relay(tmp_path, dns=dns.address, more=route)
        relay.config.chmod(0o600)
        relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
        async with relay:
            token = await relay.send("ann@anywhere.test")
            await becomes(relay, token, "softfail")
            await relay.call("POST", f"/v1/emails/{token}/retry")
            sent = await becomes(relay, token, "sent")
            first, second = (said(one) for one in sent["deliveries"])
            assert f"we: AUTH {mechanism} ***" in first
            assert "peer: 535 5.7.8 *** is wrong" in first
            assert "peer: 235 2.7.0 hello" in second
            assert any(line.startswith("note: TLSv1.3, ") and line.endswith(" is proved") for line in second)
            assert SECRET not in json.dumps(sent)
        assert SECRET not in relay.log.read_text()
        assert b"535 5.7.8 *** is wrong" in (relay.state / DATABASE).read_bytes()
        for file in relay.state.glob(f"{DATABASE}*"):
            assert SECRET.encode() not in file.read_bytes()


async def test_a_reply_is_explained_with_how_usual_it_is_and_without_the_daemon_too(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(dot=Turns(None, LISTED))) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        async with relay:
            await becomes(relay, await relay.send("ann@rcpt.test"), "sent")
            await becomes(relay, await relay.send("bob@rcpt.test"), "hardfail")
            pasted = LISTED.replace("554 5.7.1 Service", "554-5.7.1 Service").replace(
                "blocked", "\n554 5.7.1 blocked"
            )
            code, out = await command(relay, "explain", "--provider", "site.test", given=pasted)
            assert code == 0
            assert "2 attempts at site.test: 1 taken, 1 of this class" in out
            assert "https://check.spamhaus.org/" in out
            assert "reputation of our address" in out
            code, out = await command(relay, "explain", "--host", "mx.site.test", "--json", LISTED)
            asked = json.loads(out)
            assert asked["lastDay"] == {"site": "site.test", "attempts": 2, "taken": 1, "ofClass": 1}
            assert (asked["class"], asked["blame"], asked["permanent"]) == ("blocklisted", "reputation", True)
            code, out = await command(relay, "explain", "250 2.0.0 ok")
            assert (code, "is a success" in out) == (1, True)
            refusal = await relay.call("GET", "/v1/explain?reply=250+ok", status=400)
            assert refusal["error"]["field"] == "reply"
        code, out = await command(relay, "explain", "--host", "mx.site.test", "--json", LISTED)
        assert code == 0
        alone = json.loads(out)
        assert "counts need the daemon" in alone.pop("noCounts")
        assert alone.pop("lastDay") is None
        del asked["lastDay"]
        assert alone == asked


async def test_log_rest_and_command_line_say_the_same_sentence_of_what_is_deferred(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(rcpt="451 4.3.0 later")) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        token = await relay.send("ann@rcpt.test")
        await becomes(relay, token, "softfail")
        (line,) = [row for row in await relay.logged("recipient_settled") if row["status"] == "softfail"]
        by_rest = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
        code, by_command = await command(relay, "why", token)
        assert code == 0

        def without_countdown(sentence: str) -> str:
            before, _, after = sentence.strip().partition(" (in ")
            return before + after.partition(")")[2]

        assert without_countdown(line["why"]) == without_countdown(by_rest) == without_countdown(by_command)
        assert line["why"].startswith("Deferred after 1 attempt, next one ")
        assert "451 4.3.0 later" in line["why"]


async def test_mail_that_waits_for_a_limit_is_told_which(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx(Script(dot=Turns("250 ok"))) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery="connections_per_site = 1\n")
        async with relay:
            await relay.call("POST", "/v1/lanes/site.test/rest")
            token = await relay.send("ann@rcpt.test")
            path = f"/v1/why?q={token}"

            def ordered(answer: dict[str, Any]) -> bool:
                return "lets site.test rest" in answer["data"]["sentences"][0]["sentence"]

            await relay.until(path, ordered)
            await relay.call("POST", "/v1/lanes/site.test/resume")
            await becomes(relay, token, "sent")
