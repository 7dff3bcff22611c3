"""A tenant file or platform.toml changed: under the lock, whole, and only when the result would load.

Comments in the file are lost: TOML tables have no place for them, and the header line says so.
"""

import contextlib
import errno
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomli_w

from arkrelay.config.dates import now_iso
from arkrelay.config.errors import CannotWrite, ConfigErrors
from arkrelay.config.files import adopt, fsync_folder, locked, replace
from arkrelay.config.ids import ID_BITS
from arkrelay.config.load import (
    PLATFORM,
    TENANT_ID,
    Overlay,
    load,
    load_settings,
    parse_toml,
    read_platform,
    read_tenant,
)
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.errors import ConfigError, Conflict, Exists, NotFound
from arkrelay.model.tenant import Platform, Tenant

T = TypeVar("T", Tenant, Platform)
Table = dict[str, Any]
Source = Snapshot | Path  # the configuration in force, or the path of arkrelay.toml

HEADER = b"# Written by arkrelay. Comments are lost whenever the command line or REST changes this file.\n\n"


def new_number(taken: Iterable[int]) -> int:
    """Return a random id: written into the file, so that the name it stands beside may change."""
    used = {0, *taken}
    while (number := secrets.randbits(ID_BITS)) in used:
        pass
    return number


def unset_none(settings: Mapping[str, Any]) -> Table:
    """Return the settings that were given as TOML writes them: lists for tuples, an empty list for a null inside."""
    return {key: _toml(value) for key, value in settings.items() if value is not None}


def _toml(value: Any) -> Any:
    match value:
        case None:
            return []  # TOML has no null; ``config.schema`` reads it back
        case tuple():
            return list(value)
        case Mapping():
            return {key: _toml(inner) for key, inner in value.items()}
    return value


class Draft(Generic[T]):
    """The tables of one file while they are changed; ``before`` is what they meant, ``after`` what they mean now."""

    def __init__(self, table: Table, before: T) -> None:
        self.table: Table = table
        self.before: T = before
        self.after: T = before

    def add(self, key: str, entry: Table) -> None:
        """Put one more ``[[key]]`` at the end."""
        self.table.setdefault(key, []).append(entry)

    def index(self, key: str, match: Callable[[Any], bool], what: str) -> int:
        """Return the place of the first thing that matches, or raise NotFound."""
        for index, thing in enumerate(getattr(self.before, key)):
            if match(thing):
                return index
        raise NotFound(f"there is no {what}")

    def change(self, key: str, index: int, changes: Mapping[str, Any]) -> None:
        """Set keys of one thing, and unset those that are None; its id stays, whatever its new name."""
        thing, entry = getattr(self.before, key)[index], self.table[key][index]
        for pinned in ("id", "uuid"):
            if hasattr(thing, pinned):
                entry[pinned] = getattr(thing, pinned)
        if hasattr(thing, "updated_at"):
            entry["updated_at"] = now_iso()
        entry.update(unset_none(changes))
        for unset in [name for name, value in changes.items() if value is None]:
            entry.pop(unset, None)

    def remove(self, key: str, index: int) -> None:
        """Take one thing out."""
        del self.table[key][index]
        if not self.table[key]:
            del self.table[key]


class Site:
    """Where the files of one configuration are, and how they are changed.

    What a change does is seen by the daemon when it reloads. A change raises NotFound, Conflict (managed by hand,
    a name is taken, the lock is held) or ConfigErrors, and then nothing was written.
    """

    def __init__(self, source: Source) -> None:
        self.known: Snapshot | None = source if isinstance(source, Snapshot) else None
        self.path = source.path if isinstance(source, Snapshot) else source.absolute()
        self.settings = source.settings if isinstance(source, Snapshot) else load_settings(source)
        self.platform_file = self.path.parent / PLATFORM

    def tenant_file(self, tenant_id: str) -> Path:
        """Return the file of a tenant, which may not exist; a text that is no id could name another file."""
        if not TENANT_ID.fullmatch(tenant_id):
            raise NotFound(f'there is no tenant "{tenant_id}"')
        return self.settings.tenants_dir / f"{tenant_id}.toml"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock of all writers; the folder of tenants exists inside."""
        folder = self.settings.tenants_dir
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
                adopt(folder, like=self.settings.state_dir if self.settings.state_dir.exists() else folder.parent)
            with locked(folder):
                yield
        except OSError as exc:
            problem = ConfigError(exc.filename or folder, "", f"cannot be written: {exc.strerror or exc}")
            raise CannotWrite([problem], full=exc.errno in {errno.ENOSPC, errno.EDQUOT}) from exc

    @contextlib.contextmanager
    def editing(self, tenant_id: str) -> Iterator[Draft[Tenant]]:
        """Give a tenant's file to be changed; it is checked and written when the body ends without raising."""
        with self.writing():
            file, table = self._open(tenant_id)
            snapshot, problems = self._load({})
            draft = Draft(table, self._tenant(snapshot, file, file.read_bytes()))
            _pin_tenant(table, draft.before)
            yield draft
            draft.table["updated_at"] = now_iso()
            content = HEADER + tomli_w.dumps(draft.table).encode()
            draft.after = self._tenant(self._check({file: content}, problems), file, content)
            replace(file, content)

    @contextlib.contextmanager
    def editing_platform(self) -> Iterator[Draft[Platform]]:
        """Give platform.toml to be changed; it is made when there was none."""
        with self.writing():
            file = self.platform_file
            table = self._read(file)
            snapshot, problems = self._load({})
            old = b"" if table is None else file.read_bytes()
            draft = Draft(table or {}, self._platform(snapshot, old))
            _pin_platform(draft.table, draft.before)
            yield draft
            content = HEADER + tomli_w.dumps(draft.table).encode()
            draft.after = self._platform(self._check({file: content}, problems), content)
            replace(file, content)

    def create(self, tenant_id: str, table: Table) -> Tenant:
        """Write the file of a tenant that was not there, and return the tenant."""
        with self.writing():
            file = self.tenant_file(tenant_id)
            if file.exists():
                raise Exists(f'there is a tenant "{tenant_id}" already')
            content = HEADER + tomli_w.dumps(table).encode()
            made = self._tenant(self._check({file: content}, self._load({})[1]), file, content)
            replace(file, content)
            return made

    def extend(
        self, tenants: Mapping[str, Callable[[Table], None]], platform: Callable[[Table], None] | None = None
    ) -> None:
        """Change many files and make those that are missing: each whole, and none unless all of them load together.

        A crash leaves each file as it was or as it is to be.
        """
        with self.writing():
            snapshot, known = self._load({})
            contents: dict[Path, bytes] = {}
            for tenant_id, change in tenants.items():
                contents[self.tenant_file(tenant_id)] = self._extended(tenant_id, snapshot, change)
            if platform is not None:
                table = self._read(self.platform_file) or {}
                old = self.platform_file.read_bytes() if table else b""
                _pin_platform(table, self._platform(snapshot, old))
                platform(table)
                contents[self.platform_file] = HEADER + tomli_w.dumps(table).encode()
            self._check(contents, known)
            for file, content in contents.items():
                replace(file, content)

    def _extended(self, tenant_id: str, snapshot: Snapshot | None, change: Callable[[Table], None]) -> bytes:
        table: Table = {"created_at": now_iso()}
        if (file := self.tenant_file(tenant_id)).exists():
            _, table = self._open(tenant_id)
            _pin_tenant(table, self._tenant(snapshot, file, file.read_bytes()))
        change(table)
        return HEADER + tomli_w.dumps(table | {"updated_at": now_iso()}).encode()

    def remove(self, tenant_id: str) -> Tenant:
        """Remove a tenant's file, unless something still needs it, and return what it meant."""
        with self.writing():
            file, _ = self._open(tenant_id)
            snapshot, problems = self._load({})
            tenant = self._tenant(snapshot, file, file.read_bytes())
            self._check({file: None}, problems)
            file.unlink()
            fsync_folder(file.parent)
            return tenant

    def _open(self, tenant_id: str) -> tuple[Path, Table]:
        file = self.tenant_file(tenant_id)
        table = self._read(file)
        if table is None:
            raise NotFound(f'there is no tenant "{tenant_id}"')
        if table.get("managed") == "file":
            raise Conflict(f'the tenant {tenant_id} has managed = "file": its file is changed by hand')
        return file, table

    def _read(self, file: Path) -> Table | None:
        try:
            return parse_toml(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise ConfigErrors([ConfigError(file, "", str(exc))]) from None

    def _load(self, overlay: Overlay) -> tuple[Snapshot | None, list[ConfigError]]:
        try:
            return load(self.path, previous=self.known, overlay=overlay), []
        except ConfigErrors as exc:
            return None, exc.problems

    def _check(self, contents: Overlay, known: list[ConfigError]) -> Snapshot | None:
        """Return the configuration as it would be, or None when other files were broken before and still are."""
        snapshot, problems = self._load(contents)
        seen, files = {str(problem) for problem in known}, {str(file) for file in contents}
        new = [problem for problem in problems if problem.file in files or str(problem) not in seen]
        if new:
            raise ConfigErrors(new)
        return snapshot

    def _tenant(self, snapshot: Snapshot | None, file: Path, content: bytes) -> Tenant:
        """Return the tenant with the ids of the whole configuration; read alone, when another file is broken."""
        return snapshot.tenants[file.stem] if snapshot else read_tenant(file, content, self.settings)

    def _platform(self, snapshot: Snapshot | None, content: bytes) -> Platform:
        return snapshot.platform if snapshot else read_platform(self.platform_file, content, self.settings)


def _pin_tenant(table: Table, tenant: Tenant) -> None:
    _pin_dates(table, tenant)
    for key in ("credentials", "domains", "webhooks", "track_domains"):
        _pin_dates_of(table.get(key, []), getattr(tenant, key))


def _pin_platform(table: Table, platform: Platform) -> None:
    for key in ("keys", "webhooks"):
        _pin_dates_of(table.get(key, []), getattr(platform, key))


def _pin_dates_of(entries: Iterable[Table], things: Iterable[Any]) -> None:
    for entry, thing in zip(entries, things, strict=True):
        _pin_dates(entry, thing)


def _pin_dates(entry: Table, thing: Any) -> None:
    """Write down when a thing came to be that a person wrote: the file's own date is about to change."""
    if not entry.get("created_at"):
        entry["created_at"] = thing.created_at
