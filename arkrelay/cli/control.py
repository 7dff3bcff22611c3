"""The configuration and the daemon as a whole: check, plan, reload, status."""

from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied, NotRunning
from arkrelay.cli.files import load
from arkrelay.cli.state import State, config_option, json_option, pass_state
from arkrelay.config.errors import ConfigErrors


@click.command("check")
@config_option
@json_option
@pass_state
def check_command(state: State, as_json: bool) -> None:
    """Validate the configuration: one line per problem, with file, key and reason; and per warning, which is none."""
    try:
        snapshot = load(state)
    except ConfigErrors as error:
        if not as_json:
            raise
        problems = [{"file": one.file, "key": one.key, "reason": one.reason} for one in error.problems]
        output.print_json({"ok": False, "problems": problems})
        click.get_current_context().exit(1)
    found = {
        "tenants": len(snapshot.tenants),
        "domains": sum(len(tenant.domains) for tenant in snapshot.tenants.values()),
        "credentials": sum(len(tenant.credentials) for tenant in snapshot.tenants.values()),
    }
    if as_json:
        output.print_json({"ok": True, "problems": [], "warnings": snapshot.warnings, **found})
    else:
        for warning in snapshot.warnings:
            output.note(f"warning: {output.clean(warning)}")
        counts = ", ".join(f"{count} {noun if count != 1 else noun[:-1]}" for noun, count in found.items())
        output.say(f"{state.config}: ok ({counts})")


@click.command("plan")
@config_option
@json_option
@pass_state
def plan_command(state: State, as_json: bool) -> None:
    """Show what a reload would change, by effect; nothing is changed."""
    load(state)  # a broken file is told here, with or without a daemon
    try:
        effect = Daemon(state.config).data("GET", "/v1/control/plan")
    except NotRunning:
        if as_json:
            output.print_json({"running": False, "changes": [], "restart": []})
        else:
            output.say("the daemon is not running: it will start with these files")
        return
    if as_json:
        output.print_json({"running": True, **effect})
    else:
        _print_effect(effect, "a reload would change nothing")


@click.command("reload")
@config_option
@json_option
@pass_state
def reload_command(state: State, as_json: bool) -> None:
    """Let the daemon read its configuration again; a broken one is refused and the last good one stays."""
    try:
        effect = Daemon(state.config).data("POST", "/v1/control/reload")
    except Denied as error:
        if error.problems and not as_json:
            error.hint = "the last good configuration stays in force"
        if not (error.problems and as_json):
            raise
        output.print_json({"reloaded": False, "problems": list(error.problems)})
        click.get_current_context().exit(1)
    if as_json:
        output.print_json({"reloaded": True, **effect})
    else:
        _print_effect(effect, "reloaded; nothing had changed")


def _print_effect(effect: dict[str, Any], nothing: str) -> None:
    for change in effect.get("changes", []):
        output.say(output.clean(change))
    for setting in effect.get("restart", []):
        output.say(f"needs a restart: {output.clean(setting)}")
    if not effect.get("changes") and not effect.get("restart"):
        output.say(nothing)


@click.command("status")
@config_option
@json_option
@pass_state
def status_command(state: State, as_json: bool) -> None:
    """Show what the daemon is doing. Ends with 1 when it is not running, or not ready to take mail."""
    data = Daemon(state.config).data("GET", "/v1/status")
    if as_json:
        output.print_json(data)
    else:
        _print_status(data)
    if not data.get("ready"):
        click.get_current_context().exit(1)


def _print_status(data: dict[str, Any]) -> None:
    store = data.get("store") or {}
    counts = data.get("queue") or {}
    listeners = [f"{one.get('service')} {one.get('address')}" for one in data.get("listeners") or []]
    problems = [
        ": ".join(filter(None, (one.get("file"), one.get("key"), one.get("reason"))))
        for one in data.get("configProblems") or []
    ]
    output.print_fields(
        [
            ("state", "ready" if data.get("ready") else "not ready"),
            *([("reason", data["reason"])] if data.get("reason") else []),
            ("hostname", data.get("hostname")),
            ("version", data.get("version")),
            ("up", output.span(float(data.get("uptimeS") or 0))),
            ("epoch", data.get("epoch")),
            ("listeners", listeners),
            ("queue", ", ".join(f"{count} {name}" for name, count in counts.items()) or "empty"),
            ("connections", data.get("connections")),
            ("doctor", _doctor(data.get("doctor"))),
            ("postmaster", _postmaster(data.get("postmaster") or {})),
            ("database", store.get("path")),
            ("its log", output.size(store.get("walBytes"))),
            ("disk free", output.size(store.get("freeBytes"))),
            *([("warnings", data["warnings"])] if data.get("warnings") else []),
            *([("not in force", problems)] if problems else []),
        ]
    )


def _doctor(counts: dict[str, Any] | None) -> str:
    if not counts:
        return "has not looked yet"
    said = ", ".join(f"{counts.get(level, 0)} {level}" for level in ("fail", "warn", "ok"))
    more = ": arkrelay doctor" if counts.get("fail") or counts.get("warn") else ""
    return f"{said}, {output.until(counts.get('checkedAt'))}{more}"


def _postmaster(mail: dict[str, Any]) -> str:
    waiting = mail.get("waiting") or 0
    return f"{waiting} to read in {mail.get('folder')}" if waiting else "nothing to read"
