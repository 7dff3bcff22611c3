"""An import shown, written when that is wanted, and reported line by line."""

import dataclasses
import sys
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.files import load, source, tell_daemon
from arkrelay.cli.foreign import Foreign, Suppressions
from arkrelay.cli.import_plan import Fate, Line, Plan, make_plan
from arkrelay.cli.records import print_records, records_of
from arkrelay.cli.state import Failed, State
from arkrelay.cli.suppression import path_of
from arkrelay.cli.suppression_files import Passed, numbers
from arkrelay.config.snapshot import Snapshot
from arkrelay.config.takeover import take_over
from arkrelay.model.tenant import Domain
from arkrelay.policy.records import render_json
from arkrelay.relay.track_domains import alias_of

COLUMNS = ("TENANT", "WHAT", "NAME", "RESULT", "NOTE")
BEFORE = {Fate.TAKE: "to take", Fate.PRESENT: "is here", Fate.DIFFERS: "stays as here", Fate.LEFT: "not taken"}
AFTER = {**BEFORE, Fate.TAKE: "taken"}


def run_import(state: State, found: Foreign, *, as_json: bool, dry_run: bool, yes: bool) -> int:
    """Show what an import would do, do it when ``yes`` or a person at a terminal says so, and return the exit status.

    It can be run again: what it has taken is then here.
    """
    plan = make_plan(found, load(state))
    if not (plan.writes or plan.suppressions):
        _report(state, found, plan, as_json=as_json, done=False)
        output.note("nothing to take")
        return 0
    if dry_run or not (yes or _confirmed(plan, as_json=as_json)):
        _report(state, found, plan, as_json=as_json, done=False)
        output.note("nothing was written" if dry_run else "nothing was written; --yes writes it")
        return 0
    if plan.writes:
        with _progress(sum(len(one.domains) for one in plan.additions.values()), "making DKIM keys") as bar:
            take_over(source(state), plan.additions, plan.platform_webhooks, lambda _name: bar.update(1))
        tell_daemon(state)
    whole = _take_suppressions(state, plan)
    _report(state, found, plan, as_json=as_json, done=True)
    return 0 if whole else 1


def _confirmed(plan: Plan, *, as_json: bool) -> bool:
    if as_json or not (sys.stdin.isatty() and output.terminal()):
        return False
    _print_lines(plan, done=False)
    return click.confirm("Take this?", err=True)


def _progress(length: int, label: str) -> Any:
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def _take_suppressions(state: State, plan: Plan) -> bool:
    """Hand the lists to the daemon, which owns the database, and note how it went; False when some did not go."""
    whole, daemon = True, Daemon(state.config)
    for tenant_id, listed in plan.suppressions.items():
        try:
            added, note = _take_list(daemon, tenant_id, listed)
            fate = Fate.TAKE if added else Fate.PRESENT
        except Failed as error:
            note, fate, whole = f"{error.message}: run the same again when it can", Fate.LEFT, False
        _renote(plan, tenant_id, fate, note)
    return whole


def _take_list(daemon: Daemon, tenant_id: str, listed: Suppressions) -> tuple[int, str]:
    added = present = 0
    passed: list[Passed] = []
    bad = 0
    with _progress(listed.count, f"suppressions of {output.clean(tenant_id)}") as bar:
        for rows, odd in listed.parts():
            if rows:
                entries = {"entries": [row.body("imported") for row in rows]}
                data = daemon.data("POST", f"{path_of(tenant_id)}/import", entries)
                added, present = added + data.get("added", 0), present + data.get("present", 0)
            bad += len(odd)
            passed += odd[: 20 - len(passed)]
            bar.update(len(rows) + len(odd))
    told = f"{added} new, {present} here before"
    return added, f"{told}, {bad} not taken: {'; '.join(numbers(passed))}" if bad else told


def _renote(plan: Plan, tenant_id: str, fate: Fate, note: str) -> None:
    for index, line in enumerate(plan.lines):
        if line.tenant == tenant_id and line.what == "suppressions" and line.fate is Fate.TAKE:
            plan.lines[index] = dataclasses.replace(line, fate=fate, note=note)


def _report(state: State, found: Foreign, plan: Plan, *, as_json: bool, done: bool) -> None:
    snapshot = load(state)
    new = _new_domains(snapshot, plan) if done else []
    steps = _steps(snapshot, found, plan) if done else found.advice
    if as_json:
        output.print_json(
            {
                "source": found.source,
                "written": done,
                "items": [_shape(line, done=done) for line in plan.lines],
                "counts": {BEFORE[fate] if not done else AFTER[fate]: _count(plan, fate) for fate in Fate},
                "dnsRecords": {one.name: render_json(records_of(snapshot, one)) for one in new},
                "next": steps,
            }
        )
        return
    _print_lines(plan, done=done)
    words = AFTER if done else BEFORE
    output.say(", ".join(f"{words[fate]}: {_count(plan, fate)}" for fate in Fate))
    for one in new:
        output.say("")
        print_records(records_of(snapshot, one))
    for number, step in enumerate(steps, 1):
        output.note(f"{number}. {output.clean(step)}")


def _print_lines(plan: Plan, *, done: bool) -> None:
    words = AFTER if done else BEFORE
    output.print_table(
        COLUMNS,
        [(line.tenant or "-", line.what, line.name, words[line.fate], line.note or "-") for line in plan.lines],
    )


def _shape(line: Line, *, done: bool) -> dict[str, object]:
    words = AFTER if done else BEFORE
    return {
        "tenant": line.tenant or None,
        "what": line.what,
        "name": line.name,
        "result": words[line.fate],
        "note": line.note or None,
    }


def _count(plan: Plan, fate: Fate) -> int:
    return sum(line.fate is fate for line in plan.lines)


def _new_domains(snapshot: Snapshot, plan: Plan) -> list[Domain]:
    return [
        one
        for tenant_id, addition in plan.additions.items()
        for one in snapshot.tenants[tenant_id].domains
        if one.name in addition.domains
    ]


def _steps(snapshot: Snapshot, found: Foreign, plan: Plan) -> list[str]:
    """Return what is left to do for people, in the order in which it is done."""
    settings, steps = snapshot.settings, []
    additions = plan.additions.values()
    base = settings.public.url.rstrip("/") or "http://HOST:PORT"
    if any(one.domains for one in additions):
        steps.append(
            "publish the DNS records of the new domains (arkrelay domain dns NAME), then arkrelay domain verify NAME:"
            " only a verified domain may send"
        )
    for tenant_id, addition in plan.additions.items():
        taken = {one["domain"] for one in addition.track_domains}
        records = [
            alias_of(snapshot, one) for one in snapshot.tenants[tenant_id].track_domains if one.domain in taken
        ]
        steps += [f"publish {one.full_name}. CNAME {one.value}." for one in records]
    if any(one.credentials for one in additions):
        steps.append(
            f"point apps at us: SMTP {settings.hostname}, REST {base}/v1; names, passwords and keys are as they were"
        )
    if plan.platform_webhooks or any(one.webhooks for one in additions):
        steps.append(f"receivers of webhooks find our signing key at {base}/.well-known/jwks.json")
    return [*steps, *found.advice]
