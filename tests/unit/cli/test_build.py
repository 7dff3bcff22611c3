"""Man pages and versions: what a command says is what roff prints, and Debian sorts releases as Python does."""

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click
import pytest

from arkrelay.cli.build import man
from arkrelay.cli.build.deb import debian_version


@click.group("program")
def program() -> None:
    """Do things."""


@program.command("strange")
@click.option("--in'valid", "value", help=r"A \\backslash, a 'quote', ~tilde^ and `tick`.")
@click.argument("words", nargs=-1)
def strange(value: str, words: str) -> None:
    """Say the first line.

    .start of a line with a dot
    'and one with a quote

    \b
    lines as
    they are
    """


def test_a_page_prints_what_the_command_says(tmp_path: Path, need: Callable[[str | Path], Path]) -> None:
    (tmp_path / "arkrelay.toml").write_text("# 'quoted'\n.dotted = \"\\\\n\"\n")
    pages = {path.name: path for path in man.write(program, tmp_path / "arkrelay.toml", tmp_path / "pages")}
    assert set(pages) == {"arkrelay.1", "arkrelay-strange.1", "arkrelay.toml.5"}

    def rendered(name: str) -> str:
        words: list[str | Path] = [need("groff"), "-man", "-Tutf8", "-ww", "-P-bcou", pages[name]]
        done: subprocess.CompletedProcess[str] = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    page = rendered("arkrelay-strange.1")
    assert r"A \\backslash, a 'quote', ~tilde^ and `tick`." in page
    assert " .start of a line with a dot 'and one with a quote\n" in page
    assert "lines as\n" in page
    assert "arkrelay strange [OPTIONS] [WORDS]..." in page
    settings = rendered("arkrelay.toml.5")
    assert "# 'quoted'\n" in settings
    assert '.dotted = "\\\\n"\n' in settings


@pytest.mark.parametrize(
    ("ours", "debians"),
    [("1.2.3", "1.2.3"), ("1.2rc1", "1.2~rc1"), ("1.2a1", "1.2~a1"), ("1.2.dev3", "1.2~~dev3")],
)
def test_a_version_is_spelt_as_debian_spells_it(ours: str, debians: str) -> None:
    assert debian_version(ours) == debians


def test_debian_sorts_releases_as_python_does(need: Callable[[str | Path], Path]) -> None:
    for older, newer in pairwise(["1.1", "1.2.dev3", "1.2a1", "1.2b2", "1.2rc1", "1.2", "1.2.1", "1.10"]):
        words: list[str | Path] = [
            need("dpkg"),
            "--compare-versions",
            debian_version(older),
            "lt",
            debian_version(newer),
        ]
        assert subprocess.run(words, check=False).returncode == 0, (older, newer)
