"""Changes to configuration files that a person makes over HTTP: by the command line's functions, in force at once.

One at a time, and only on top of files that load: what one request wrote would else wait, not in force, for the file
of somebody else to be mended. A key on hold may look at everything that it owns, and change none of it: it could
release itself, or make another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from arkrelay.config.errors import CannotWrite, ConfigErrors
from arkrelay.config.live import Changes, Live
from arkrelay.config.load import load
from arkrelay.model.errors import ArkrelayError, ConfigError

log = structlog.get_logger()

T = TypeVar("T")


class ChangeRefused(ArkrelayError):
    """A change that was not made, or is written and not in force; ``kind`` says which case, ``key`` which setting."""

    def __init__(self, kind: str, text: str, key: str = "") -> None:
        self.kind, self.key = kind, key  # kind: unfit, invalid, broken, full, unwritable
        super().__init__(text)


class _Broken(ConfigErrors):
    """The files could not be used before anything was changed."""


class Editor:
    """Changes files of the configuration; ``lock`` is held while one does."""

    def __init__(self, live: Live, lock: asyncio.Lock, reload: Callable[[], Awaitable[Changes]]) -> None:
        self._live = live
        self._lock = lock
        self._reload = reload

    async def change(self, tenant_id: str | None, edit: Callable[[], T]) -> T:
        """Return what ``edit`` returned, a function of ``config.tenants``, when its change is on disk and in force.

        ``edit`` runs in a thread, one at a time, and is not cut off when the client goes; inside it the snapshot is
        what all changes before it left behind. Raises NotFound and Conflict as it does, and ChangeRefused, whose text
        tells the owner of ``tenant_id`` (None: everybody) nothing of the files of others.
        """
        task = asyncio.ensure_future(self._change(tenant_id, edit))
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _change(self, tenant_id: str | None, edit: Callable[[], T]) -> T:
        async with self._lock:
            try:
                result = await asyncio.to_thread(self._on_sound_files, edit)
            except _Broken as errors:
                raise self._broken(tenant_id, errors.problems, "Nothing was changed") from None
            except CannotWrite as errors:
                raise _cannot_write(errors) from None
            except ConfigErrors as errors:
                raise _invalid(tenant_id, errors.problems) from None
            try:
                await self._reload()
            except ConfigErrors as errors:  # a file was broken by hand at this very moment
                raise self._broken(tenant_id, errors.problems, "The change is written and not in force") from None
            return result

    def _on_sound_files(self, edit: Callable[[], T]) -> T:
        snapshot = self._live.snapshot
        try:
            load(snapshot.path, previous=snapshot)
        except ConfigErrors as errors:
            raise _Broken(errors.problems) from None
        return edit()

    def _broken(self, tenant_id: str | None, problems: Sequence[ConfigError], what: str) -> ChangeRefused:
        """Return the refusal for files that were broken before; another tenant's are none of a tenant's business."""
        first = problems[0]
        log.warning("change_refused", file=first.file, key=first.key, reason=first.reason, problems=len(problems))
        file = Path(first.file)
        if tenant_id not in {None, file.stem}:
            where = "the configuration of the relay is broken, and its operator has to mend it"
        else:
            folder = self._live.snapshot.path.parent
            name = file.relative_to(folder) if file.is_relative_to(folder) else file
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            where = ": ".join(text for text in (str(name), first.key, first.reason) if text) + more
        return ChangeRefused("broken", f"{what}: {where}.")


def _seen(task: "asyncio.Future[T]") -> None:
    """Take note of the error of a change whose client has gone: nobody else will."""
    if not task.cancelled():
        task.exception()


def _invalid(tenant_id: str | None, problems: Sequence[ConfigError]) -> ChangeRefused:
    """Return the refusal of a change that would not load."""
    first = problems[0]
    if tenant_id not in {None, Path(first.file).stem}:
        return ChangeRefused("invalid", "This does not fit the rest of the relay's configuration.")
    text = f"{first.key}: {first.reason}" if first.key else first.reason
    return ChangeRefused("invalid", f"{text}.", first.key)


def _cannot_write(errors: CannotWrite) -> ChangeRefused:
    problem = errors.problems[0]
    log.error("configuration_not_written", file=problem.file, reason=problem.reason)
    if errors.full:
        return ChangeRefused("full", "The disk of the relay is full: nothing was changed.")
    return ChangeRefused(
        "unwritable", "The relay cannot write its configuration files: nothing was changed, and its log says why."
    )
