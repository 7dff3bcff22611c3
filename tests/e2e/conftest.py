"""What more than one file of these tests needs, and takes long to make."""

from pathlib import Path

import pytest
from peers.packages import Built, build, build_next


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the packages of this tree, built once."""
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def next_deb(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Debian package of a later version, whose schema is one migration on."""
    return build_next(built, tmp_path_factory.mktemp("next"))
