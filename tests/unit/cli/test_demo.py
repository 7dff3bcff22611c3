"""The demonstration: its peers, and the whole of it as a process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from arkrelay.cli.demo_peers import Zone
from arkrelay.cli.demo_relay import free_ports
from arkrelay.cli.demo_story import Story


def ask(zone: Zone, name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    return zone.answer(dns.message.from_wire(query.to_wire()))


def test_the_zone_answers_as_dns_does() -> None:
    zone = Zone()
    zone.add("Example.test", "MX", "10 mx.example.test.")
    zone.add("psrp.example.test", "CNAME", "rp.example.test.")
    zone.add("rp.example.test", "A", "127.0.0.1")
    zone.add("a.b.example.test", "A", "127.0.0.1")
    assert ask(zone, "example.TEST", "MX").answer[0][0].to_text() == "10 mx.example.test."
    assert [rrset.rdtype.name for rrset in ask(zone, "psrp.example.test", "A").answer] == ["CNAME", "A"]
    assert ask(zone, "nobody.test", "A").rcode() == dns.rcode.NXDOMAIN
    for name, kind in (("example.test", "A"), ("b.example.test", "A")):
        found = ask(zone, name, kind)
        assert (found.rcode(), found.answer) == (dns.rcode.NOERROR, [])


def test_long_text_is_split_and_joined_again() -> None:
    zone, text = Zone(), "v=DKIM1; p=" + 'a"\\' * 200
    zone.add_text("k._domainkey.example.test", text)
    assert zone.texts("k._domainkey.example.test") == [text]
    assert zone.texts("other.test") == []


def test_a_story_holds_only_when_everything_does() -> None:
    good = {
        "how": "SMTP",
        "id": "t",
        "author": "a@x",
        "recipient": "b@x",
        "delivered": True,
        "host": "mx",
        "tls": "TLSv1.3",
        "dkim": True,
        "dkim_text": "ok",
        "status": "sent",
        "why": "Sent.",
        "took_s": 0.1,
    }
    assert Story(**good).held  # type: ignore[arg-type]  # a table of all fields
    for name, value in (("delivered", False), ("tls", ""), ("dkim", False), ("status", "pending")):
        assert not Story(**{**good, name: value}).held  # type: ignore[arg-type]  # likewise


def test_free_ports_differ() -> None:
    assert len(set(free_ports())) == 3


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a short name: the path of a socket has 107 bytes (unix(7)), and a test's name takes many."""
    return tmp_path_factory.mktemp("demo")


def test_the_whole_demonstration_holds_and_leaves_nothing(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arkrelay", "demo", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
        env={**os.environ, "TMPDIR": str(place)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert [(story["how"], story["status"], story["ok"]) for story in told["messages"]] == [
        ("SMTP", "sent", True),
        ("REST", "sent", True),
    ]
    assert all(story["why"].startswith("Sent") for story in told["messages"])
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_kept_demonstration_ends_cleanly(place: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "arkrelay", "demo", "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("It runs until"):
                break
        folder = next(place.iterdir())
        assert any(line.startswith("smtp password") for line in lines), lines
        status = subprocess.run(
            [sys.executable, "-m", "arkrelay", "status", "-c", str(folder / "arkrelay.toml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert status.returncode == 0, status.stderr
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(50) == 0, rest
    assert list(place.iterdir()) == []
