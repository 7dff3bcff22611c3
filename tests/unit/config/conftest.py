"""A configuration in a temporary folder."""

from pathlib import Path

import pytest
from peers.configuration import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
