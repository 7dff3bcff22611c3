"""An open store on a real file, closed again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from arkrelay.store.database import Store


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> Iterator[Store]:
    opened = Store.open(state_dir)
    yield opened
    opened.close()
