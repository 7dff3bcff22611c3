"""Files changed by REST and the command line: whole, atomic, and only if the result would load."""

import errno
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers.configuration import Folder

from arkrelay.config import edit, tenants
from arkrelay.config.errors import CannotWrite, ConfigErrors
from arkrelay.model.errors import Conflict, Exists, NotFound

REPO = Path(__file__).parents[3]


def tables(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_a_new_tenant_has_a_file_that_says_who_wrote_it(folder: Folder) -> None:
    (folder.root / "tenants").rmdir()
    made = tenants.create_tenant(folder.path, "Acme Inc", metadata={"external_id": "42"}, limits=None)
    file = folder.root / "tenants" / f"{made.id}.toml"
    assert made.id.startswith("cm")
    assert file.read_text().startswith("# Written by arkrelay. Comments are lost whenever")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert folder.load().tenants[made.id] == made
    assert (made.name, made.metadata, made.status) == ("Acme Inc", {"external_id": "42"}, "active")
    assert made.created_at.endswith("Z")


@pytest.mark.parametrize("tenant_id", ["../evil", "Acme", "", ".hidden", "a/b", "x" * 64, "a\n"])
def test_an_id_that_is_no_file_name_of_ours_is_refused(folder: Folder, tenant_id: str) -> None:
    before = sorted(folder.root.rglob("*"))
    if tenant_id:
        with pytest.raises(Conflict, match="cannot be a tenant id"):
            tenants.create_tenant(folder.path, "Acme", tenant_id)
    with pytest.raises(NotFound):
        tenants.edit_tenant(folder.path, tenant_id, lambda table: table.clear())
    assert [path for path in sorted(folder.root.rglob("*")) if path.name != ".lock"] == before


def test_a_tenant_that_exists_is_not_made_again(folder: Folder) -> None:
    file = folder.tenant("acme")
    before = file.read_bytes()
    with pytest.raises(Conflict, match='there is a tenant "acme" already'):
        tenants.create_tenant(folder.path, "Other", "acme")
    assert file.read_bytes() == before


def test_a_change_keeps_what_it_does_not_name(folder: Folder) -> None:
    folder.tenant("acme", "status = 'suspended'\n[metadata]\na = 1\n[[credentials]]\nname = 'x'\nsecret = 'y'\n")
    made = tenants.change_tenant(folder.path, "acme", {"name": "New", "metadata": None, "limits": {"hourly": 7}})
    assert (made.name, made.status, made.metadata, made.limits.hourly) == ("New", "suspended", {}, 7)
    assert made.updated_at
    assert folder.load().tenants["acme"] == made


def test_a_change_that_would_not_load_writes_nothing(folder: Folder) -> None:
    file = folder.tenant("acme", "# a comment\n")
    before = file.read_bytes(), file.stat().st_ino
    with pytest.raises(ConfigErrors) as caught:
        tenants.change_tenant(folder.path, "acme", {"status": "odd", "nmae": "x"})
    assert [problem.key for problem in caught.value.problems] == ["nmae", "status"]
    assert (file.read_bytes(), file.stat().st_ino) == before


def test_a_change_that_clashes_with_another_tenant_writes_nothing(folder: Folder) -> None:
    folder.tenant("acme", "[[domains]]\nname = 'a.example'\n")
    file = folder.tenant("beta")
    before = file.read_bytes()
    with pytest.raises(ConfigErrors, match=r"a\.example is already a domain of tenant acme"):
        tenants.add_domain(folder.path, "beta", "a.example", algorithms=["ed25519-sha256"])
    assert file.read_bytes() == before
    assert list((folder.state / "keys" / "dkim").iterdir()) == []


def test_a_change_function_that_raises_writes_nothing(folder: Folder) -> None:
    file = folder.tenant("acme")
    before = file.read_bytes()

    def change(table: dict[str, Any]) -> None:
        table["name"] = "half"
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        tenants.edit_tenant(folder.path, "acme", change)
    assert file.read_bytes() == before


def test_another_broken_file_does_not_stand_in_the_way(folder: Folder) -> None:
    folder.tenant("acme", "[[credentials]]\nname = 'x'\nsecret = 'y'\n")
    number = folder.load().tenants["acme"].credentials[0].id
    folder.write("tenants/beta.toml", "broken")
    assert tenants.change_credential(folder.path, "acme", "x", {"hold": True}).id == number
    with pytest.raises(ConfigErrors, match=r"beta\.toml: is not TOML"):
        tenants.change_tenant(folder.path, "beta", {"name": "x"})
    tenants.edit_platform(
        folder.path, lambda table: table.update(webhooks=[{"name": "w", "url": "https://h.example"}])
    )
    (folder.root / "tenants" / "beta.toml").unlink()
    assert folder.load().tenants["acme"].credentials[0].hold


def test_a_file_managed_by_hand_is_left_alone(folder: Folder) -> None:
    file = folder.tenant("acme", "managed = 'file'\n[[credentials]]\nname = 'x'\nsecret = 'y'\n")
    before = file.read_bytes()
    for change in (
        lambda: tenants.change_tenant(folder.path, "acme", {"name": "x"}),
        lambda: tenants.delete_tenant(folder.path, "acme"),
        lambda: tenants.add_credential(folder.path, "acme", "z"),
        lambda: tenants.remove_credential(folder.path, "acme", "x"),
        lambda: tenants.add_domain(folder.path, "acme", "a.example", algorithms=["ed25519-sha256"]),
        lambda: tenants.add_webhook(folder.path, "acme", "w", "https://h.example/"),
    ):
        with pytest.raises(Conflict, match='has managed = "file"'):
            change()
    assert file.read_bytes() == before
    assert list((folder.state / "keys" / "dkim").iterdir()) == []


def test_a_deleted_tenant_takes_its_keys_along(folder: Folder) -> None:
    tenants.create_tenant(folder.path, "Acme", "acme")
    tenants.add_domain(folder.path, "acme", "a.example", algorithms=["ed25519-sha256"])
    tenants.delete_tenant(folder.path, "acme")
    assert list((folder.state / "keys" / "dkim").iterdir()) == []
    assert dict(folder.load().tenants) == {}
    with pytest.raises(NotFound):
        tenants.delete_tenant(folder.path, "acme")


def test_a_tenant_that_is_needed_is_not_deleted(folder: Folder) -> None:
    folder.tenant("acme")
    folder.main("default_tenant = 'acme'\n")
    with pytest.raises(ConfigErrors, match='default_tenant: there is no tenant "acme"'):
        tenants.delete_tenant(folder.path, "acme")
    assert "acme" in folder.load().tenants


def test_a_new_credential_is_sealed_and_its_secret_told_once(folder: Folder) -> None:
    tenants.create_tenant(folder.path, "Acme", "acme")
    made, secret = tenants.add_credential(folder.path, "acme", "production", hold=None, permissions=["send"])
    file = folder.root / "tenants" / "acme.toml"
    assert secret not in file.read_text()
    assert made.secret.startswith("sealed:v1:")
    snapshot = folder.load()
    found = snapshot.find_credential(secret)
    assert found is not None
    assert found[1] == made
    assert snapshot.reveal(made.secret) == secret
    api = tenants.add_credential(snapshot, "acme", "rest", kind="api")
    assert api[1].startswith("ark_live_")
    given = tenants.add_credential(folder.path, "acme", "mine", secret="my own secret")
    assert given[1] == "my own secret"
    with pytest.raises(Conflict, match='there is a credential "production" already'):
        tenants.add_credential(folder.path, "acme", "production")
    assert len({item.id for item in folder.load().tenants["acme"].credentials}) == 3


def test_a_renamed_credential_keeps_its_number(folder: Folder) -> None:
    folder.tenant("acme", "[[credentials]]\nname = 'old'\nsecret = 'y'\nusername = 'u'\n")
    before = folder.load().tenants["acme"].credentials[0]
    after = tenants.change_credential(folder.path, "acme", "old", {"name": "new", "hold": True, "username": None})
    assert (after.id, after.name, after.hold, after.username) == (before.id, "new", True, "")
    with pytest.raises(NotFound, match='there is no credential "old"'):
        tenants.change_credential(folder.path, "acme", "old", {"hold": False})


def test_a_renewed_credential_has_another_secret(folder: Folder) -> None:
    tenants.create_tenant(folder.path, "Acme", "acme")
    made, first = tenants.add_credential(folder.path, "acme", "production")
    again, second = tenants.renew_credential(folder.path, "acme", "production")
    assert again.id == made.id
    assert folder.load().find_credential(first) is None
    assert folder.load().find_credential(second) is not None
    tenants.remove_credential(folder.path, "acme", "production")
    assert folder.load().find_credential(second) is None
    with pytest.raises(NotFound):
        tenants.renew_credential(folder.path, "acme", "production")


def test_organisation_keys_live_in_platform_toml(folder: Folder) -> None:
    live, secret = tenants.add_key(folder.path, "ops")
    test, other = tenants.add_key(folder.path, "ci", test=True)
    assert (secret[:9], other[:9]) == ("ark_live_", "ark_test_")
    assert folder.load().find_key(secret) == live
    assert folder.load().find_key(other) == test
    assert stat.S_IMODE((folder.root / "platform.toml").stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        tenants.add_key(folder.path, "ops")
    tenants.remove_key(folder.path, "ops")
    assert folder.load().find_key(secret) is None
    with pytest.raises(NotFound):
        tenants.remove_key(folder.path, "ops")


@pytest.mark.parametrize("tenant_id", ["acme", None])
def test_webhooks_of_tenants_and_of_the_platform(folder: Folder, tenant_id: str | None) -> None:
    folder.tenant("acme")
    made = tenants.add_webhook(folder.path, tenant_id, "w", "https://h.example/", events=["MessageSent"])
    assert made.id.startswith("pwh_") is (tenant_id is None)
    same = tenants.change_webhook(folder.path, tenant_id, made.uuid, {"name": "v", "enabled": False, "events": None})
    assert (same.id, same.name, same.enabled, same.events) == (made.id, "v", False, ())
    assert (made.takes("MessageHeld"), same.takes("MessageHeld"), same.takes_all) == (False, True, True)
    none = tenants.change_webhook(folder.path, tenant_id, made.id, {"events": [], "all_events": False})
    assert (none.events, none.takes_all, none.takes("MessageSent")) == ((), False, False)
    with pytest.raises(ConfigErrors, match="plain http needs allow_http"):
        tenants.change_webhook(folder.path, tenant_id, made.id, {"url": "http://h.example/"})
    tenants.remove_webhook(folder.path, tenant_id, made.id)
    snapshot = folder.load()
    assert (*snapshot.platform.webhooks, *snapshot.tenants["acme"].webhooks) == ()


def test_a_writer_that_dies_before_the_rename_leaves_the_old_file(folder: Folder) -> None:
    file = folder.tenant("acme")
    before = file.read_bytes()
    script = """
import os, sys
from pathlib import Path
from arkrelay.config import tenants
Path.rename = lambda *_: os._exit(9)
tenants.change_tenant(Path(sys.argv[1]), "acme", {"name": "never"})
"""
    done = subprocess.run([sys.executable, "-c", script, folder.path], cwd=REPO, check=False, timeout=50)
    assert done.returncode == 9
    assert file.read_bytes() == before
    left = [path.name for path in file.parent.iterdir() if path.name.startswith(".acme.toml.")]
    assert len(left) == 1
    assert list(folder.load().tenants) == ["acme"]
    assert tenants.change_tenant(folder.path, "acme", {"name": "later"}).name == "later"


def test_two_processes_that_edit_at_once_lose_nothing(folder: Folder) -> None:
    folder.tenant("acme", "[limits]\nhourly = 0\n")
    script = """
import sys
from pathlib import Path
from arkrelay.config import tenants

def change(table):
    table["limits"]["hourly"] += 1
    metadata = table.setdefault("metadata", {})
    metadata[sys.argv[2]] = metadata.get(sys.argv[2], 0) + 1

for _ in range(50):
    tenants.edit_tenant(Path(sys.argv[1]), "acme", change)
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script, folder.path, name], cwd=REPO) for name in ("one", "two")
    ]
    for _ in range(100):  # a reader beside them never sees half a file
        folder.load()
    assert [process.wait(50) for process in running] == [0, 0]
    tenant = folder.load().tenants["acme"]
    assert tenant.limits.hourly == 100
    assert tenant.metadata == {"one": 50, "two": 50}


def test_who_may_not_write_is_told_which_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.tenant("acme")

    def refuse(path: Path, _content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(edit, "replace", refuse)
    with pytest.raises(ConfigErrors, match=r"tenants/acme\.toml: cannot be written: Permission denied"):
        tenants.change_tenant(folder.path, "acme", {"name": "x"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_service(folder: Folder) -> None:
    for path in (folder.state, folder.root / "tenants"):
        os.chown(path, 4321, 4321)
    (folder.state / "keys" / "dkim").rmdir()
    (folder.state / "keys").rmdir()
    tenants.create_tenant(folder.path, "Acme", "acme")
    tenants.add_credential(folder.path, "acme", "production")
    tenants.add_domain(folder.path, "acme", "a.example", algorithms=["ed25519-sha256"])
    made = [folder.root / "tenants" / "acme.toml", *(folder.state / "keys").rglob("*"), folder.state / "keys"]
    assert len(made) == 5
    assert {path.stat().st_uid for path in made} == {4321}


def test_null_in_metadata_is_an_empty_list_in_the_file_and_comes_back(folder: Folder) -> None:
    metadata = {"plan": None, "a.b": "x", "": 0, "list": True}
    made = tenants.create_tenant(folder.path, "Acme", metadata=metadata)
    assert made.metadata == metadata
    file = folder.root / "tenants" / f"{made.id}.toml"
    assert tables(file)["metadata"] == {**metadata, "plan": []}
    assert list(folder.load().tenants[made.id].metadata) == list(metadata)
    changed = tenants.change_tenant(folder.path, made.id, {"metadata": {"plan": None}})
    assert changed.metadata == folder.load().tenants[made.id].metadata == {"plan": None}
    tenants.edit_tenant(folder.path, made.id, lambda table: table.update(name="New"))
    assert folder.load().tenants[made.id].metadata == {"plan": None}


def test_a_credential_is_found_by_its_number_too_and_keeps_its_name_to_itself(folder: Folder) -> None:
    tenants.create_tenant(folder.path, "Acme", "acme")
    first, _ = tenants.add_credential(folder.path, "acme", "first")
    second, _ = tenants.add_credential(folder.path, "acme", "second")
    before = (folder.root / "tenants" / "acme.toml").read_bytes()
    with pytest.raises(Exists, match='there is a credential "second" already'):
        tenants.change_credential(folder.path, "acme", first.id, {"name": "second"})
    assert (folder.root / "tenants" / "acme.toml").read_bytes() == before
    assert tenants.change_credential(folder.path, "acme", first.id, {"name": "first", "hold": True}).hold
    assert tenants.remove_credential(folder.path, "acme", second.id).name == "second"
    assert [item.id for item in folder.load().tenants["acme"].credentials] == [first.id]


@pytest.mark.parametrize(
    ("test", "secret", "is_test"),
    [(False, None, False), (True, None, True), (False, "ark_test_0123456789", True), (False, "my_ark_test_0", False)],
)
@pytest.mark.parametrize("kind", ["smtp", "api"])
def test_a_credential_is_for_tests_when_its_key_says_so(
    folder: Folder, kind: str, test: bool, secret: str | None, is_test: bool
) -> None:
    tenants.create_tenant(folder.path, "Acme", "acme")
    _, plain = tenants.add_credential(folder.path, "acme", "x", kind=kind, secret=secret, test=test)
    assert plain.startswith("ark_test_") == is_test
    snapshot = folder.load()
    assert (snapshot.is_test("acme", "x"), snapshot.is_test("acme", "y")) == (is_test, False)


def test_a_full_disk_is_told_from_other_trouble(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder.tenant("acme")
    before = file.read_bytes()
    for number, full in ((errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, False)):
        monkeypatch.setattr(edit, "replace", _failing(number))
        with pytest.raises(CannotWrite, match="cannot be written") as caught:
            tenants.change_tenant(folder.path, "acme", {"name": "New"})
        assert caught.value.full == full
    assert file.read_bytes() == before


def _failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
