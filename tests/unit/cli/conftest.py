"""A directory with a real configuration for every test, and a daemon's double where one is asked for."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.cli.support import Double, Program, serving


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path, since a unix socket's has at most 107 bytes (unix(7)), and a configuration in it."""
    path = Path(tempfile.mkdtemp(prefix="ark-cli-"))
    (path / "state").mkdir(mode=0o700)
    (path / "tenants").mkdir(mode=0o700)
    config = path / "arkrelay.toml"
    config.write_text('hostname = "relay.example.com"\nstate_dir = "state"\n')
    monkeypatch.setenv("ARKRELAY_CONFIG", str(config))
    monkeypatch.delenv("ARKRELAY_KEY", raising=False)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def program(home: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    return Program(home, capsys)


@pytest.fixture
def daemon(home: Path) -> Iterator[Double]:
    double = Double()
    with serving(double, home / "state" / "arkrelay.sock"):
        yield double


@pytest.fixture
def tenant_file(home: Path) -> Path:
    """One tenant by hand, with a domain without keys."""
    path = home / "tenants" / "acme.toml"
    path.write_text('name = "Acme"\n[[domains]]\nname = "example.com"\n')
    return path
