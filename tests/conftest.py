"""Fixtures of every test: what real peers there are, and a relay with all its doors for the tests of clients."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

# How long an example takes tells how busy the machine is, and nothing about what is tested.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

pytest.register_assert_rewrite("peers.office")  # its assertions shall say what they compared

from peers.office import Office, open_office  # noqa: E402 -- only modules imported later are rewritten

Need = Callable[[str | Path], Path]


def _need(program: str | Path) -> Path:
    """Return the path of a program or file; without it the test is skipped, and in CI it fails."""
    if isinstance(program, Path):
        found = program if program.exists() else None
    else:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        where = shutil.which(program, path=path)
        found = None if where is None else Path(where)
    if found is None:
        reason = f"{program} is not installed: .ci/run installs what the tests need"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def need() -> Need:
    """Return the function that finds a real peer, or skips the test; in CI a missing peer is a failure."""
    return _need


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """Give one relay, with DNS and MX, to all tests of a module."""
    async with open_office(tmp_path_factory.mktemp("office")) as opened:
        yield opened
