"""Programs that the tests start: run to their end within a limit, or ended in order."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


async def run(
    folder: Path,
    *command: str | Path,
    limit_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run a program without the settings of whoever runs the tests; it is ended when it takes too long."""
    inherited = {key: os.environ[key] for key in ("PATH",) if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(str(part) for part in command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**inherited, "HOME": str(folder), "LC_ALL": "C.UTF-8", **(environment or {})},
    )
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate(stdin)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


async def end(process: asyncio.subprocess.Process | None, limit_s: float) -> None:
    """End a program that may run, by force when it takes too long."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(limit_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
