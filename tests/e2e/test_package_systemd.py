"""The Debian package where systemd runs: started, reloaded, killed, upgraded under its sockets, removed."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from peers.machine import Machine, booted
from peers.packages import NEXT, ROOT, SETTINGS, Built, for_this_machine, queued
from peers.readme import BLOCKS

pytestmark = pytest.mark.timeout(400)

WAIT_S = 30.0
SOCKETS = ("arkrelay-submission.socket", "arkrelay-submissions.socket", "arkrelay-bounces.socket")


@pytest.fixture
def fresh(tmp_path: Path, need: Callable[[str | Path], Path]) -> Iterator[Machine]:
    """Give a machine that is up and has no arkrelay."""
    for_this_machine(need, Path("/lib/systemd/systemd"), "swaks")
    with booted(tmp_path) as made:
        yield made.without_arkrelay()


def shown(at: Machine, unit: str, *names: str) -> list[str]:
    """Return what systemd says of these properties of a unit."""
    said = at.run("systemctl", "show", unit, f"--property={','.join(names)}").stdout
    found = dict(line.split("=", 1) for line in said.splitlines())
    return [found[name] for name in names]


def becomes(at: Machine, *state: str) -> None:
    """Wait for a state of the service."""
    deadline = time.monotonic() + WAIT_S
    while (now := shown(at, "arkrelay.service", "ActiveState", "SubState")) != list(state):
        assert time.monotonic() < deadline, f"{now}\n{at.run('journalctl', '-u', 'arkrelay', '-n', '30').stdout}"
        time.sleep(0.1)


def waiting(at: Machine) -> list[str]:
    """Return to whom the mail is that waits."""
    return sorted(address for _, address in queued(at))


def sent(at: Machine, login: Sequence[str], to: str) -> bool:
    """Send a message to port 587, which systemd holds; False when a stop cut it off, and said so."""
    words = ("--server", "127.0.0.1:587", "--from", "app@example.com", "--to", to, "--timeout", "60", "-tls")
    login_words = ("--auth", "PLAIN", "--auth-user", login[0], "--auth-password", login[1])
    done = at.run("swaks", *words, *login_words, check=False)
    assert done.returncode == 0 or " 421 4.3.2 " in done.stdout, done.stdout + done.stderr
    return done.returncode == 0


def installed(at: Machine, deb: Path) -> list[str]:
    """Install and configure as the README says, for mail that goes nowhere; return a name and its password."""
    at.run("dpkg", "-i", deb)
    said = at.run("bash", "-euc", BLOCKS["vps"]).stdout
    with (at.root / "etc/arkrelay/arkrelay.toml").open("a") as config:
        config.write(SETTINGS)
    tenant = at.root / "etc/arkrelay/tenants/main.toml"
    tenant.write_text(tenant.read_text().replace('name = "example.com"\n', 'name = "example.com"\ntrusted = true\n'))
    return re.findall(r"^smtp (?:name|password) +(\S+)", said, re.MULTILINE)


def test_it_lives_under_systemd_from_installation_to_purge(fresh: Machine, built: Built, next_deb: Path) -> None:
    earlier, later = fresh.take(built.deb), fresh.take(next_deb)
    fresh.run(
        "mkdir", "-p", "/etc/systemd/system/multi-user.target.wants", "/etc/systemd/system/sockets.target.wants"
    )
    login = installed(fresh, earlier)
    assert shown(fresh, "arkrelay.service", "ActiveState") == ["inactive"]  # it is the administrator's to say
    started = re.search(r"^systemctl enable --now .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert started is not None
    fresh.run("bash", "-euc", started[0])
    becomes(fresh, "active", "running")
    assert fresh.run("systemctl", "is-enabled", "arkrelay", *SOCKETS).stdout.split() == ["enabled"] * 4
    assert sent(fresh, login, "ann@rcpt.test")
    assert waiting(fresh) == ["ann@rcpt.test"]

    config = fresh.root / "etc/arkrelay/arkrelay.toml"
    good = config.read_text()
    fresh.run("systemctl", "reload", "arkrelay")
    config.write_text(good + "nonsense = 1\n")
    assert fresh.run("systemctl", "reload", "arkrelay", check=False).returncode == 1
    assert "nonsense" in fresh.run("journalctl", "-u", "arkrelay").stdout
    becomes(fresh, "active", "running")
    config.write_text(good)

    (pid,) = shown(fresh, "arkrelay.service", "MainPID")
    fresh.run("kill", "-KILL", pid)
    assert sent(fresh, login, "bob@rcpt.test")  # its client waits in the socket until it is back
    becomes(fresh, "active", "running")
    assert shown(fresh, "arkrelay.service", "NRestarts") == ["1"]
    (again,) = shown(fresh, "arkrelay.service", "MainPID")
    assert again != pid
    assert waiting(fresh) == ["ann@rcpt.test", "bob@rcpt.test"]

    told: list[str] = []
    upgraded = threading.Event()
    client = threading.Thread(target=lambda: told.extend(meanwhile(fresh, login, upgraded)))
    client.start()
    try:
        fresh.run("dpkg", "-i", later)
        becomes(fresh, "active", "running")
    finally:
        upgraded.set()
        client.join()
    assert fresh.run("arkrelay", "--version").stdout == f"arkrelay {NEXT}\n"
    assert shown(fresh, "arkrelay.service", "MainPID") != [again]
    assert told
    assert waiting(fresh) == sorted(["ann@rcpt.test", "bob@rcpt.test", *told])

    fresh.run("dpkg", "-r", "arkrelay")
    assert fresh.run("systemctl", "is-active", "arkrelay", *SOCKETS, check=False).stdout.split() == ["inactive"] * 4
    assert fresh.run("swaks", "--server", "127.0.0.1:587", "--quit-after", "CONNECT", check=False).returncode == 2
    fresh.run("dpkg", "--purge", "arkrelay")
    assert fresh.files("/etc/arkrelay", "/var/lib/arkrelay") == set()
    assert [path for path in fresh.files("/etc/systemd/system") if "arkrelay" in path] == []
    assert fresh.run("systemctl", "--failed", "--quiet").stdout == ""


def meanwhile(at: Machine, login: Sequence[str], ended: threading.Event) -> Iterator[str]:
    """Send one message after the other until ``ended``; AssertionError when a connection is refused."""
    number = 0
    while not ended.is_set():
        to = f"m{number}@rcpt.test"
        if sent(at, login, to):
            yield to
        number += 1
