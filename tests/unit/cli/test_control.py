"""check, plan, reload, status."""

import json
from pathlib import Path

import pytest
from unit.cli.support import Double, Program

STATUS = {
    "version": "0.1.0",
    "hostname": "relay.example.com",
    "epoch": 4,
    "uptimeS": 93784.2,
    "ready": True,
    "reason": None,
    "listeners": [{"service": "submission", "address": "127.0.0.1:2525"}],
    "queue": {"pending": 2, "softfail": 1, "held": 0},
    "connections": 3,
    "postmaster": {"waiting": 7, "folder": "/s/postmaster"},
    "store": {"path": "/s/arkrelay.db", "walBytes": 4096, "freeBytes": 8_000_000_000},
}


def test_check_is_quiet_about_a_good_configuration(program: Program, tenant_file: Path) -> None:
    ran = program("check")
    assert ran.code == 0
    assert "ok (1 tenant, 1 domain, 0 credentials)" in ran.out


def test_check_prints_every_problem_on_its_line(program: Program, tenant_file: Path) -> None:
    tenant_file.write_text('name = 7\nnonsense = 1\n[[domains]]\nname = "-"\n')
    ran = program("check")
    assert ran.code == 1
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if line.startswith(str(tenant_file))]
    assert len(lines) == 3
    assert any(": nonsense: " in line for line in lines)
    assert "3 problems" in ran.err


def test_check_as_json(program: Program, tenant_file: Path) -> None:
    good = json.loads(program("check", "--json").out)
    assert good == {"ok": True, "problems": [], "warnings": [], "tenants": 1, "domains": 1, "credentials": 0}
    tenant_file.write_text("nonsense = 1\n")
    ran = program("check", "--json")
    bad = json.loads(ran.out)
    assert ran.code == 1
    assert not bad["ok"]
    assert {tuple(sorted(one)) for one in bad["problems"]} == {("file", "key", "reason")}
    assert {one["key"] for one in bad["problems"]} == {"name", "nonsense"}


def test_status_tells_a_person(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/status": STATUS}
    ran = program("status")
    assert ran.code == 0
    for text in (
        "ready",
        "1d 2h",
        "submission 127.0.0.1:2525",
        "2 pending, 1 softfail, 0 held",
        "8.0 GB",
        "7 to read in /s/postmaster",
    ):
        assert text in ran.out
    assert json.loads(program("status", "--json").out) == STATUS


def test_status_tells_which_files_are_not_in_force(program: Program, daemon: Double) -> None:
    problems = [
        {"file": "/e/tenants/acme.toml", "key": "limits.hourly", "reason": "must not be negative"},
        {"file": "/e/arkrelay.toml", "key": "", "reason": "is not TOML"},
    ]
    daemon.answers = {"GET /v1/status": {**STATUS, "configProblems": problems}}
    ran = program("status")
    assert ran.code == 0  # what was good goes on
    assert "/e/tenants/acme.toml: limits.hourly: must not be negative" in ran.out
    assert "/e/arkrelay.toml: is not TOML" in ran.out
    daemon.answers = {"GET /v1/status": {**STATUS, "configProblems": []}}
    assert "not in force" not in program("status").out


def test_status_ends_with_1_when_not_ready(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/status": {**STATUS, "ready": False, "reason": "the disk is full"}}
    ran = program("status")
    assert ran.code == 1
    assert "the disk is full" in ran.out


def test_status_without_a_daemon(program: Program) -> None:
    ran = program("status")
    assert ran.code == 1
    assert "does not answer" in ran.err
    assert "systemctl start arkrelay" in ran.err


def test_reload_tells_what_changed_and_what_waits_for_a_restart(program: Program, daemon: Double) -> None:
    effect = {"changes": ["tenant beta: added"], "restart": ["listen"]}
    daemon.answers = {"POST /v1/control/reload": effect}
    assert program("reload").out.splitlines() == ["tenant beta: added", "needs a restart: listen"]
    assert json.loads(program("reload", "--json").out) == {"reloaded": True, **effect}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refused_reload_shows_the_problems(program: Program, daemon: Double, as_json: bool) -> None:
    problem = {"file": "/e/acme.toml", "key": "name", "reason": "expected a string"}
    answer = {"success": False, "error": {"message": "the configuration is broken"}, "problems": [problem]}
    daemon.answers = {"POST /v1/control/reload": (422, answer)}
    ran = program("reload", *(["--json"] if as_json else []))
    assert ran.code == 1
    if as_json:
        assert json.loads(ran.out) == {"reloaded": False, "problems": [problem]}
    else:
        assert "/e/acme.toml: name: expected a string" in ran.err
        assert "last good" in ran.err


def test_plan_shows_and_changes_nothing(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/control/plan": {"changes": ["limits changed"], "restart": []}}
    assert program("plan").out == "limits changed\n"
    assert [asked.method for asked in daemon.asked] == ["GET"]


def test_plan_of_broken_files_fails_with_or_without_a_daemon(program: Program, tenant_file: Path) -> None:
    assert "not running" in program("plan").out
    assert json.loads(program("plan", "--json").out)["running"] is False
    tenant_file.write_text("nonsense = 1\n")
    assert program("plan").code == 1
