"""The words of the build: each makes its files in OUTDIR and prints their paths."""

import tempfile
from pathlib import Path

import click

from arkrelay.cli.build import deb, man, pyz, stage
from arkrelay.cli.main import arkrelay
from arkrelay.cli.state import Failed

outdir = click.argument("outdir", type=click.Path(file_okay=False, path_type=Path))
staged = click.option(
    "--stage",
    "kept",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Use the unpacked files in DIR; where there are none yet, leave them there.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def build() -> None:
    """Make of this source tree what is installed."""


@build.command("pyz")
@outdir
@staged
def pyz_command(outdir: Path, kept: Path | None) -> None:
    """Make arkrelay.pyz: one file with all that it needs beside Python."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = stage.fill(kept or Path(scratch) / "stage", stage.find_tree())
        outdir.mkdir(parents=True, exist_ok=True)
        click.echo(pyz.write(folder, outdir / "arkrelay.pyz"))


@build.command("deb")
@outdir
@staged
@click.option("--fast", is_flag=True, help="Compress little: a third of the time, half as large again.")
def deb_command(outdir: Path, kept: Path | None, fast: bool) -> None:
    """Make the Debian package."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = stage.find_tree()
        folder = stage.fill(kept or Path(scratch) / "stage", tree)
        outdir.mkdir(parents=True, exist_ok=True)
        click.echo(deb.write(folder, tree, outdir, Path(scratch) / "root", fast=fast))


@build.command("man")
@outdir
def man_command(outdir: Path) -> None:
    """Write the man pages: arkrelay(1), one for each command, and arkrelay.toml(5)."""
    for path in man.write(arkrelay, stage.find_tree() / "etc" / "arkrelay.toml", outdir):
        click.echo(path)


@build.command("completion")
@outdir
def completion_command(outdir: Path) -> None:
    """Write the completions of bash, zsh and fish."""
    for path in man.write_completions(arkrelay, outdir):
        click.echo(path)


def main() -> None:
    """Run the build; what stops it is said in one sentence."""
    try:
        build(prog_name="python -m arkrelay.cli.build")
    except Failed as error:
        raise SystemExit(f"{error.message}: {error.hint}" if error.hint else error.message) from None


if __name__ == "__main__":
    main()
