"""Every file of a configuration, read and held against each other: one snapshot, or the list of all problems."""

import contextlib
import dataclasses
import datetime as dt
import re
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from arkrelay.config.check import Part, check_settings, listeners, routes, tls_rules
from arkrelay.config.checktenants import (
    check_domains,
    check_platform,
    check_pools,
    check_reports,
    check_simulator,
    check_tenant,
    unsubscribe_warnings,
    webhook_warnings,
)
from arkrelay.config.dates import platform_with_dates, with_dates
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.files import mode_of, world_readable
from arkrelay.config.ids import with_ids
from arkrelay.config.keyfiles import KeyFileError, KeyRing, check_certificate, stamp
from arkrelay.config.schema import Reader
from arkrelay.config.secrets import TEST_PREFIX, HostKey, SecretError, is_plain, load_host_key, resolve
from arkrelay.config.snapshot import Index, Snapshot, Stamp
from arkrelay.model.errors import ConfigError
from arkrelay.model.settings import Settings, Tls, TlsExtra
from arkrelay.model.tenant import Credential, DkimKey, Platform, Tenant

__all__ = ["ConfigErrors", "Snapshot", "load", "load_settings", "parse_toml", "read_platform", "read_tenant"]

T = TypeVar("T")
Overlay = Mapping[Path, bytes | None]  # contents that are not on disk yet; None: the file is to go

TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
MAX_FILE_BYTES = 16_000_000  # far above any real file; a device or a core dump must not fill the memory
PLATFORM = "platform.toml"


def load(path: Path, *, previous: Snapshot | None = None, overlay: Overlay | None = None) -> Snapshot:
    """Return the whole configuration that starts at ``path``, or raise ConfigErrors with every problem.

    ``previous`` saves reading DKIM keys again whose files have not changed. ``overlay`` stands for files as they
    would be: so a change is checked before it is written.
    """
    return _Loading(path.absolute(), previous, overlay or {}).run()


def load_settings(path: Path) -> Settings:
    """Return arkrelay.toml alone, for who must find the other files; raise ConfigErrors."""
    part = _Loading(path.absolute(), None, {}).settings()
    if part.reader.problems:
        raise ConfigErrors(part.reader.problems)
    return part.value


def read_tenant(file: Path, content: bytes, settings: Settings) -> Tenant:
    """Return one tenant file alone, ids filled in; raise ConfigErrors. It may clash with other files all the same."""
    loading = _Loading(file, None, {file: content})
    part = loading.tenant(file, settings)
    check_tenant(part, allow_http=settings.webhooks.allow_http)
    if part.reader.problems:
        raise ConfigErrors(part.reader.problems)
    return with_dates(with_ids({file.stem: part.value}, Platform())[0][file.stem], loading.written_at(file))


def read_platform(file: Path, content: bytes, settings: Settings) -> Platform:
    """Return platform.toml alone, ids filled in; raise ConfigErrors."""
    loading = _Loading(file, None, {file: content})
    part = loading.platform(file)
    check_platform(part, allow_http=settings.webhooks.allow_http)
    if part.reader.problems:
        raise ConfigErrors(part.reader.problems)
    return platform_with_dates(with_ids({}, part.value)[1], loading.written_at(file))


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the tables of a TOML file; raise ValueError with line and column."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ValueError(f"is not UTF-8 (at line {line})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"is not TOML: {exc}") from None
    except ValueError as exc:  # a date or an integer that Python cannot hold
        raise ValueError(f"holds a value that cannot be read: {exc}") from None


def _reporter(reader: Reader) -> Callable[[DkimKey, str], None]:
    return lambda key, reason: reader.report(reader.at(key, "private_key"), reason)


class _Loading:
    def __init__(self, path: Path, previous: Snapshot | None, overlay: Overlay) -> None:
        self.path, self.overlay = path, overlay
        self.ring = KeyRing(previous.dkim_keys if previous else {})
        self.host_key: HostKey | None = None
        self.other_problems: list[ConfigError] = []
        self.warnings: list[str] = []
        self.key_warnings: list[str] = []
        self.watched: dict[Path, Stamp | None] = {}
        self.secret_owners: dict[bytes, str] = {}
        self.digests: dict[tuple[str, str], bytes] = {}
        self.tests: set[tuple[str, str]] = set()

    def run(self) -> Snapshot:
        main = self.settings()
        if any(problem.key in {"", "state_dir"} for problem in main.reader.problems):
            raise ConfigErrors(main.reader.problems)  # without it the other files and keys would be sought elsewhere
        settings = main.value
        platform = self.platform(self.path.parent / PLATFORM)
        tenants = self._tenants(main)
        try:
            self.host_key = load_host_key(settings.state_dir)
        except ConfigError as exc:
            self.other_problems.append(exc)

        check_settings(main, tenants)
        self._check_routes(main)
        check_platform(platform, allow_http=settings.webhooks.allow_http)
        self._check_keys(platform)
        check_domains(tenants)
        check_reports(main, tenants.values())
        check_pools(main, tenants)
        check_simulator(main, tenants)
        for part in tenants.values():
            check_tenant(part, allow_http=settings.webhooks.allow_http)
            self._check_credentials(part)
            self.ring.load(part.value, _reporter(part.reader))
        self._check_certificate(main)

        parts: list[Part[Any]] = [main, platform, *tenants.values()]
        problems = [problem for part in parts for problem in part.reader.problems]
        if problems or self.other_problems:
            raise ConfigErrors([*problems, *self.other_problems])
        self.warnings += unsubscribe_warnings(settings, tenants.values())
        self.warnings += webhook_warnings(main, platform, tenants.values())
        return self._snapshot(settings, platform.value, {key: part.value for key, part in tenants.items()})

    def settings(self) -> Part[Settings]:
        return self._part(self.path, Settings, self.path.parent, hostname="localhost")

    def platform(self, file: Path) -> Part[Platform]:
        return self._part(file, Platform, file.parent, optional=True)

    def tenant(self, file: Path, settings: Settings) -> Part[Tenant]:
        return self._part(file, Tenant, settings.state_dir / "keys", id=file.stem, name=file.stem)

    def written_at(self, file: Path) -> float:
        """Return when the file was written last, Unix seconds; one that is not on disk yet is about to be."""
        try:
            return file.stat().st_mtime
        except OSError:
            return time.time()

    def _part(self, file: Path, cls: type[T], base: Path, *, optional: bool = False, **instead: Any) -> Part[T]:
        """Return the file as far as it can be used: with its problems, it is only good for finding more."""
        reader = Reader(file, base)
        table: dict[str, Any] | None = None
        try:
            content = self._content(file)
            table = {} if content is None and optional else None
            if content is not None:
                table = parse_toml(content)
            elif not optional:
                reader.report("", "no such file")
        except OSError as exc:
            reader.report("", f"cannot be read: {exc.strerror}")
        except ValueError as exc:
            reader.report("", str(exc))
        # what is not even TOML has one problem, not one more for each required key
        value = Reader(file, base).read(cls, {}, **instead) if table is None else reader.read(cls, table, **instead)
        if value is None:
            raise AssertionError(f"{cls.__name__} has required keys without a stand-in")
        return Part(reader, value, whole=not reader.problems)

    def _content(self, file: Path) -> bytes | None:
        if file in self.overlay:
            return self.overlay[file]
        try:
            with file.open("rb") as opened:
                content = opened.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"is longer than {MAX_FILE_BYTES} bytes")
        return content

    def _tenants(self, main: Part[Settings]) -> dict[str, Part[Tenant]]:
        """Return the parts by tenant id; editors' backups (``acme.toml~``) and dotfiles are no tenants."""
        folder = main.value.tenants_dir
        files = {file for file in self.overlay if file.parent == folder}
        try:
            files.update(
                file for file in folder.iterdir() if file.suffix == ".toml" and not file.name.startswith(".")
            )
        except OSError as exc:
            if not files:  # a change may be the first to make the folder
                main.reader.report("tenants_dir", f"{folder} cannot be read: {exc.strerror}")
        parts = {}
        for file in sorted(files):
            if file in self.overlay and self.overlay[file] is None:
                continue
            part = self.tenant(file, main.value)
            if not TENANT_ID.fullmatch(file.stem):
                part.reader.report(
                    "", "the name of the file is the tenant's id: expected [a-z0-9][a-z0-9_-]{0,62}.toml"
                )
            parts[file.stem] = part
        return parts

    def _check_routes(self, main: Part[Settings]) -> None:
        plain = False
        for route in main.value.route:
            if not route.secret:
                continue
            try:
                resolved = resolve(route.secret, self.host_key)
            except SecretError as exc:
                main.reader.report(main.reader.at(route, "secret"), str(exc))
                continue
            if resolved.plain is None:
                main.reader.report(main.reader.at(route, "secret"), "sha256: cannot be used to log in elsewhere")
            plain = plain or is_plain(route.secret)
        if plain:
            self._check_mode(main.reader)

    def _check_keys(self, platform: Part[Platform]) -> None:
        for key in platform.value.keys:
            self._check_secret(platform.reader, key, ("", key.name), key.secret, f'organisation key "{key.name}"')
        if platform.value.keys:
            self._check_mode(platform.reader)

    def _check_credentials(self, part: Part[Tenant]) -> None:
        tenant = part.value
        for item in tenant.credentials:
            owner = f'credential "{item.name}" of tenant {tenant.id}'
            self._check_secret(part.reader, item, (tenant.id, item.name), item.secret, owner)
        if any(is_plain(item.secret) for item in tenant.credentials):
            self._check_mode(part.reader)

    def _check_secret(self, reader: Reader, thing: object, owner: tuple[str, str], secret: str, who: str) -> None:
        where = reader.at(thing, "secret")
        try:
            resolved = resolve(secret, self.host_key)
        except SecretError as exc:
            reader.report(where, str(exc))
            return
        other = self.secret_owners.setdefault(resolved.digest, who)
        if other != who:
            reader.report(where, f"is the same as that of {other}")
        self.digests[owner] = resolved.digest
        if resolved.plain is not None and resolved.plain.startswith(TEST_PREFIX):
            self.tests.add(owner)

    def _check_mode(self, reader: Reader) -> None:
        """Report a file with secrets that users outside its group can read; one not on disk yet will be 0600."""
        with contextlib.suppress(FileNotFoundError):
            if world_readable(reader.file):
                mode = mode_of(reader.file)
                reader.report("", f"holds secrets and has mode {mode:04o}, readable by others: chmod 600")

    def _check_certificate(self, main: Part[Settings]) -> None:
        tls = main.value.tls
        if tls is None:
            return
        pairs: list[Tls | TlsExtra] = [tls, *tls.extra]
        for pair in pairs:
            for file in (pair.certificate, pair.private_key):
                self.watched[file] = stamp(file)
            try:
                self.key_warnings += check_certificate(pair, dt.datetime.now(dt.UTC))
            except KeyFileError as exc:
                key = "private_key" if str(exc).startswith(str(pair.private_key)) else "certificate"
                main.reader.report(main.reader.at(pair, key), str(exc))

    def _snapshot(self, settings: Settings, platform: Platform, tenants: dict[str, Tenant]) -> Snapshot:
        settings = dataclasses.replace(settings, route=routes(settings), tls_policy=tls_rules(settings))
        tenants, platform = with_ids(tenants, platform)
        for tenant in tenants.values():
            file = settings.tenants_dir / f"{tenant.id}.toml"
            tenants[tenant.id] = with_dates(tenant, self.written_at(file))
        platform = platform_with_dates(platform, self.written_at(self.path.parent / PLATFORM))
        credentials: dict[bytes, tuple[Tenant, Credential]] = {}
        usernames: dict[str, tuple[tuple[Tenant, Credential], ...]] = {}
        names: dict[str, frozenset[str]] = {}
        for tenant in tenants.values():
            for name in {tenant.id, tenant.name.casefold()}:
                names[name] = names.get(name, frozenset()) | {tenant.id}
            for credential in tenant.credentials:
                credentials[self.digests[tenant.id, credential.name]] = (tenant, credential)
                if credential.username:
                    usernames[credential.username] = (*usernames.get(credential.username, ()), (tenant, credential))
        index = Index(
            credentials=credentials,
            keys={self.digests["", key.name]: key for key in platform.keys},
            digests=self.digests,
            domains={domain.name: (tenant, domain) for tenant in tenants.values() for domain in tenant.domains},
            signers=self.ring.signers,
            usernames=usernames,
            names=names,
            tests=frozenset(self.tests),
        )
        return Snapshot(
            path=self.path,
            settings=settings,
            platform=platform,
            tenants=tenants,
            listeners=listeners(settings),
            setting_warnings=tuple(self.warnings),
            key_warnings=(*self.key_warnings, *self.ring.warnings),
            watched={**self.watched, **self.ring.watched},
            host_key=self.host_key,
            index=index,
            dkim_keys=self.ring.loaded,
        )
