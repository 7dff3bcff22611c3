"""A first configuration that works, and what to do next."""

import os
import pwd
import shutil
import socket
from pathlib import Path

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import domain_name
from arkrelay.cli.records import print_records, records_of
from arkrelay.cli.setup import Made, Plan, write_configuration
from arkrelay.cli.state import DEFAULT_CONFIG, Failed, State, config_option, json_option, pass_state
from arkrelay.config.files import replace
from arkrelay.config.load import TENANT_ID
from arkrelay.policy.records import render_json

STATE_DIR = Path("/var/lib/arkrelay")
SERVICE_USER = "arkrelay"  # systemd/arkrelay.sysusers makes it
EXAMPLE_HOSTNAME = "relay.example.com"


@click.command("init")
@config_option
@json_option
@click.option("--hostname", help="The name of this machine to the world. Default: its own, if it has a domain.")
@click.option("--domain", help="The first sender domain. Default: the hostname's.")
@click.option("--tenant", default="main", show_default=True, metavar="ID", help="The first tenant.")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@pass_state
def init_command(
    state: State, as_json: bool, hostname: str | None, domain: str | None, tenant: str, folder: Path | None
) -> None:
    """Write a working configuration, keys and a first tenant into DIR.

    DIR is /etc/arkrelay for root (or the directory of --config), else ./arkrelay. Nothing is overwritten.
    """
    plan = _plan(state, hostname, domain, tenant, folder)
    made = write_configuration(plan)
    _give_to_service(plan)
    start = _start(made, plan)
    if as_json:
        _print_json(made, start)
    else:
        _print_next(made, plan, start)


def _plan(state: State, hostname: str | None, domain: str | None, tenant: str, folder: Path | None) -> Plan:
    root = os.geteuid() == 0
    if folder is None:
        chosen = state.config != DEFAULT_CONFIG
        folder = state.config.parent if chosen or root else Path("arkrelay")
        if chosen and state.config.name != DEFAULT_CONFIG.name:
            raise Failed(f"init writes DIR/{DEFAULT_CONFIG.name}, not {state.config}", "give it a DIR")
    folder = folder.absolute()
    name = domain_name(hostname) if hostname else _own_name()
    if not TENANT_ID.fullmatch(tenant):
        raise Failed(f"{output.clean(tenant)}: a tenant's id is small letters, digits, - and _", code=2)
    system = folder == DEFAULT_CONFIG.parent
    sender = domain_name(domain) if domain else _parent(name)
    return Plan(folder, STATE_DIR if system else folder / "state", name, tenant, sender)


def _own_name() -> str:
    for name in (socket.gethostname(), socket.getfqdn()):
        try:
            found = domain_name(name)
        except Failed:
            continue
        if "." in found and not found.startswith("localhost."):
            return found
    output.note(f"this machine has no name with a domain: {EXAMPLE_HOSTNAME} is written, change it in arkrelay.toml")
    return EXAMPLE_HOSTNAME


def _parent(hostname: str) -> str:
    """Return the domain of a host; a name of two labels is its own."""
    return hostname.partition(".")[2] if hostname.count(".") > 1 else hostname


def _give_to_service(plan: Plan) -> None:
    """Make the service's user the owner of what the service reads and writes, when root has set up the system's."""
    if os.geteuid() != 0 or plan.state_dir != STATE_DIR:
        return
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return  # without that user the service runs as root, until it is made
    # sticky: the service may replace what is its own (platform.toml), and not the admin's arkrelay.toml
    os.chown(plan.folder, 0, user.pw_gid)
    plan.folder.chmod(0o1775)
    platform = plan.folder / "platform.toml"
    if not platform.exists():
        replace(platform, b"")
    for top in (plan.state_dir, plan.folder / "tenants", plan.folder / "tls", platform):
        for path in (top, *top.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _start(made: Made, plan: Plan) -> str:
    if plan.state_dir == STATE_DIR and shutil.which("systemctl"):
        return "systemctl enable --now arkrelay"
    return f"arkrelay serve -c {made.config}"


def _send(made: Made) -> str:
    return (
        f"arkrelay send -c {made.config} --from hello@{made.domain.name} --to you@example.net "
        "--subject 'First message' --text 'It works.'"
    )


def _print_json(made: Made, start: str) -> None:
    tenant = made.snapshot.settings.default_tenant
    output.print_json(
        {
            "config": str(made.config),
            "hostname": made.snapshot.settings.hostname,
            "tenant": shapes.tenant(made.snapshot.tenants[tenant]),
            "domain": shapes.domain(tenant, made.domain, render_json(records_of(made.snapshot, made.domain))),
            "credential": shapes.credential(tenant, made.credential, made.key),
            "next": [f"arkrelay domain dns -c {made.config} {made.domain.name}", start, _send(made)],
        }
    )


def _print_next(made: Made, plan: Plan, start: str) -> None:
    settings = made.snapshot.settings
    output.print_fields(
        [
            ("configuration", made.config),
            ("state", settings.state_dir),
            ("hostname", settings.hostname),
            ("tenant", plan.tenant),
            ("domain", made.domain.name),
            ("smtp name", shapes.smtp_username(plan.tenant, made.credential)),
            ("smtp password", made.key),
        ]
    )
    output.say("\n1. Publish these DNS records:\n")
    print_records(records_of(made.snapshot, made.domain))
    output.say(f"\n   and for this machine, in the zone of {settings.hostname}:\n")
    output.print_table(
        ("TYPE", "NAME", "VALUE"),
        [
            ("TXT", settings.spf_host, f"v=spf1 a:{settings.hostname} -all"),
            ("MX", settings.return_path_host, f"10 {settings.hostname}"),
        ],
    )
    output.say(f"\n2. Start the relay, and let it look the records up:\n\n   {start}")
    output.say(f"   arkrelay domain verify -c {made.config} {made.domain.name}")
    output.say(f"\n3. Send the first message, in one of these ways:\n\n   {_send(made)}")
    output.say(
        f"   swaks --server 127.0.0.1:{plan.ports[0]} --auth PLAIN --auth-user {plan.tenant}/{made.credential.name}"
        f" --auth-password {made.key} --from hello@{made.domain.name} --to you@example.net"
    )
