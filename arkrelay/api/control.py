"""What the command line asks of the running daemon itself: status, reload, plan, backup, database care."""

import asyncio
import json
import time
from pathlib import Path

from aiohttp import web

from arkrelay import __version__
from arkrelay.api.auth import require_organisation
from arkrelay.api.body import body_of, field_of, line
from arkrelay.api.errors import ApiError, error_response
from arkrelay.api.parts import REQUEST_ID, Parts, parts_of
from arkrelay.api.shapes import dump, single
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.live import Changes, compare
from arkrelay.config.load import load
from arkrelay.model.errors import StoreError
from arkrelay.store import backup
from arkrelay.store.usage import totals


async def status(request: web.Request) -> web.Response:
    """What the daemon is doing."""
    require_organisation(request)
    parts = parts_of(request)
    counts = await parts.store.read(totals)
    reason = parts.unready()
    data = {
        "version": __version__,
        "hostname": parts.live.snapshot.settings.hostname,
        "epoch": parts.store.epoch,
        "uptimeS": round(time.time() - parts.started_at, 1),
        "ready": not reason,
        "reason": reason or None,
        "listeners": [{"service": service, "address": address} for service, address in parts.listeners()],
        "queue": {str(state): counts[state] for state in counts},
        "connections": parts.queue.connections,
        "warnings": list(parts.live.snapshot.warnings),
        "store": _store(parts),
    }
    return single(request, data)


async def reload(request: web.Request) -> web.Response:
    """Take the configuration files over; 422 with every problem when they cannot be used."""
    require_organisation(request)
    try:
        changes = await parts_of(request).reload()
    except ConfigErrors as errors:
        return _problems(request, errors)
    return single(request, _effect(changes))


async def plan(request: web.Request) -> web.Response:
    """What a reload would change; nothing is changed."""
    require_organisation(request)
    parts = parts_of(request)
    try:
        new = await asyncio.to_thread(load, parts.live.snapshot.path)
    except ConfigErrors as errors:
        return _problems(request, errors)
    return single(request, _effect(compare(parts.live.snapshot, new)))


async def make_backup(request: web.Request) -> web.Response:
    """Copy database, large bodies and keys to ``path`` on this machine while mail goes on."""
    require_organisation(request)
    body = await body_of(request)
    path = Path(field_of(body, "path", line, "an absolute path"))
    if not path.is_absolute():
        raise ApiError(400, "validation_error", "path must be absolute.", field="path")
    parts = parts_of(request)
    try:
        written = await asyncio.to_thread(backup.backup, parts.live.snapshot.settings.state_dir, path)
    except (StoreError, OSError) as error:  # the target's trouble, in words for who named it
        raise ApiError(422, "validation_error", str(error), field="path") from None
    return single(request, {"path": str(written)})


async def database(request: web.Request) -> web.Response:
    """Sizes and counts of the database."""
    require_organisation(request)
    parts = parts_of(request)
    counts = await parts.store.read(totals)
    return single(request, _store(parts) | {"recipients": {str(state): counts[state] for state in counts}})


async def care(request: web.Request) -> web.Response:
    """Check the database, delete what is past its retention, or give free pages back."""
    require_organisation(request)
    parts = parts_of(request)
    verb = request.match_info["verb"]
    state_dir = parts.live.snapshot.settings.state_dir
    if verb == "check":
        problems = await asyncio.to_thread(backup.check, state_dir)
        return single(request, {"ok": not problems, "problems": problems})
    before = _store(parts)["bytes"]
    if verb == "prune":
        await parts.upkeep.prune()
    else:
        await parts.upkeep.vacuum()
    return single(request, {"ok": True, "bytesBefore": before, "bytesAfter": _store(parts)["bytes"]})


def _store(parts: Parts) -> dict[str, object]:
    path = parts.store.path
    return {
        "path": str(path),
        "bytes": _size(path),
        "walBytes": _size(path.with_name(path.name + "-wal")),
        "freeBytes": parts.upkeep.free_bytes(),
        "commitMs": round(parts.store.commit_s * 1000, 2),
        "healthy": parts.store.healthy is None,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _effect(changes: Changes) -> dict[str, object]:
    return {
        "changes": [str(item) for item in changes.items if not item.restart],
        "restart": [f"{item.subject}: {item.effect}" for item in changes.items if item.restart],
    }


def _problems(request: web.Request, errors: ConfigErrors) -> web.Response:
    """Answer 422 with the contract's error and, beside it, one entry per problem."""
    problems = [{"file": one.file, "key": one.key, "reason": one.reason} for one in errors.problems]
    error = ApiError(422, "validation_error", f"The configuration cannot be used: {errors.problems[0]}")
    response = error_response(error, request[REQUEST_ID])
    response.text = dump({**json.loads(response.text or ""), "problems": problems})
    return response
