"""`arkrelay doctor`: all is well where all is right, and each thing that is broken is the line that says so."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, closed_port
from peers.world import KEY, LIST, NAMES, PTR, SOURCE, right_records, sound

HERE = {"clock", "dnssec"}  # of the machine that runs the tests

Row = dict[str, Any]


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        right_records(server)
        yield server


async def doctor(relay: Relay, *words: str) -> tuple[int, str]:
    """Run the command and return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "arkrelay", "doctor", "-c", str(relay.config), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **relay.environment},
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, out.decode() + err.decode()


async def findings(relay: Relay) -> list[Row]:
    found: list[Row] = (await relay.get("/v1/doctor?fresh=true"))["data"]["findings"]
    return [one for one in found if one["check"] not in HERE]


def bad(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(row["check"], row["subject"], row["level"]) for row in rows if row["level"] in {"warn", "fail"}]


async def test_where_all_is_right_every_line_is_ok_and_the_exit_status_0(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as probe, sound(tmp_path, dns, closed_port(), probe=f"127.0.0.1:{probe.port}") as relay:
        status, text = await doctor(relay, "--fresh")
        assert status == 0, text
        rows = await findings(relay)
        assert bad(rows) == []
        assert {row["check"] for row in rows if row["level"] == "skip"} == {"mta-sts", "relay"}
        counts = (await relay.get("/v1/status"))["data"]["doctor"]
        assert counts["fail"] == 0
        assert counts["ok"] >= 18
        assert (len(probe.conversations), probe.messages) == (2, [])  # a connection each time, never a message


BROKEN: list[Any] = [
    pytest.param(lambda dns: dns.remove(PTR), "ptr", SOURCE, "fail", "set it to relay.test", id="no-ptr"),
    pytest.param(lambda dns: dns.set(PTR, "PTR", "a.test."), "ptr", SOURCE, "fail", "A record 127.0.0.3", id="ptr"),
    pytest.param(
        lambda dns: dns.set("spf.relay.test", "TXT", "v=spf1 ip4:192.0.2.1 -all"),
        "spf",
        "sender.test",
        "fail",
        "spf.relay.test",
        id="spf-include-does-not-pass",
    ),
    pytest.param(
        lambda dns: dns.set("rp.relay.test", "TXT", "v=spf1 a:nowhere.test a:no.test mx:never.test -all"),
        "return-path-spf",
        "rp.relay.test",
        "fail",
        "ip4:127.0.0.3",
        id="void-look-ups",
    ),
    pytest.param(
        lambda dns: dns.set("relay.test", "TXT", "nothing"), "helo-spf", SOURCE, "warn", "a -all", id="helo"
    ),
    pytest.param(
        lambda dns: dns.remove("rp.relay.test", "MX"), "return-path-mx", "rp.relay.test", "fail", "MX", id="mx"
    ),
    pytest.param(
        lambda dns: dns.remove("_dmarc.sender.test"), "dmarc", "_dmarc.sender.test", "warn", "p=none", id="no-dmarc"
    ),
    pytest.param(
        lambda dns: dns.set("_dmarc.sender.test", "TXT", "v=DMARC1; p=none", "v=DMARC1; p=reject"),
        "dmarc",
        "_dmarc.sender.test",
        "fail",
        "p=none",
        id="two-dmarc",
    ),
    pytest.param(
        lambda dns: dns.set("_dmarc.sender.test", "TXT", "v=DMARC1; p=none; aspf=s"),
        "alignment",
        "sender.test",
        "warn",
        "aspf=s",
        id="strict-spf",
    ),
    pytest.param(
        lambda dns: dns.set("_dmarc.sender.test", "TXT", "v=DMARC1; p=none; rua=mailto:us@reports.test"),
        "dmarc",
        "_dmarc.sender.test",
        "warn",
        'sender.test._report._dmarc.reports.test. TXT "v=DMARC1"',
        id="nobody-agreed-to-get-the-reports",
    ),
    pytest.param(
        lambda dns: dns.remove("sender.test", "MX"), "replies", "sender.test", "warn", "MX", id="no-replies"
    ),
    pytest.param(
        lambda dns: dns.set(f"3.0.0.127.{LIST}", "A", "127.0.0.4"),
        "blocklist",
        f"{SOURCE} {LIST}",
        "fail",
        "ask for removal",
        id="listed",
    ),
    pytest.param(
        lambda dns: dns.set(f"3.0.0.127.{LIST}", "A", "127.255.255.254"),
        "blocklist",
        f"{SOURCE} {LIST}",
        "warn",
        "resolver of your own",
        id="the-list-refuses-the-resolver",
    ),
    pytest.param(
        lambda dns: dns.set(f"1.0.0.127.{LIST}", "A", "127.0.0.2"),
        "blocklist",
        f"{SOURCE} {LIST}",
        "warn",
        "take ip.list.test out",
        id="the-list-has-everything",
    ),
    pytest.param(
        lambda dns: dns.set(f"3.0.0.127.{LIST}", "A", "203.0.113.9"),
        "blocklist",
        f"{SOURCE} {LIST}",
        "warn",
        "does not redirect",
        id="the-resolver-redirects",
    ),
    pytest.param(
        lambda dns: dns.remove(f"test.{NAMES}"),
        "domain-blocklist",
        f"sender.test {NAMES}",
        "warn",
        "out of [doctor]",
        id="the-list-is-dead",
    ),
    pytest.param(
        lambda dns: dns.fail("_dmarc.sender.test", "TXT", "servfail"),
        "dmarc",
        "_dmarc.sender.test",
        "fail",
        "receivers see the same",
        id="servfail",
    ),
]


async def test_each_thing_that_is_broken_is_the_one_line_that_says_so(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        for case in BROKEN:
            change, check, subject, level, advice = case.values
            change(dns)
            rows = await findings(relay)
            assert bad(rows) == [(check, subject, level)], (case.id, rows)
            row = next(row for row in rows if row["check"] == check and row["subject"] == subject)
            assert advice in row["advice"], (case.id, row)
            dns.heal()
            for name in (f"3.0.0.127.{LIST}", f"1.0.0.127.{LIST}"):
                dns.remove(name)
            right_records(dns)
        assert bad(await findings(relay)) == []


async def test_reports_about_mail_go_where_they_are_wanted(tmp_path: Path, dns: DnsServer) -> None:
    boxes = ("us@sender.test", "us@in.sender.test", "us@reports.test")
    async with sound(tmp_path, dns, closed_port()) as relay:
        dns.set("_dmarc.sender.test", "TXT", f"v=DMARC1; p=none; rua={','.join(f'mailto:{one}' for one in boxes)}")
        assert bad(await findings(relay)) == [("dmarc", "_dmarc.sender.test", "warn")]
        dns.set("sender.test._report._dmarc.reports.test", "TXT", "v=DMARC1;")
        assert bad(await findings(relay)) == []
        dns.fail("sender.test._report._dmarc.reports.test", "TXT", "servfail")  # whether they are wanted is not known
        assert bad(await findings(relay)) == []
        dns.set("_dmarc.sender.test", "TXT", f"v=DMARC1; p=none; rua=mailto:us@{'x' * 80}.test")  # no name of DNS
        assert bad(await findings(relay)) == [("dmarc", "_dmarc.sender.test", "warn")]


async def test_a_key_that_is_not_ours_fails_with_its_alignment_left_to_spf(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        dns.set(KEY, "TXT", "v=DKIM1; k=rsa; p=AAAA")
        assert bad(await findings(relay)) == [("dkim", KEY, "fail"), ("alignment", "sender.test", "warn")]
        status, text = await doctor(relay, "--domain", "sender.test")
        assert status == 1
        assert "publish the record: arkrelay domain dns sender.test" in text
        assert (await doctor(relay, "--domain", "sender.test", "--only", "dmarc"))[0] == 0
        assert (await doctor(relay, "--skip", "dkim", "--only", "alignment", "--strict"))[0] == 1
        dns.set("psrp.sender.test", "CNAME", "elsewhere.test.")
        dns.set(KEY, "TXT", "")
        await findings(relay)
        status, text = await doctor(relay, "--json")
        rows = {row["check"]: row for row in json.loads(text)["findings"]}
        assert (rows["return-path"]["level"], rows["alignment"]["level"]) == ("fail", "fail")
        assert rows["return-path"]["advice"] == "publish psrp.sender.test. CNAME rp.relay.test."


async def test_a_certificate_is_judged_by_its_names_its_days_and_its_chain(tmp_path: Path, dns: DnsServer) -> None:
    made: list[tuple[Callable[[], certificates.Pair], str]] = [
        (lambda: certificates.valid("other.test"), "get one that has relay.test"),
        (lambda: certificates.expired("relay.test"), "renew it"),
        (lambda: certificates.self_signed("relay.test"), "by ACME"),
    ]
    async with sound(tmp_path, dns, closed_port()) as relay:
        text = relay.config.read_text()
        for make, advice in made:
            pair = make()
            pair.private_key.chmod(0o600)
            valid = certificates.valid("relay.test")
            changed = text.replace(str(valid.certificate), str(pair.certificate))
            relay.config.write_text(changed.replace(str(valid.private_key), str(pair.private_key)))
            await relay.call("POST", "/v1/control/reload")
            (row,) = [row for row in await findings(relay) if row["check"] == "certificate"]
            assert row["level"] in {"warn", "fail"}
            assert advice in row["advice"], row


async def test_files_that_others_can_read_are_named(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        other = relay.state / "keys" / "left-behind.pem"
        other.write_text("x")
        other.chmod(0o644)
        (row,) = [row for row in await findings(relay) if row["check"] == "files"]
        assert (row["level"], row["advice"]) == ("fail", f"chmod o-rwx {other}")


async def test_what_changes_is_an_event_a_log_line_and_a_metric_and_a_restart_tells_nothing_again(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with sound(tmp_path, dns, closed_port(), doctor='every = "300ms"') as relay:
        await relay.until("/v1/doctor", lambda one: one["data"]["checkedAt"] is not None)
        dns.set(f"3.0.0.127.{LIST}", "A", "127.0.0.4")
        kinds = "/v1/events?type=DoctorChanged"

        def told(answer: Row) -> list[Row]:
            return [one["data"] for one in answer["data"]["events"] if one["data"]["check"] == "blocklist"]

        await relay.until(kinds, lambda one: len(told(one)) == 1)
        assert {"fail"} == {
            one["verdict"] for one in await relay.logged("doctor_changed") if one["check"] == "blocklist"
        }
        await relay.stop()
        await relay.start()
        await relay.get("/v1/doctor?fresh=true&domain=sender.test")  # must not forget what it does not look at
        await relay.until("/v1/status", lambda one: one["data"]["doctor"] is not None)
        dns.remove(f"3.0.0.127.{LIST}")
        answer = await relay.until(kinds, lambda one: len(told(one)) == 2)
        assert [(one["before"], one["level"]) for one in told(answer)] == [("ok", "fail"), ("fail", "ok")]


async def test_without_the_daemon_it_looks_at_what_needs_none(tmp_path: Path, dns: DnsServer) -> None:
    relay = sound(tmp_path, dns, closed_port())
    status, text = await doctor(relay)
    assert status == 0, text
    assert "the daemon is not running" in text
    dns.remove(PTR)
    status, text = await doctor(relay, "--json")
    assert status == 1
    assert json.loads(text.rpartition("}")[0] + "}")["running"] is False


async def test_a_silent_resolver_is_the_one_thing_that_fails(tmp_path: Path, dns: DnsServer) -> None:
    async with sound(tmp_path, dns, closed_port()) as relay:
        dns.fail("*", "*", "refused")
        rows = await findings(relay)
        failed = {row["check"] for row in rows if row["level"] == "fail"}
        assert failed == {"resolver"}
