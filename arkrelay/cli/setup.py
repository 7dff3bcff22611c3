"""A new configuration on disk: what ``init`` writes for a person, and ``demo`` for itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from arkrelay.cli.client import SOCKET_NAME
from arkrelay.cli.state import Failed
from arkrelay.config import tenants
from arkrelay.config.addresses import UNIX_PATH_BYTES
from arkrelay.config.files import replace
from arkrelay.config.load import load
from arkrelay.config.secrets import create_host_key
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.tenant import Credential, Domain
from arkrelay.wire.tls import self_signed

CONFIG = "arkrelay.toml"
CREDENTIAL = "first"
CONFIG_TEXT = """\
# The daemon's settings, written once by `arkrelay init` and never changed by arkrelay.
# What is not said here has its default. After a change: arkrelay check, then arkrelay reload.

{head}
# Self-signed, to begin with: replace both files, or name others. They are re-read when they change.
{tls}
# SMTP for apps on this machine; TLS is offered, not demanded.
{plain}
# SMTP with STARTTLS before the password. For other machines: "0.0.0.0:2587".
{secure}
# REST, metrics and health for this machine.
{http}"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the new configuration is to hold; names are checked. ``extra`` are more tables of arkrelay.toml."""

    folder: Path
    state_dir: Path
    hostname: str
    tenant: str
    domain: str
    ports: tuple[int, int, int] = (2525, 2587, 8025)  # above 1024: an ordinary user may listen there
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """A new configuration, and the key of its first credential."""

    config: Path
    snapshot: Snapshot
    domain: Domain
    credential: Credential
    key: str = field(repr=False)


def render(plan: Plan) -> str:
    """Return arkrelay.toml."""
    state_dir = plan.state_dir
    inside = state_dir.is_relative_to(plan.folder)
    plain, secure, http = plan.ports
    tls = {"certificate": "tls/cert.pem", "private_key": "tls/key.pem"}
    head = {
        "hostname": plan.hostname,
        "state_dir": str(state_dir.relative_to(plan.folder) if inside else state_dir),
        "default_tenant": plan.tenant,
    }
    text = CONFIG_TEXT.format(
        head=tomli_w.dumps(head),
        tls=tomli_w.dumps({"tls": tls}),
        plain=_listener(service="submission", address=f"127.0.0.1:{plain}", tls="optional"),
        secure=_listener(service="submission", address=f"127.0.0.1:{secure}"),
        http=_listener(service="http", address=f"127.0.0.1:{http}"),
    )
    return f"{text}\n{tomli_w.dumps(plan.extra)}" if plan.extra else text


def _listener(**keys: str) -> str:
    return "[[listen]]\n" + tomli_w.dumps(keys)


def write_configuration(plan: Plan) -> Made:
    """Write arkrelay.toml, a certificate, the host key, and a tenant with a domain, its DKIM key and a credential.

    Raises Failed, with nothing changed, when there is anything of a configuration already.
    """
    config = plan.folder / CONFIG
    certificate, private_key = plan.folder / "tls" / "cert.pem", plan.folder / "tls" / "key.pem"
    tenant_file = plan.folder / "tenants" / f"{plan.tenant}.toml"
    for path in (
        config,
        certificate,
        private_key,
        tenant_file,
        plan.state_dir / "keys",
        plan.state_dir / "arkrelay.db",
    ):
        if path.exists():
            raise Failed(f"{path} exists already: nothing was written", "name another directory: arkrelay init DIR")
    if len(bytes(plan.state_dir / SOCKET_NAME)) > UNIX_PATH_BYTES:
        raise Failed(f"{plan.state_dir} is too long a path for the control socket in it", "choose a shorter one")
    for folder, mode in ((plan.folder, 0o755), (config.parent / "tenants", 0o700), (certificate.parent, 0o700)):
        folder.mkdir(mode, parents=True, exist_ok=True)
    plan.state_dir.mkdir(0o700, parents=True, exist_ok=True)
    pems = self_signed(plan.hostname)
    replace(certificate, pems[0], mode=0o644)
    replace(private_key, pems[1])
    create_host_key(plan.state_dir)
    replace(config, render(plan).encode(), mode=0o644)
    tenants.create_tenant(config, plan.tenant, plan.tenant)
    domain = tenants.add_domain(config, plan.tenant, plan.domain)
    credential, key = tenants.add_credential(config, plan.tenant, CREDENTIAL)
    return Made(config, load(config), domain, credential, key)
