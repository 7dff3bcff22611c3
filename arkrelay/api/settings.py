"""Changes to the configuration files that REST makes: by the functions of the command line, and in force at once.

One at a time, and only on top of files that load: what one request wrote would else wait, not in force, for the file
of somebody else to be mended. A key on hold may look at everything that it owns, and change none of it: it could
release itself, or make another.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from arkrelay.api.ask import Ask
from arkrelay.api.refusal import ApiError
from arkrelay.config.errors import CannotWrite, ConfigErrors
from arkrelay.config.load import load
from arkrelay.model.errors import ConfigError
from arkrelay.model.tenant import Credential, Domain, TrackDomain, Webhook

log = structlog.get_logger()

T = TypeVar("T")
D = TypeVar("D", Credential, Domain, TrackDomain, Webhook)


class _Broken(ConfigErrors):
    """The files could not be used before anything was changed."""


async def change(ask: Ask[Any, Any], edit: Callable[[], T]) -> T:
    """Return what ``edit`` returned, a function of ``config.tenants``, when its change is on disk and in force.

    ``edit`` runs in a thread, one at a time, and is not cut off when the client goes; inside it ``ask.snapshot`` is
    what all changes before it left behind. Raises NotFound and Conflict as it does, and ApiError: 403 for a key on
    hold, 422 with the key when what it wrote would not be valid, 409 when other files are broken, 500 and 507 when
    the file cannot be written. In all these cases nothing was written.
    """
    if ask.caller.hold or ask.caller.suspect:
        raise on_hold()
    task = asyncio.ensure_future(_change(ask, edit))
    task.add_done_callback(_seen)
    return await asyncio.shield(task)


def newest_first(things: Iterable[D]) -> list[D]:
    """Return them by their date, the newest first; of one date, what stands further down in its file is newer."""
    return [one for _, one in sorted(enumerate(things), key=lambda pair: (pair[1].created_at, pair[0]), reverse=True)]


def on_hold() -> ApiError:
    """Return the refusal of a key on hold."""
    return ApiError(403, "credential_on_hold", "This key is on hold: it may change nothing.")


async def _change(ask: Ask[Any, Any], edit: Callable[[], T]) -> T:
    parts = ask.parts
    async with parts.editing:
        try:
            result = await asyncio.to_thread(_on_sound_files, ask, edit)
        except _Broken as errors:
            raise _broken(ask, errors.problems, "Nothing was changed") from None
        except CannotWrite as errors:
            raise _cannot_write(errors) from None
        except ConfigErrors as errors:
            raise _invalid(ask, errors.problems) from None
        try:
            await parts.reload()
        except ConfigErrors as errors:  # a file was broken by hand at this very moment
            raise _broken(ask, errors.problems, "The change is written and not in force") from None
        return result


def _on_sound_files(ask: Ask[Any, Any], edit: Callable[[], T]) -> T:
    snapshot = ask.snapshot
    try:
        load(snapshot.path, previous=snapshot)
    except ConfigErrors as errors:
        raise _Broken(errors.problems) from None
    return edit()


def _seen(task: asyncio.Future[Any]) -> None:
    """Take note of the error of a change whose client has gone: nobody else will."""
    if not task.cancelled():
        task.exception()


def _broken(ask: Ask[Any, Any], problems: Sequence[ConfigError], what: str) -> ApiError:
    """Return the refusal for files that were broken before; another tenant's are none of a tenant's business."""
    first = problems[0]
    log.warning("change_refused", file=first.file, key=first.key, reason=first.reason, problems=len(problems))
    file = Path(first.file)
    if ask.caller.tenant_id not in {None, file.stem}:
        where = "the configuration of the relay is broken, and its operator has to mend it"
    else:
        folder = ask.snapshot.path.parent
        name = file.relative_to(folder) if file.is_relative_to(folder) else file
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        where = ": ".join(text for text in (str(name), first.key, first.reason) if text) + more
    return ApiError(409, "conflict", f"{what}: {where}.", retry=False)


def _invalid(ask: Ask[Any, Any], problems: Sequence[ConfigError]) -> ApiError:
    """Return the refusal of a change that would not load."""
    first = problems[0]
    if ask.caller.tenant_id not in {None, Path(first.file).stem}:
        return ApiError(422, "validation_error", "This does not fit the rest of the relay's configuration.")
    text = f"{first.key}: {first.reason}" if first.key else first.reason
    return ApiError(422, "validation_error", f"{text}.", field=first.key or None)


def _cannot_write(errors: CannotWrite) -> ApiError:
    problem = errors.problems[0]
    log.error("configuration_not_written", file=problem.file, reason=problem.reason)
    if errors.full:
        return ApiError(507, "insufficient_storage", "The disk of the relay is full: nothing was changed.")
    message = "The relay cannot write its configuration files: nothing was changed, and its log says why."
    return ApiError(500, "internal_error", message, retry=False)
