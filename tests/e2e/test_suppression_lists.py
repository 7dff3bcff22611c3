"""Suppression lists as tenants live with them: who joins, what that stops at once, and what is taken back."""

import asyncio
import contextlib
import re
import smtplib
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script, Turns
from peers.world import right_records

LIST = "/v1/tenants/acme/suppressions"
TENANT = "[unsubscribe]\nenabled = true\n"
MORE = """
[public]
url = "https://mail.relay.test/ark"

[sandbox]
simulator = "sim.test"

[[listen]]
service = "bounces"
address = "127.0.0.1:0"
"""
SLOW = Delay(4.0, None)  # of one message, so that those behind it wait in memory
ONE = "connections_per_site = 1"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def listed(relay: Relay, tenant: str = "acme") -> list[tuple[str, str]]:
    """Return the addresses on the list with their causes."""
    rows = (await relay.get(f"/v1/tenants/{tenant}/suppressions?perPage=100"))["data"]
    return sorted((row["address"], row["cause"]) for row in rows)


async def becomes(relay: Relay, token: str, status: str) -> dict[str, Any]:
    """Return the email when it has this status."""
    answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == status)
    found: dict[str, Any] = answer["data"]
    return found


async def run(relay: Relay, *arguments: str, given: str = "") -> tuple[int, str, str]:
    """Run a command of the relay's own; return its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arkrelay", *arguments, "-c", str(relay.config),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(given.encode())
    return process.returncode or 0, out.decode(), err.decode()


# What is taken back.


async def test_an_undo_by_time_takes_failures_and_what_people_did_only_when_it_is_named(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Relay(tmp_path, dns=dns.address, more=MORE, tenant=TENANT) as relay:
        for part in ("hardfail", "complaint", "unsubscribe"):
            await relay.send(f"{part}@sim.test")
        await relay.call("POST", LIST, {"address": "hand@x.test"}, status=201)
        await relay.call("POST", f"{LIST}/import", {"entries": [{"address": "import@x.test"}]})
        await relay.until(LIST, lambda answer: answer["total"] == 5)
        people = [("complaint@sim.test", "complaint"), ("hand@x.test", "hand"), ("import@x.test", "import")]
        people.append(("unsubscribe@sim.test", "unsubscribe"))
        code, out, err = await run(relay, "suppression", "undo", "--since", "2026-01-01", "--dry-run")
        assert (code, out) == (0, "hardfail@sim.test\n"), err
        done = (await relay.call("POST", f"{LIST}/undo", {"since": "2026-01-01"}))["data"]
        assert done["addresses"] == ["hardfail@sim.test"]
        assert await listed(relay) == people
        for address, cause in people:
            done = (await relay.call("POST", f"{LIST}/undo", {"since": "2026-01-01", "cause": cause}))["data"]
            assert done["addresses"] == [address]
        assert await listed(relay) == []


# What an entry stops at once.


async def by_hand(relay: Relay, _first: bytes, _path: str) -> None:
    await relay.call("POST", LIST, {"address": "Ann@rcpt.test"}, status=201)


async def by_import(relay: Relay, _first: bytes, _path: str) -> None:
    code, _, err = await run(relay, "suppression", "import", "-", given="ANN@rcpt.test\nbob@other.test\n")
    assert code == 0, err


async def by_one_click(relay: Relay, first: bytes, _path: str) -> None:
    found = re.search(rb"<https://mail\.relay\.test/ark(/u/u[0-9a-f]+)>", first)
    assert found is not None, first
    url = f"http://127.0.0.1:{relay.port('http')}{found[1].decode()}"
    async with aiohttp.ClientSession() as session, session.post(url, data={"List-Unsubscribe": "One-Click"}) as done:
        assert done.status == 200


async def by_complaint(relay: Relay, first: bytes, path: str) -> None:
    report = (
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n"
        b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n" + first.partition(b"\r\n\r\n")[0] + b"\r\n--b--\r\n"
    )

    def complain() -> None:
        with smtplib.SMTP("127.0.0.1", relay.port("bounces"), timeout=20) as client:
            client.sendmail("fbl@rcpt.test", [path], report)

    await asyncio.to_thread(complain)


@pytest.mark.parametrize("join", [by_hand, by_import, by_one_click, by_complaint])
async def test_what_waits_in_memory_is_held_when_its_address_is_suppressed(
    tmp_path: Path, dns: DnsServer, join: Callable[[Relay, bytes, str], Awaitable[None]]
) -> None:
    dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
    async with (
        Mx(Script(dot=Turns(None, SLOW))) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=MORE, tenant=TENANT, delivery=ONE) as relay,
    ):
        (domain,) = (await relay.get("/v1/tenants/acme/domains"))["data"]["domains"]
        await relay.call("POST", f"/v1/tenants/acme/domains/{domain['id']}/verify")
        await becomes(relay, await relay.send("ann@rcpt.test"), "sent")
        for number in range(3):
            await relay.send(f"n{number}@rcpt.test")
        last = await relay.send("ann@rcpt.test")
        await join(relay, mx.messages[0].content, mx.messages[0].return_path)
        held = await becomes(relay, last, "held")
        assert held["reason"].startswith("Recipient (ann@rcpt.test) is on the suppression list (reason: ")
        assert len(mx.messages) < 4  # it was held long before its turn
        await relay.kill()


async def test_what_waits_in_memory_is_held_when_a_failure_suppresses_its_address(
    tmp_path: Path, dns: DnsServer
) -> None:
    ann = Turns("550 5.1.1 no such user", None)
    async with (
        Mx(Script(rcpt={"ann@rcpt.test": ann}, dot=SLOW)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=ONE) as relay,
    ):
        await relay.send("n0@rcpt.test")
        first, *_, second = [await relay.send(f"{name}@rcpt.test") for name in ("ann", "n1", "n2", "ann")]
        await becomes(relay, first, "hardfail")
        assert (await becomes(relay, second, "held"))["reason"].endswith("(reason: hard fail)")
        assert ann.taken == 1
        await relay.kill()


# When a site is not believed.

OTHER_KEY = "ark_live_other-0123456789abcdef"
OTHER = f"""
name = "Other"

[[credentials]]
name = "rest"
type = "api"
secret = "{OTHER_KEY}"

[[domains]]
name = "other.test"
trusted = true
"""
NOBODY = "550 5.1.1 no such user"


async def ask(relay: Relay, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask with the other tenant's key."""
    url = f"http://127.0.0.1:{relay.port('http')}{path}"
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def paused(relay: Relay) -> list[tuple[str | None, int]]:
    found = (await relay.get("/v1/events?type=SuppressionPaused"))["data"]["events"]
    return [(one["tenantId"], one["data"]["failed"]) for one in found]


async def test_a_site_that_refuses_everybody_leaves_nobody_on_the_list_also_after_a_restart(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with (
        Mx(Script(rcpt=NOBODY)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more="[suppression]\nburst_recipients = 10\n") as relay,
    ):
        await relay.call("POST", LIST, {"address": "hand@rcpt.test"}, status=201)
        tokens = [await relay.send(f"n{number}@rcpt.test") for number in range(9)]
        await relay.until(LIST, lambda answer: answer["total"] == 10)
        for token in [await relay.send(f"n{number}@rcpt.test") for number in range(9, 12)]:
            await becomes(relay, token, "hardfail")
        await relay.until(LIST, lambda answer: answer["total"] == 1)
        removed = (await relay.get("/v1/events?type=SuppressionRemoved"))["data"]["events"]
        assert len(removed) == 9
        assert {(one["data"]["by"], one["data"]["site"]) for one in removed} == {("burst", "rcpt.test")}
        assert await paused(relay) == [("acme", 10)]
        (said,) = (await relay.get(f"/v1/why?q={tokens[0]}"))["data"]["sentences"]
        assert "(suppressed for that, and no more: rcpt.test refused 10 of 10" in said["sentence"]
        assert await relay.stop() == 0
        await relay.start()
        token = await relay.send("after@rcpt.test")
        assert "not suppressed: rcpt.test refused" in (await becomes(relay, token, "hardfail"))["reason"]
        assert await listed(relay) == [("hand@rcpt.test", "hand")]


async def test_one_tenants_bad_list_does_not_keep_dead_addresses_off_anothers(tmp_path: Path, dns: DnsServer) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "other.toml").write_text(OTHER)
    (tmp_path / "tenants" / "other.toml").chmod(0o600)
    async with (
        Mx(Script(rcpt=NOBODY)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more="[suppression]\nburst_recipients = 10\n") as relay,
    ):
        for token in [await relay.send(f"n{number}@rcpt.test") for number in range(12)]:
            await becomes(relay, token, "hardfail")
        letter = {"from": "a@other.test", "to": ["dead@rcpt.test"], "subject": "x", "text": "x"}
        token = (await ask(relay, "POST", "/v1/emails", letter))["data"]["id"]
        assert "rcpt.test refused" not in (await becomes(relay, token, "hardfail"))["reason"]
        assert await listed(relay, "other") == [("dead@rcpt.test", "failure")]
        assert await listed(relay) == []
        assert {one["event"] for one in (await ask(relay, "GET", "/v1/events"))["data"]["events"]} == {
            "MessageAccepted", "MessageDeliveryFailed", "SuppressionAdded",
        }  # fmt: skip
        # what both see pauses everybody, and neither reads the other's numbers
        body = letter | {"to": [f"d{number}@rcpt.test" for number in range(1, 3)]}
        await ask(relay, "POST", "/v1/emails", body)
        await relay.until("/v1/events?type=SuppressionPaused", lambda one: len(one["data"]["events"]) == 2)
        assert {tenant for tenant, _ in await paused(relay)} == {"acme", None}
        token = (await ask(relay, "POST", "/v1/emails", letter | {"to": ["last@rcpt.test"]}))["data"]["id"]
        reason = (await becomes(relay, token, "hardfail"))["reason"]
        assert reason.endswith(
            "(not suppressed: rcpt.test refused too many recipients of several senders as unknown within an hour)"
        )
        await relay.until("/v1/tenants/other/suppressions", lambda answer: answer["total"] == 0)


async def test_entries_are_listed_and_undone_by_domain(tmp_path: Path, dns: DnsServer) -> None:
    async with (
        Mx(Script(rcpt=NOBODY)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        dns.set("other.test", "MX", "10 mx.rcpt.test.")
        for address in ("ann@rcpt.test", "bob@other.test"):
            await becomes(relay, await relay.send(address), "hardfail")
        code, out, err = await run(relay, "suppression", "list", "--domain", "OTHER.test", "--since", "2026-01-01")
        assert (code, out.count("bob@other.test"), out.count("ann@rcpt.test")) == (0, 1, 0), err
        code, out, err = await run(relay, "suppression", "undo", "--domain", "rcpt.test")
        assert (code, out) == (0, "ann@rcpt.test\n"), err
        assert await listed(relay) == [("bob@other.test", "failure")]


# What a delivery proves.

TEST_KEY = "ark_test_acme-0123456789abcdef"
WITH_TEST_KEY = f"""
[[credentials]]
name = "test"
type = "api"
secret = "{TEST_KEY}"
"""


async def test_any_delivery_lifts_a_failure_also_the_first_attempt(tmp_path: Path, dns: DnsServer) -> None:
    bob = Turns(Delay(2.0, NOBODY), None)
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": bob})) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        first, second = [await relay.send("bob@rcpt.test") for _ in range(2)]  # both in hand before an answer
        await becomes(relay, first, "hardfail")
        await becomes(relay, second, "sent")
        await relay.until(LIST, lambda answer: answer["total"] == 0)
        (event,) = (await relay.get("/v1/events?type=SuppressionRemoved"))["data"]["events"]
        assert event["data"] == {"address": "bob@rcpt.test", "reason": "delivered"}


@pytest.mark.parametrize("fake", ["test key", "capture", "simulator"])
async def test_what_never_left_lifts_nothing(tmp_path: Path, dns: DnsServer, fake: str) -> None:
    address = "ok@sim.test" if fake == "simulator" else "ann@rcpt.test"
    async with (
        Mx(Script(rcpt=NOBODY)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=MORE, tenant=WITH_TEST_KEY) as relay,
    ):
        dns.set("sim.test", "MX", "10 mx.rcpt.test.")
        config = relay.config.read_text()
        relay.config.write_text(config.replace("sim.test", "away.test"))
        await relay.call("POST", "/v1/control/reload")
        await becomes(relay, await relay.send(address), "hardfail")
        assert await listed(relay) == [(address, "failure")]
        relay.config.write_text(
            config.replace("[delivery]", '[delivery]\nmode = "capture"') if fake == "capture" else config
        )
        await relay.call("POST", "/v1/control/reload")
        if fake == "test key":
            url = f"http://127.0.0.1:{relay.port('http')}/v1/emails"
            letter = {"from": "app@sender.test", "to": [address], "subject": "x", "text": "x"}
            headers = {"Authorization": f"Bearer {TEST_KEY}"}
            async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=letter) as response:
                token = (await response.json())["data"]["id"]
        else:
            token = await relay.send(address)
        await becomes(relay, token, "held")
        await relay.call("POST", f"/v1/emails/{token}/retry")
        await becomes(relay, token, "sent")
        assert await listed(relay) == [(address, "failure")]


# Lists that come and go.


async def test_a_bad_line_anywhere_imports_nothing_or_is_skipped_alone(tmp_path: Path, dns: DnsServer) -> None:
    lines = [f"u{number}@x.test,{'9' * 20 if number == 550 else 1767225600}" for number in range(600)]
    text = "\n".join(["email,created", *lines])
    async with Relay(tmp_path, dns=dns.address) as relay:
        code, _, err = await run(relay, "suppression", "import", "-", given=text)
        assert code == 1
        assert "line 552: '99999999999999999999' is no time" in err
        assert (await relay.get(LIST))["total"] == 0
        code, out, err = await run(relay, "suppression", "import", "--skip-bad", "-", given=text)
        assert (code, out) == (0, "added: 599, on the list before: 0, lines skipped: 1 (sendgrid)\n"), err
        assert (await relay.get(LIST))["total"] == 599


async def test_blocks_of_another_service_are_passed_over_and_counted(tmp_path: Path, dns: DnsServer) -> None:
    blocks = (
        "status,reason,email,created\n"
        '550,"550 5.7.1 Service unavailable; client host blocked using Spamhaus",b@x.test,1767225600\n'
        "5.1.1,550 5.1.1 no such user,c@x.test,1767225600\n"
    )
    async with Relay(tmp_path, dns=dns.address) as relay:
        code, out, err = await run(relay, "suppression", "import", "-", given=blocks)
        assert (code, out) == (0, "added: 1, on the list before: 0, lines skipped: 1 (sendgrid)\n"), err
        assert "refused for the sender's sake, not the recipient's: 1 (--all imports them too)" in err
        assert await listed(relay) == [("c@x.test", "import")]
        code, out, err = await run(relay, "suppression", "import", "--all", "-", given=blocks)
        assert (code, out) == (0, "added: 1, on the list before: 1, lines skipped: 0 (sendgrid)\n"), err


@pytest.mark.parametrize("form", ["csv", "json"])
async def test_an_export_that_is_imported_again_is_the_same_list(tmp_path: Path, dns: DnsServer, form: str) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "other.toml").write_text(OTHER)
    (tmp_path / "tenants" / "other.toml").chmod(0o600)
    async with Relay(tmp_path, dns=dns.address, more=MORE, tenant=TENANT) as relay:
        for part in ("hardfail", "complaint", "unsubscribe"):
            await relay.send(f"{part}@sim.test")
        await relay.call("POST", LIST, {"address": "hand@x.test", "stream": "news"}, status=201)
        await relay.until(LIST, lambda answer: answer["total"] == 4)
        code, out, err = await run(relay, "suppression", "export", "--tenant", "acme", "--format", form)
        assert code == 0, err
        code, _, err = await run(relay, "suppression", "import", "--tenant", "other", "-", given=out)
        assert code == 0, err
        both = [
            [
                {name: value for name, value in row.items() if name != "id"}
                for row in (await relay.get(f"/v1/tenants/{tenant}/suppressions?sort=address"))["data"]
            ]
            for tenant in ("acme", "other")
        ]
        assert len(both[0]) == 4
        assert both[0] == both[1]
        code, out, err = await run(
            relay, "suppression", "undo", "--tenant", "other", "--class", "invalid_recipient", "--dry-run"
        )
        assert (code, out) == (0, "hardfail@sim.test\n"), err


async def test_an_import_that_adds_nothing_is_no_event(tmp_path: Path, dns: DnsServer) -> None:
    async with Relay(tmp_path, dns=dns.address) as relay:
        for given in ("a@x.test\nb@x.test\n", "a@x.test\n", "b@x.test\nc@x.test\n"):
            code, _, err = await run(relay, "suppression", "import", "-", given=given)
            assert code == 0, err
        found = (await relay.get("/v1/events?type=SuppressionAdded"))["data"]["events"]
        assert [one["data"] for one in found] == [
            {"addresses": 2, "by": "import"}, {"addresses": 1, "by": "import"},
        ]  # fmt: skip


async def test_an_export_misses_no_address_while_others_leave_the_list(tmp_path: Path, dns: DnsServer) -> None:
    async with Relay(tmp_path, dns=dns.address) as relay:
        entries = [{"address": f"w{number:03}@x.test"} for number in range(900)]
        await relay.call("POST", f"{LIST}/import", {"entries": entries})
        found: list[str] = []
        page = "sort=address&perPage=100"
        after = ""
        while some := (await relay.get(f"{LIST}?{page}{after}"))["data"]:
            found += [one["address"] for one in some]
            after = f"&afterAddress={found[-1]}"
            for address in found[-20:]:  # the place of the next page, were it counted
                await relay.call("DELETE", f"{LIST}/{address}")
        assert found == [one["address"] for one in entries]
        code, out, err = await run(relay, "suppression", "export")
        assert code == 0, err
        assert [line.partition(",")[0] for line in out.splitlines()[1:]] == [
            address for number, address in enumerate(found) if number % 100 < 80
        ]


async def test_streams_are_told_and_removed_one_by_one(tmp_path: Path, dns: DnsServer) -> None:
    async with Relay(tmp_path, dns=dns.address) as relay:
        for stream in ("news", "promo", "offers"):
            await relay.call("POST", LIST, {"address": "ann@x.test", "reason": "x", "stream": stream}, status=201)
        code, out, err = await run(relay, "suppression", "check", "ann@x.test")
        assert code == 0, err
        assert re.findall(r"with the tag (\w+) since", out) == ["news", "offers", "promo"]
        code, _, err = await run(relay, "suppression", "remove", "--stream", "promo", "ann@x.test")
        assert code == 0, err
        await relay.call("DELETE", f"{LIST}/ann@x.test?stream=promo", status=404)
        state = (await relay.get(f"{LIST}/ann@x.test"))["data"]
        assert (state["suppressed"], [one["stream"] for one in state["entries"]]) == (True, ["news", "offers"])
        await relay.call("DELETE", f"{LIST}/ann@x.test")
        assert (await relay.get(f"{LIST}/ann@x.test"))["data"]["entries"] == []


# What `why` says of them.


async def test_why_tells_of_a_listed_address_to_its_own_tenant(tmp_path: Path, dns: DnsServer) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "other.toml").write_text(OTHER)
    (tmp_path / "tenants" / "other.toml").chmod(0o600)
    async with Relay(tmp_path, dns=dns.address) as relay:
        await relay.call("POST", LIST, {"address": "Ann@rcpt.test", "reason": "asked"}, status=201)
        body = {"address": "ann@rcpt.test", "reason": "wrote", "stream": "news"}
        await ask(relay, "POST", "/v1/tenants/other/suppressions/import", {"entries": [body]})
        code, out, err = await run(relay, "why", "ann@RCPT.test")
        assert code == 0, err
        assert re.search(
            r"Ann@rcpt\.test is on the suppression list of acme since .* by a person \(reason: asked\)", out
        )
        assert "of other since" in out
        (said,) = (await ask(relay, "GET", "/v1/why?q=ann@rcpt.test"))["data"]["sentences"]
        assert said["sentence"].endswith("by an import (reason: wrote): mail with the tag news is held.")
        code, _, err = await run(relay, "why", "bob@rcpt.test")
        assert code == 1
        assert "nothing is known of bob@rcpt.test" in err


async def test_why_tells_what_a_tenant_has_left_and_what_is_paused(tmp_path: Path, dns: DnsServer) -> None:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "other.toml").write_text(OTHER)
    (tmp_path / "tenants" / "other.toml").chmod(0o600)
    limits = "[limits]\nhourly = 500\n" + WITH_TEST_KEY + "hold = true\n"
    async with (
        Mx(Script(rcpt=NOBODY)) as mx,
        Relay(
            tmp_path,
            dns=dns.address,
            mx_port=mx.port,
            tenant=limits,
            more="[suppression]\nburst_recipients = 10\n",
        ) as relay,
    ):
        for token in [await relay.send(f"n{number}@rcpt.test") for number in range(12)]:
            await becomes(relay, token, "hardfail")
        code, out, err = await run(relay, "why", "acme")
        assert code == 0, err
        assert re.search(
            r"acme has sent to \d+ recipients? this hour, of 500 that its limit allows; it starts anew", out
        )
        assert "The key test is on hold: its file says so." in out
        assert re.search(r"rcpt\.test suppresses nobody until .*: rcpt\.test refused 1\d of 1\d recipients", out)
        (said,) = (await ask(relay, "GET", "/v1/why?q=other"))["data"]["sentences"]
        assert said["sentence"] == "other has sent to 0 recipients this hour, and has no limit."
        body = {"from": "app@other.test", "to": ["one@rcpt.test"], "subject": "x", "text": "x", "tenantId": "other"}
        await ask(relay, "POST", "/v1/emails", body)
        (said,) = (await ask(relay, "GET", "/v1/why?q=other"))["data"]["sentences"]
        assert "other has sent to 1 recipient this hour" in said["sentence"]
        url = f"http://127.0.0.1:{relay.port('http')}/v1/why?q=acme"
        headers = {"Authorization": f"Bearer {OTHER_KEY}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
            assert response.status == 404


async def test_why_tells_which_record_of_a_sender_domain_fails_and_since_when(tmp_path: Path, dns: DnsServer) -> None:
    right_records(dns)
    relay = Relay(tmp_path, dns=dns.address)
    acme = tmp_path / "tenants" / "acme.toml"
    acme.write_text(acme.read_text().replace("trusted = true\n", ""))
    acme.chmod(0o600)

    async def said() -> str:
        (one,) = (await relay.get("/v1/why?q=Sender.test"))["data"]["sentences"]
        return str(one["sentence"])

    async with relay:
        await relay.until("/v1/tenants/acme/domains", lambda answer: answer["data"]["domains"][0]["verified"])
        assert (await said()).startswith("sender.test is verified: acme may send from it (DNS checked 20")
        dns.remove("psrp.sender.test")
        await relay.stop()
        with contextlib.closing(sqlite3.connect(relay.state / "arkrelay.db")) as db, db:
            db.execute("UPDATE domain_states SET checked_at = checked_at - 8000")  # two hours go by
        await relay.start()
        await relay.until("/v1/events?type=DomainDNSError", lambda answer: answer["data"]["events"])
        sentence = await said()
        assert re.match(
            r"sender\.test is not verified since 20\d\d-\S+ \S+ UTC for acme: return path missing \(", sentence
        )
        assert "SPF" not in sentence
        assert "(DNS checked 20" in sentence
