"""The configuration in force: swapped whole, or not at all."""

import dataclasses
import datetime as dt
import threading
from collections.abc import Mapping
from pathlib import Path

from arkrelay.config.changes import Change, Changes, compare
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.keyfiles import KeyFileError, KeyRing, check_certificate, stamp
from arkrelay.config.load import load
from arkrelay.config.snapshot import Snapshot, Stamp
from arkrelay.model.errors import ConfigError

__all__ = ["Change", "Changes", "ConfigErrors", "Live", "Snapshot", "compare"]


Suspect = tuple[str, int]  # a tenant and the number of its credential


class Live:
    """Holds the snapshot in force; who needs a configuration takes ``snapshot`` once and keeps to it.

    ``problems`` says why files are not in force that were looked at last: of a reload that was refused, and of key
    and certificate files that cannot be used.

    The methods block on files, so the daemon calls them in a thread; one at a time does its work.
    """

    def __init__(self, path: Path) -> None:
        self.suspicions: Mapping[Suspect, str] = {}
        self.snapshot = load(path)
        self._seen: dict[Path, Stamp | None] = dict(self.snapshot.watched)
        self._lock = threading.Lock()
        self._refused: tuple[ConfigError, ...] = ()  # by the last reload
        self._unusable: tuple[ConfigError, ...] = ()  # key and certificate files

    @property
    def problems(self) -> tuple[ConfigError, ...]:
        """What has to be mended before the files are in force as they are; empty when they are."""
        return (*self._refused, *self._unusable)

    def reload(self) -> Changes:
        """Put what the files say now in force, and return what that changed.

        With ConfigErrors nothing changed: the last good configuration stays. A change that needs a restart is in
        the snapshot at once; it is the caller who cannot follow it.
        """
        with self._lock:
            try:
                new = load(self.snapshot.path, previous=self.snapshot)
            except ConfigErrors as errors:
                self._refused = tuple(errors.problems)
                raise
            self._refused = self._unusable = ()
            changes = compare(self.snapshot, new)
            self.snapshot = _with(new, self.suspicions)
            self._seen = dict(new.watched)
            return changes

    def suspect(self, suspicions: Mapping[Suspect, str]) -> None:
        """Show these credentials as held in every snapshot from now on, each with the reason; all others not."""
        with self._lock:
            self.suspicions = dict(suspicions)
            self.snapshot = _with(self.snapshot, self.suspicions)

    def poll(self) -> bool:
        """Read again what ``stale`` sees, and return whether anything came into force by that.

        Raise ConfigErrors for files that cannot be used, once for each time they change.
        """
        if not self.stale():
            return False
        changes = self.refresh_keys()
        if changes.problems:
            raise ConfigErrors(changes.problems)
        return bool(changes)

    def stale(self) -> bool:
        """Return whether a key or certificate file is not what it was when it was last looked at.

        Some microseconds for each file. Configuration files are not looked at: they wait for ``reload``.
        """
        return any(stamp(path) != seen for path, seen in list(self._seen.items()))

    def refresh_keys(self) -> Changes:
        """Read again the DKIM keys and the certificate whose files changed; return what that changed.

        Files that cannot be used are in the ``problems`` of the result, and their last good content stays in force.
        ``stale`` is False afterwards, until a file changes again: a renewal that writes certificate and key one after
        the other may be seen half done, is refused, and taken when it is whole.
        """
        with self._lock:
            old = self.snapshot
            problems: list[ConfigError] = []
            certificate, warnings = self._look_at_certificate(old, problems)
            ring = KeyRing(old.dkim_keys, keep_last_good=True)
            for tenant in old.tenants.values():
                ring.load(tenant, lambda key, reason: problems.append(ConfigError(key.private_key, "", reason)))
            self._seen = {**certificate, **ring.watched}
            self._unusable = tuple(problems)
            refused = any(problem.key == "tls" for problem in problems)
            kept = {path: old.watched.get(path) for path in certificate} if refused else {}
            self.snapshot = dataclasses.replace(
                old,
                key_warnings=(*warnings, *ring.warnings),
                watched={**self._seen, **kept},
                index=dataclasses.replace(old.index, signers=ring.signers),
                dkim_keys=ring.loaded,
            )
            return dataclasses.replace(compare(old, self.snapshot), problems=tuple(problems))

    @staticmethod
    def _look_at_certificate(
        snapshot: Snapshot, problems: list[ConfigError]
    ) -> tuple[dict[Path, Stamp | None], list[str]]:
        tls = snapshot.settings.tls
        if tls is None:
            return {}, []
        seen = {path: stamp(path) for path in (tls.certificate, tls.private_key)}
        try:
            return seen, check_certificate(tls, dt.datetime.now(dt.UTC))
        except KeyFileError as exc:
            problems.append(ConfigError(snapshot.path, "tls", str(exc)))
            return seen, []


def _with(snapshot: Snapshot, suspicions: Mapping[Suspect, str]) -> Snapshot:
    """Return the snapshot with what the relay has against some credentials, and against no other.

    The look-up tables keep the credentials as the files have them: their doors stay open, and their mail is held.
    """
    tenants = {}
    for tenant in snapshot.tenants.values():
        credentials = tuple(
            dataclasses.replace(one, suspicion=suspicions.get((tenant.id, one.id), "")) for one in tenant.credentials
        )
        told = any(new.suspicion != old.suspicion for new, old in zip(credentials, tenant.credentials, strict=True))
        tenants[tenant.id] = dataclasses.replace(tenant, credentials=credentials) if told else tenant
    return dataclasses.replace(snapshot, tenants=tenants)
