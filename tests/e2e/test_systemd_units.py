"""The files in systemd/: what systemd itself says of them, and whether the daemon can live with what they forbid."""

import asyncio
import functools
import os
import re
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers import certificates
from peers.dns import DnsServer
from peers.mx import Mx, Script
from peers.systemd import WAIT_S, Launched, write_certificate

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "arkrelay.service"
PROGRAM = "/opt/arkrelay/bin/arkrelay"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


def unit(path: Path) -> dict[str, list[str]]:
    """Return the settings of a unit file, in their order; a repeated one has several values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def run(*command: str | Path, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0", **(environment or {})},
    )


def test_systemd_finds_nothing_wrong_in_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, "/bin/true"))
    units = sorted([*tmp_path.glob("*.service"), *tmp_path.glob("*.socket")])
    assert len(units) == 4
    done = run("systemd-analyze", "verify", "--man=no", *units, environment={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    assert (done.returncode, [line for line in done.stderr.splitlines() if "arkrelay" in line]) == (0, [])


def test_the_service_can_do_little_else(tmp_path: Path) -> None:
    done = run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", SERVICE)
    found = re.search(r"Overall exposure level for arkrelay.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= 2.0
    assert done.returncode == 0


def test_user_and_folders_are_made_as_the_service_needs_them(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes users, even below another root")
    for folder, source in (("sysusers.d", "arkrelay.sysusers.conf"), ("tmpfiles.d", "arkrelay.tmpfiles.conf")):
        (tmp_path / "etc" / folder).mkdir(parents=True)
        shutil.copy(UNITS / source, tmp_path / "etc" / folder / "arkrelay.conf")
    done = run("systemd-sysusers", f"--root={tmp_path}")
    assert (done.returncode, "arkrelay" in (tmp_path / "etc/passwd").read_text()) == (0, True), done.stderr
    name, _, user_id, group_id, *_, home, shell = (
        next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("arkrelay:"))
    ).split(":")
    settings = unit(SERVICE)
    assert (name, home, shell) == (settings["User"][0], "/var/lib/arkrelay", "/usr/sbin/nologin")
    (tmp_path / "etc/arkrelay").mkdir()
    (tmp_path / "etc/arkrelay/arkrelay.toml").write_text("")
    (tmp_path / "etc/arkrelay/arkrelay.toml").chmod(0o644)
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "arkrelay.conf")
    assert done.returncode == 0, done.stderr
    daemon = int(user_id), int(group_id)
    for path, mode, owner in (
        ("etc/arkrelay", int(settings["ConfigurationDirectoryMode"][0], 8), (0, daemon[1])),
        ("etc/arkrelay/arkrelay.toml", 0o644, (0, daemon[1])),
        ("etc/arkrelay/platform.toml", 0o600, daemon),
        ("etc/arkrelay/tenants", 0o700, daemon),
        ("var/lib/arkrelay", int(settings["StateDirectoryMode"][0], 8), daemon),
    ):
        status = (tmp_path / path).stat()
        assert (path, oct(status.st_mode & 0o7777)) == (path, oct(mode))
        assert (path, status.st_uid, status.st_gid) == (path, *owner)


@pytest.mark.parametrize(("name", "port"), [("bounces", "25"), ("submission", "587"), ("submissions", "465")])
def test_each_socket_is_named_as_its_service(name: str, port: str) -> None:
    settings = unit(UNITS / f"arkrelay-{name}.socket")
    assert settings["ListenStream"] == [port]
    assert settings["FileDescriptorName"] == [name]
    assert settings["Service"] == ["arkrelay.service"]


@functools.cache
def call_groups() -> dict[str, set[str]]:
    """Return what systemd's names for groups of system calls stand for."""
    groups: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in run("systemd-analyze", "--no-pager", "syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.add(line.strip())
        elif not line.startswith(" "):  # an empty line, or the calls of no group
            current = set()
    return groups


def expand(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    return set().union(*(expand(member) for member in call_groups()[name]))


def allowed_calls() -> set[str]:
    allowed = expand("@default")
    for value in unit(SERVICE)["SystemCallFilter"]:
        names = set().union(*(expand(name) for name in value.removeprefix("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


@pytest.mark.timeout(180)
async def test_the_daemon_makes_no_system_call_that_its_unit_forbids(tmp_path: Path, dns: DnsServer) -> None:
    write_certificate(tmp_path)
    more = '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n[[listen]]\nservice = "submission"\n'
    tls = certificates.valid("mx.rcpt.test").server_context()
    async with Mx(Script(tls=tls)) as mx:
        relay = Launched(tmp_path, dns=dns.address, mx_port=mx.port, more=more + 'address = "127.0.0.1:0"\n')
        # -D: the daemon stays our child, and gets our signals
        relay.prefix = ["strace", "-D", "-f", "-q", "-s", "0", "-o", tmp_path / "trace"]
        relay.prefix += ["-e", "inject=io_uring_setup:error=EPERM"]  # as the unit has it
        async with relay:
            doors = [
                int(one["address"].rpartition(":")[2]) for one in relay.listeners if one["service"] == "submission"
            ]
            await asyncio.to_thread(send_by_starttls, doors[1])
            await relay.send("large@rcpt.test", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 8000)
            await mx.wait(2, 60)
            await relay.call("POST", "/v1/control/reload")
            await relay.get("/v1/events")
    async with asyncio.timeout(WAIT_S):  # strace ends a moment after the daemon
        while not (text := (tmp_path / "trace").read_text()).endswith("+++ exited with 0 +++\n"):
            await asyncio.sleep(0.05)
    calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>)", text, re.MULTILINE))
    assert {"accept4", "connect", "fdatasync"} <= calls, "the trace is not of a daemon at work"
    # SQLite and config.files give what they make to the owner of what is there, when they are root.
    as_root = {"chown", "fchown"} if os.geteuid() == 0 else set()
    assert calls - allowed_calls() - as_root - {"io_uring_setup"} == set()
    # MemoryDenyWriteExecute=: nothing is writable and executable, or made executable later (systemd.exec(5)).
    assert "PROT_WRITE|PROT_EXEC" not in text
    assert [line for line in text.splitlines() if "mprotect(" in line and "PROT_EXEC" in line] == []


def send_by_starttls(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.login("acme/production", "secret-of-production")
        client.sendmail("app@sender.test", ["ann@rcpt.test"], "From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n")
