"""What the command line asks of the running daemon itself: status, reload, plan, backup, database care."""

import asyncio
import time
from pathlib import Path

from arkrelay import __version__
from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Body, Line, Nothing
from arkrelay.api.parts import Parts
from arkrelay.api.refusal import ApiError
from arkrelay.config.live import Changes, compare
from arkrelay.config.load import load
from arkrelay.model.errors import StoreError
from arkrelay.store import backup
from arkrelay.store.postmaster import FOLDER, count_postmaster_mail
from arkrelay.store.usage import totals


class Listener(Answer):
    """Something that is bound, and for what."""

    service: str
    address: str


class Problem(Answer):
    """Why a file cannot be used; ``key`` is empty where it is about the whole file."""

    file: str
    key: str
    reason: str


class StoreState(Answer):
    """The database: sizes in bytes, and how long a commit takes of late."""

    path: str
    bytes: int
    wal_bytes: int
    free_bytes: int
    commit_ms: float
    healthy: bool


class PostmasterMail(Answer):
    """Mail to postmaster: how many messages wait to be read, as files in this folder of the relay's machine."""

    waiting: int
    folder: str


class DoctorCounts(Answer):
    """How the doctor's last look came out; ``checkedAt`` in Unix seconds."""

    ok: int
    warn: int
    fail: int
    skip: int
    checked_at: float


class DaemonStatus(Answer):
    """What the daemon is doing; ``queue`` counts recipients by state.

    ``configProblems`` is empty while the files are in force as they are. Otherwise a reload was refused, or a key
    file cannot be used, and what was good before goes on.
    """

    version: str
    hostname: str
    epoch: int
    uptime_s: float
    ready: bool
    reason: str | None
    listeners: list[Listener]
    queue: dict[str, int]
    connections: int
    warnings: list[str]
    config_problems: list[Problem]
    doctor: DoctorCounts | None
    postmaster: PostmasterMail
    store: StoreState


class Effect(Answer):
    """What a reload changes, a sentence each, and which settings wait for a restart."""

    changes: list[str]
    restart: list[str]


class Target(Body):
    """Where a backup goes: an absolute path on the relay's machine."""

    path: Line


class Written(Answer):
    """The file that was written."""

    path: str


class DatabaseState(StoreState):
    """The database, with its recipients by state."""

    recipients: dict[str, int]


class Checked(Answer):
    """Whether the database is whole, and what is wrong when it is not."""

    ok: bool
    problems: list[str]


class Cared(Answer):
    """The size of the database before and after."""

    ok: bool
    bytes_before: int
    bytes_after: int


async def status(ask: Ask[Nothing, Nothing]) -> DaemonStatus:
    """What the daemon is doing."""
    parts = ask.parts
    counts = await parts.store.read(totals)
    reason = parts.unready()
    folder = ask.snapshot.settings.state_dir / FOLDER
    return DaemonStatus(
        version=__version__,
        hostname=ask.snapshot.settings.hostname,
        epoch=parts.store.epoch,
        uptime_s=round(time.time() - parts.started_at, 1),
        ready=not reason,
        reason=reason or None,
        listeners=[Listener(service=service, address=address) for service, address in parts.listeners()],
        queue={str(state): counts[state] for state in counts},
        connections=parts.queue.connections,
        warnings=list(ask.snapshot.warnings),
        config_problems=[Problem(file=one.file, key=one.key, reason=one.reason) for one in parts.live.problems],
        doctor=_doctor(parts),
        postmaster=PostmasterMail(waiting=await asyncio.to_thread(count_postmaster_mail, folder), folder=str(folder)),
        store=_store(parts),
    )


async def reload(ask: Ask[Nothing, Nothing]) -> Effect:
    """Take the configuration files over; 422 with every problem when they cannot be used."""
    return _effect(await ask.parts.reload())


async def plan(ask: Ask[Nothing, Nothing]) -> Effect:
    """What a reload would change; nothing is changed."""
    old = ask.snapshot
    return _effect(compare(old, await asyncio.to_thread(load, old.path)))


async def make_backup(ask: Ask[Nothing, Target]) -> Written:
    """Copy database, large bodies and keys to ``path`` on the relay's machine while mail goes on."""
    path = Path(ask.body.path)
    if not path.is_absolute():
        raise ApiError(400, "validation_error", "path must be absolute.", field="path")
    try:
        written = await asyncio.to_thread(backup.backup, ask.snapshot.settings.state_dir, path)
    except (StoreError, OSError) as error:  # the target's trouble, in words for who named it
        raise ApiError(422, "validation_error", str(error), field="path") from None
    return Written(path=str(written))


async def database(ask: Ask[Nothing, Nothing]) -> DatabaseState:
    """Sizes and counts of the database."""
    counts = await ask.parts.store.read(totals)
    state = _store(ask.parts)
    fields = {name: getattr(state, name) for name in StoreState.__struct_fields__}
    return DatabaseState(**fields, recipients={str(state): counts[state] for state in counts})


async def check(ask: Ask[Nothing, Nothing]) -> Checked:
    """Look through the whole database for damage."""
    problems = await asyncio.to_thread(backup.check, ask.snapshot.settings.state_dir)
    return Checked(ok=not problems, problems=problems)


async def prune(ask: Ask[Nothing, Nothing]) -> Cared:
    """Delete what is past its retention, now."""
    before = _store(ask.parts).bytes
    await ask.parts.upkeep.prune()
    return Cared(ok=True, bytes_before=before, bytes_after=_store(ask.parts).bytes)


async def vacuum(ask: Ask[Nothing, Nothing]) -> Cared:
    """Give free pages of the database back to the file system."""
    before = _store(ask.parts).bytes
    await ask.parts.upkeep.vacuum()
    return Cared(ok=True, bytes_before=before, bytes_after=_store(ask.parts).bytes)


def _doctor(parts: Parts) -> DoctorCounts | None:
    report = parts.doctor.report
    if report is None or not report.at:  # nobody has looked at the whole
        return None
    return DoctorCounts(**report.counts(), checked_at=round(report.at, 3))


def _store(parts: Parts) -> StoreState:
    path = parts.store.path
    return StoreState(
        path=str(path),
        bytes=_size(path),
        wal_bytes=_size(path.with_name(path.name + "-wal")),
        free_bytes=parts.upkeep.free_bytes(),
        commit_ms=round(parts.store.commit_s * 1000, 2),
        healthy=parts.store.healthy is None,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _effect(changes: Changes) -> Effect:
    return Effect(
        changes=[str(item) for item in changes.items if not item.restart],
        restart=[f"{item.subject}: {item.effect}" for item in changes.items if item.restart],
    )
