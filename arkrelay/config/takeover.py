"""Tenants taken over from another service: everything is written, or nothing when any of it would not load."""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from arkrelay.config.dates import now_iso
from arkrelay.config.domains import RSA, NewKeys
from arkrelay.config.edit import Site, Source, Table, new_number, unset_none
from arkrelay.config.secrets import create_host_key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A DKIM key (RSA) that goes on signing under the selector that DNS has."""

    selector: str
    pem: bytes = field(repr=False)


@dataclass(slots=True)
class Addition:
    """What joins one tenant; with ``new`` (name, status, metadata, limits) the tenant itself.

    The tables are as the file has them, without ids and dates, and with secrets in clear, which are sealed when they
    are written. A domain without a key gets a new one.
    """

    new: Table | None = None
    credentials: list[Table] = field(default_factory=list, repr=False)
    domains: dict[str, SigningKey | None] = field(default_factory=dict)
    webhooks: list[Table] = field(default_factory=list)
    track_domains: list[Table] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.new is not None, self.credentials, self.domains, self.webhooks, self.track_domains))


def take_over(
    source: Source,
    additions: Mapping[str, Addition],
    platform_webhooks: Sequence[Table] = (),
    tell: Callable[[str], None] = lambda _domain: None,
) -> None:
    """Write the additions, by tenant id; ``tell`` is called for each domain, whose new key takes a moment.

    Raises ConfigErrors, Conflict or Busy, and then no file was changed and no key was left.
    """
    site = Site(source)
    host_key = create_host_key(site.settings.state_dir)
    with contextlib.ExitStack() as stack:
        dkim = {}
        for addition in additions.values():
            for name, key in addition.domains.items():
                tell(name)
                keys = stack.enter_context(NewKeys(site, name))
                dkim[name] = [keys.keep(key.selector, key.pem)] if key else keys.write((RSA,), "active")

        def changing(addition: Addition) -> Callable[[Table], None]:
            def change(table: Table) -> None:
                table.update(unset_none(addition.new or {}))
                sealed = [one | {"secret": host_key.seal(one["secret"])} for one in addition.credentials]
                domains = [{"name": name, "dkim": dkim[name]} for name in addition.domains]
                _join(table, "credentials", sealed)
                _join(table, "domains", domains, with_uuid=True)
                _join(table, "webhooks", addition.webhooks, with_uuid=True, textual=True)
                _join(table, "track_domains", addition.track_domains, textual=True)

            return change

        def change_platform(table: Table) -> None:
            for one in platform_webhooks:
                made = uuid.uuid4()
                born = {"id": f"pwh_{made.hex}", "uuid": str(made), "created_at": now_iso()}  # Ark contract §7
                table.setdefault("webhooks", []).append(unset_none(one) | born)

        changes = {tenant_id: changing(addition) for tenant_id, addition in additions.items()}
        site.extend(changes, change_platform if platform_webhooks else None)


def _join(
    table: Table, key: str, entries: Iterable[Table], *, with_uuid: bool = False, textual: bool = False
) -> None:
    """Put entries behind those that are there, each with an id of its own."""
    for entry in entries:
        number = new_number(_numbers(table.get(key, [])))
        born: Table = {"id": str(number) if textual else number, "created_at": now_iso()}
        if with_uuid:
            born["uuid"] = str(uuid.uuid4())
        table.setdefault(key, []).append(unset_none(entry) | born)


def _numbers(entries: Iterable[Table]) -> list[int]:
    return [int(one["id"]) for one in entries if str(one.get("id", "")).isdecimal()]
