"""Sender domains of tenants: added with their DKIM keys, rotated key by key, removed; and their track domains.

A rotation never leaves a message without a signature that verifies: "publish" makes a key that is shown in the
DNS records and does not sign; "see" notes that DNS has it; "activate" lets it sign and retires the one before, which
stays in DNS for mail under way; "retire" removes that and its file. When each is due says ``policy.rotation``.
"""

import contextlib
import secrets
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from arkrelay.config.dates import now_iso
from arkrelay.config.edit import Site, Source, Table, new_number, unset_none
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.files import adopt, fsync_folder, replace
from arkrelay.mail.dkim import generate_key
from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.errors import ConfigError, Conflict, Exists
from arkrelay.model.tenant import DkimKey, Domain, TrackDomain

RSA = "rsa-sha256"
SELECTOR_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
MAX_DOMAIN = 253 - len("ark-123456._domainkey.")  # RFC 1035 §2.3.4, written without the last dot
SELECTOR_RANDOM = 6  # told apart from other senders' selectors by its prefix, from our own by 36**6 values


def add_domain(
    source: Source, tenant_id: str, name: str, *, trusted: bool = False, algorithms: Sequence[str] = (RSA,)
) -> Domain:
    """Return a new sender domain with one new DKIM key for each algorithm; mail may use it once it is verified."""
    site = Site(source)
    name = _parse(site.tenant_file(tenant_id), name)
    with NewKeys(site, name) as keys, site.editing(tenant_id) as draft:
        if draft.before.domain(name):
            raise Exists(f"{name} is a domain of this tenant already")
        entry: Table = {
            "name": name,
            **({"trusted": True} if trusted else {}),
        }
        entry["dkim"] = keys.write(algorithms, "active")
        number = new_number(item.id for item in draft.before.domains)
        born = {"id": number, "uuid": str(uuid.uuid4()), "created_at": now_iso()}
        draft.add("domains", entry | born)
    return draft.after.domains[-1]


def change_domain(source: Source, tenant_id: str, name: str, changes: Mapping[str, Any]) -> Domain:
    """Return the domain with ``changes`` applied: trusted; None unsets."""
    with Site(source).editing(tenant_id) as draft:
        index = draft.index("domains", lambda item: bool(item.name == name), f"domain {name}")
        draft.change("domains", index, changes)
    return draft.after.domains[index]


def remove_domain(source: Source, tenant_id: str, name: str) -> None:
    """Remove a domain, the key files made for it, and its track domains; Conflict while a credential needs it."""
    site = Site(source)
    with site.editing(tenant_id) as draft:
        index = draft.index("domains", lambda item: bool(item.name == name), f"domain {name}")
        tied = next((item.name for item in draft.before.credentials if name in item.domains), None)
        if tied is not None:
            raise Conflict(f"the credential {tied} is restricted to {name}: change or remove it first")
        draft.remove("domains", index)
        for place in reversed([i for i, item in enumerate(draft.before.track_domains) if item.domain == name]):
            draft.remove("track_domains", place)
    remove_key_files(site, draft.before.domains[index].dkim)


def rotate_dkim(
    source: Source,
    tenant_id: str,
    name: str,
    step: Literal["publish", "see", "activate", "retire"],
    *,
    algorithms: Sequence[str] = (),
) -> Domain:
    """Return the domain after one step of a rotation; Conflict when the step has no key.

    All its algorithms are rotated together: those of its active keys, or ``algorithms``.
    """
    site = Site(source)
    if step == "publish":
        return _publish(site, tenant_id, name, algorithms)
    gone: list[DkimKey] = []
    with site.editing(tenant_id) as draft:
        index = draft.index("domains", lambda item: bool(item.name == name), f"domain {name}")
        keys = draft.before.domains[index].dkim
        entries = draft.table["domains"][index].get("dkim", [])
        if step in {"see", "activate"}:
            fresh = {key.algorithm for key in keys if key.state == "published"}
            if not fresh:
                raise Conflict(f"{name} has no published key: publish one, and wait until DNS has it")
            for key, entry in zip(keys, entries, strict=True):
                _advance(key, entry, fresh, step)
        else:
            gone = [key for key in keys if key.state == "retired"]
            if not gone:
                raise Conflict(f"{name} has no retired key")
            draft.table["domains"][index]["dkim"] = [
                entry for key, entry in zip(keys, entries, strict=True) if key.state != "retired"
            ]
        draft.change("domains", index, {})
    remove_key_files(site, gone)
    return draft.after.domains[index]


def _advance(key: DkimKey, entry: Table, fresh: Collection[str], step: str) -> None:
    """Take one key of a domain a step further; ``fresh`` are the algorithms with a published key."""
    if step == "see":
        if key.state == "published":
            entry.setdefault("seen", now_iso())
    elif key.state == "published":
        entry.update(state="active", since=now_iso())
        entry.pop("seen", None)
    elif key.state == "active" and key.algorithm in fresh:
        entry.update(state="retired", since=now_iso())


def _publish(site: Site, tenant_id: str, name: str, chosen: Sequence[str]) -> Domain:
    with NewKeys(site, name) as keys, site.editing(tenant_id) as draft:
        index = draft.index("domains", lambda item: bool(item.name == name), f"domain {name}")
        before = draft.before.domains[index].dkim
        if any(key.state == "published" for key in before):
            raise Conflict(f"{name} has a published key already: activate it first")
        algorithms = dict.fromkeys(chosen or [key.algorithm for key in before if key.state == "active"] or [RSA])
        draft.table["domains"][index].setdefault("dkim", []).extend(keys.write(list(algorithms), "published"))
        draft.change("domains", index, {})
    return draft.after.domains[index]


class NewKeys:
    """New key files of one domain, taken away again unless the body that writes their names into a file succeeds."""

    def __init__(self, site: Site, domain: str) -> None:
        self.site, self.domain = site, domain
        self._files: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is not None:
            for file in self._files:
                file.unlink(missing_ok=True)

    def write(self, algorithms: Sequence[str], state: str) -> list[Table]:
        """Write new keys, and return their ``[[domains.dkim]]``."""
        entries = []
        for algorithm in algorithms:
            selector = "ark-" + "".join(secrets.choice(SELECTOR_LETTERS) for _ in range(SELECTOR_RANDOM))
            entry = self.keep(selector, generate_key(algorithm), algorithm)
            entries.append(entry if state == "active" else entry | {"state": state, "since": now_iso()})
        return entries

    def keep(self, selector: str, pem: bytes, algorithm: str = RSA) -> Table:
        """Write the file of a key that is there, 0600 in a folder 0700, and return its ``[[domains.dkim]]``."""
        state_dir = self.site.settings.state_dir
        relative = Path("dkim") / f"{self.domain}.{selector}.pem"
        for folder in (state_dir / "keys", state_dir / "keys" / "dkim"):
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
                adopt(folder, like=state_dir)
        file = state_dir / "keys" / relative
        if not file.exists():
            self._files.append(file)
            replace(file, pem)
        elif file.read_bytes() != pem:  # the same: a crash came before its name was written down
            raise Exists(f"{file} is there already and holds another key")
        return {"selector": selector, "private_key": str(relative), "algorithm": algorithm}


def remove_key_files(site: Site, keys: Iterable[DkimKey]) -> None:
    """Remove the key files that were made here; one that an admin keeps elsewhere is the admin's."""
    folder = site.settings.state_dir / "keys" / "dkim"
    for key in keys:
        if key.private_key.parent == folder:
            with contextlib.suppress(OSError):  # nothing names it any more: a file left behind does no harm
                key.private_key.unlink()
    with contextlib.suppress(OSError):
        fsync_folder(folder)


def add_track_domain(source: Source, tenant_id: str, name: str, domain: str, **settings: Any) -> TrackDomain:
    """Return a new track domain: the label ``name`` under one of the tenant's domains, which has no other."""
    with Site(source).editing(tenant_id) as draft:
        if any(item.domain == domain for item in draft.before.track_domains):
            raise Exists(f"{domain} has a track domain already")
        taken = [int(item.id) for item in draft.before.track_domains if item.id.isdecimal()]
        entry = {"name": name, "domain": domain, **unset_none(settings)}
        draft.add("track_domains", {**entry, "id": str(new_number(taken)), "created_at": now_iso()})
    return draft.after.track_domains[-1]


def change_track_domain(source: Source, tenant_id: str, track_id: str, changes: Mapping[str, Any]) -> TrackDomain:
    """Return the track domain with ``changes`` applied: ssl, clicks, opens, excluded; None unsets."""
    with Site(source).editing(tenant_id) as draft:
        index = draft.index("track_domains", lambda item: bool(item.id == track_id), f"track domain {track_id}")
        draft.change("track_domains", index, changes)
    return draft.after.track_domains[index]


def remove_track_domain(source: Source, tenant_id: str, track_id: str) -> None:
    """Remove a track domain: its links are refused from the next reload on."""
    with Site(source).editing(tenant_id) as draft:
        index = draft.index("track_domains", lambda item: bool(item.id == track_id), f"track domain {track_id}")
        draft.remove("track_domains", index)


def sender_domain(name: str) -> str:
    """Return the name as A-labels in lower case, or raise AddressError when it cannot be a sender domain."""
    domain = parse_domain(name, utf8=True)
    if len(domain) > MAX_DOMAIN:
        raise AddressError(f"the domain is longer than {MAX_DOMAIN} characters: its DKIM record could have no name")
    return domain


def _parse(file: Path, name: str) -> str:
    """Return the name before it becomes the name of a file."""
    try:
        return sender_domain(name)
    except AddressError as exc:
        raise ConfigErrors([ConfigError(file, "domains", str(exc))]) from None
