"""The files of etc/ are the documentation: every setting is there, with the default that the code has."""

import dataclasses
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.configuration import certificate, dkim_pem

from arkrelay.config.load import load
from arkrelay.config.schema import Reader, key_of, settings_of, table_type
from arkrelay.model.setting import Kind
from arkrelay.model.settings import Settings
from arkrelay.model.tenant import Platform, Tenant

ETC = Path(__file__).parents[3] / "etc"
FILES = [("arkrelay.toml", Settings), ("platform.toml", Platform), ("tenants/example.toml", Tenant)]


def uncommented(name: str) -> str:
    """Return the file with each setting in force: "#key = " and "#[table]" without a space."""
    return re.sub(r"^#(?=[a-z_]+ = |\[)", "", (ETC / name).read_text(), flags=re.MULTILINE)


def documented(table: dict[str, Any], where: str = "") -> set[str]:
    """Return the key paths of a file; entries of one list count together."""
    keys: set[str] = set()
    for key, value in table.items():
        path = f"{where}{key}"
        keys.add(path)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                keys |= documented(inner, f"{path}.")
    return keys


def known(cls: type, where: str = "") -> Iterator[str]:
    for field in settings_of(cls):
        path = f"{where}{key_of(field)}"
        yield path
        inner = table_type(cls, field.name) if field.metadata["kind"] in {Kind.TABLE, Kind.TABLES} else None
        if inner:
            yield from known(inner, f"{path}.")


@pytest.mark.parametrize(("name", "cls"), FILES)
def test_every_setting_is_documented_and_nothing_else(name: str, cls: type) -> None:
    found = documented(tomllib.loads(uncommented(name)))
    free = {path for path in found if path.startswith("metadata.")}  # the keys of metadata are the client's
    assert found - free == set(known(cls))


def defaults(cls: type, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings outside lists that have a default, with it."""
    for field in settings_of(cls):
        path = f"{where}{key_of(field)}"
        inner = table_type(cls, field.name) if field.metadata["kind"] is Kind.TABLE else None
        if inner:
            yield from defaults(inner, f"{path}.")
        elif field.metadata["kind"] not in {Kind.TABLE, Kind.TABLES} and field.default is not dataclasses.MISSING:
            yield path, field.default


@pytest.mark.parametrize(("name", "cls"), FILES)
def test_every_default_in_the_file_is_the_codes(name: str, cls: type[Settings | Platform | Tenant]) -> None:
    reader = Reader(ETC / name, Path())
    read: Any = reader.read(cls, tomllib.loads(uncommented(name)), **({"id": "example"} if cls is Tenant else {}))
    assert reader.problems == []
    by_path: dict[str, Any] = {}

    def collect(thing: Any, where: str = "") -> None:
        for field in settings_of(type(thing)):
            value = getattr(thing, field.name)
            by_path[f"{where}{key_of(field)}"] = value
            if dataclasses.is_dataclass(value):
                collect(value, f"{where}{key_of(field)}.")

    collect(read)
    wanted = dict(defaults(cls))
    assert {path: by_path[path] for path in wanted} == wanted


def test_each_setting_has_a_sentence() -> None:
    def check(cls: type) -> None:
        for field in settings_of(cls):
            assert re.fullmatch(r".{5,}[.?]", field.metadata["doc"]), f"{cls.__name__}.{field.name}"
            if inner := table_type(cls, field.name):
                check(inner)

    for _, cls in FILES:
        check(cls)


def test_the_files_load_as_they_are() -> None:
    snapshot = load(ETC / "arkrelay.toml")
    assert list(snapshot.tenants) == ["example"]
    assert snapshot.settings == dataclasses.replace(
        Settings(hostname="relay.example.com"), tenants_dir=ETC / "tenants"
    )


def test_the_files_load_with_every_setting_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ETC, tmp_path / "etc")
    keys = tmp_path / "state" / "keys" / "dkim"
    keys.mkdir(parents=True)
    for path, content in [
        (tmp_path / "cert.pem", certificate()[0]),
        (tmp_path / "key.pem", certificate()[1]),
        (keys / "example.com.ark-k3f9z1.pem", dkim_pem("rsa-sha256")),
        (tmp_path / "smarthost.secret", b"swordfish\n"),
    ]:
        path.write_bytes(content)
        path.chmod(0o600)
    for name, _ in FILES:
        text = uncommented(name)
        for host in ("relay", "track"):
            text = text.replace(f"/etc/letsencrypt/live/{host}.example.com/fullchain", f"{tmp_path}/cert")
            text = text.replace(f"/etc/letsencrypt/live/{host}.example.com/privkey", f"{tmp_path}/key")
        text = text.replace("/var/lib/arkrelay", f"{tmp_path}/state")
        text = text.replace("/etc/arkrelay/smarthost.secret", f"{tmp_path}/smarthost.secret")
        (tmp_path / "etc" / name).write_text(text)
        (tmp_path / "etc" / name).chmod(0o600)
    snapshot = load(tmp_path / "etc" / "arkrelay.toml")
    assert [listen.service for listen in snapshot.listeners] == [
        "submission",
        "submissions",
        "submission",
        "bounces",
        "http",
    ]
    assert len(snapshot.signers("example", "example.com")) == 1
    assert snapshot.reveal(snapshot.settings.route[0].secret) == "swordfish"
    assert [key.name for key in snapshot.platform.keys] == ["ops"]


@pytest.mark.parametrize("name", [name for name, _ in FILES])
def test_the_files_are_readable_in_a_terminal(name: str) -> None:
    long = [line for line in (ETC / name).read_text().splitlines() if len(line) > 118]
    assert long == []
