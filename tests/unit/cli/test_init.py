"""init: a directory in which everything works at once."""

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.cli.support import Program

from arkrelay.cli import init
from arkrelay.config.load import load


def test_init_leaves_a_configuration_without_problems(program: Program, home: Path) -> None:
    folder = home / "new"
    ran = program("init", str(folder), "--hostname", "Relay.Example.com", "--domain", "example.com")
    assert ran.code == 0, ran.err
    snapshot = load(folder / "arkrelay.toml")
    assert not snapshot.warnings
    assert snapshot.settings.hostname == "relay.example.com"
    assert snapshot.settings.state_dir == folder / "state"
    assert [(one.service, one.address, one.tls) for one in snapshot.listeners] == [
        ("submission", "127.0.0.1:2525", "optional"),
        ("submission", "127.0.0.1:2587", "required"),
        ("http", "127.0.0.1:8025", "none"),
    ]
    assert snapshot.owner_of("example.com") is not None
    assert program("check", "-c", str(folder / "arkrelay.toml")).code == 0


def test_init_shows_the_password_once_and_the_next_three_steps(program: Program, home: Path) -> None:
    folder = home / "new"
    ran = program("init", str(folder), "--hostname", "relay.example.com", "--domain", "example.com")
    config = folder / "arkrelay.toml"
    snapshot = load(config)
    key = next(line.split()[-1] for line in ran.out.splitlines() if line.startswith("smtp password"))
    assert snapshot.find_credential(key) is not None
    for text in (
        "_domainkey",
        "v=spf1 a mx include:spf.relay.example.com ~all",
        "rp.relay.example.com",
        f"arkrelay serve -c {config}",
        f"arkrelay domain verify -c {config} example.com",
        f"--auth-user main/first --auth-password {key}",
    ):
        assert text in ran.out
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in written)


def test_init_keeps_secrets_to_the_owner(program: Program, home: Path) -> None:
    folder = home / "new"
    program("init", str(folder), "--hostname", "relay.example.com")
    modes = {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes["state"] == modes["state/keys"] == modes["state/keys/dkim"] == modes["tenants"] == 0o700
    assert modes["state/keys/host.key"] == modes["tenants/main.toml"] == modes["tls/key.pem"] == 0o600
    assert {mode for name, mode in modes.items() if "/dkim/" in name} == {0o600}


def test_init_never_overwrites(program: Program, home: Path) -> None:
    folder = home / "new"
    assert program("init", str(folder), "--hostname", "relay.example.com").code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ran = program("init", str(folder), "--hostname", "relay.example.com")
    assert ran.code == 1
    assert "exists already" in ran.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "arkrelay.toml").unlink()
    assert program("init", str(folder), "--hostname", "relay.example.com").code == 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--hostname", "no_name"), 1, "no_name: "),
        (("--domain", "a..b"), 1, "a..b: "),
        (("--tenant", "Not An Id"), 2, "Not An Id: "),
    ],
)
def test_bad_names_are_refused_before_anything_is_written(
    program: Program, home: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    ran = program("init", str(home / "new"), *words)
    assert ran.code == code
    assert text in ran.err
    assert not (home / "new").exists()


def test_a_path_too_long_for_the_socket_is_refused(program: Program, home: Path) -> None:
    ran = program("init", str(home / ("x" * 100)), "--hostname", "relay.example.com")
    assert ran.code == 1
    assert "too long" in ran.err
    assert not (home / ("x" * 100)).exists()


def test_a_machine_without_a_domain_gets_an_example_name(
    program: Program, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    monkeypatch.setattr("socket.getfqdn", lambda: "localhost.localdomain")
    ran = program("init", str(home / "new"), "--json")
    assert ran.code == 0
    assert "change it" in ran.err
    made = json.loads(ran.out)
    assert (made["hostname"], made["domain"]["name"]) == ("relay.example.com", "example.com")
    assert made["credential"]["smtpUsername"] == "main/first"
    assert len(made["next"]) == 3
    assert set(made["domain"]["dnsRecords"]) == {"zone", "spf", "dkim", "returnPath"}


def test_the_directory_of_config_is_taken_when_none_is_named(program: Program, home: Path) -> None:
    folder = home / "other"
    assert program("-c", str(folder / "arkrelay.toml"), "init", "--hostname", "relay.example.com").code == 0
    assert (folder / "tenants" / "main.toml").exists()
    ran = program("init", "-c", str(home / "third" / "mail.toml"))
    assert ran.code == 1
    assert "give it a DIR" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_systems_files_belong_to_the_services_user(
    program: Program, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, state_dir = home / "etc", home / "lib"
    monkeypatch.setattr(init, "DEFAULT_CONFIG", etc / "arkrelay.toml")
    monkeypatch.setattr(init, "STATE_DIR", state_dir)
    monkeypatch.setattr("pwd.getpwnam", lambda name: SimpleNamespace(pw_uid=1234, pw_gid=1235))
    ran = program("init", str(etc), "--hostname", "relay.example.com")
    assert ran.code == 0, ran.err
    owners = {path: path.stat().st_uid for top in (state_dir, etc) for path in (top, *top.rglob("*"))}
    assert owners[etc] == owners[etc / "arkrelay.toml"] == 0
    assert {owner for path, owner in owners.items() if path.name not in {"etc", "arkrelay.toml"}} == {1234}
    assert load(etc / "arkrelay.toml").settings.state_dir == state_dir
