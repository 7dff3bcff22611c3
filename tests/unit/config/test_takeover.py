"""Tenants taken over: all of it is written, or none of it, and what was there stays as it was."""

import stat
from pathlib import Path
from typing import Any

import pytest
from peers.configuration import Folder, dkim_pem

from arkrelay.config.errors import ConfigErrors
from arkrelay.config.takeover import Addition, SigningKey, take_over
from arkrelay.model.errors import Conflict, Exists


def addition(**parts: Any) -> Addition:
    return Addition(**{"new": {"name": "New", "metadata": None, "limits": {"hourly": 7}}, **parts})


def content(folder: Folder) -> dict[Path, bytes]:
    names = {"host.key", ".lock"}
    return {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file() and path.name not in names}


def test_tenants_and_what_joins_one_are_written_together(folder: Folder) -> None:
    folder.tenant("acme", "[[credentials]]\nname = 'x'\nsecret = 'y'\n[[domains]]\nname = 'old.example'\n")
    before = folder.load().tenants["acme"]
    told: list[str] = []
    key = SigningKey("postal-ABC", dkim_pem("rsa-sha256", 0))
    take_over(
        folder.path,
        {
            "new": addition(
                credentials=[{"name": "app", "type": "api", "secret": "plain-secret", "hold": True}],
                domains={"a.example": key, "b.example": None},
                webhooks=[{"name": "w", "url": "https://h.example/", "all_events": False}],
                track_domains=[{"name": "t", "domain": "a.example", "clicks": False}],
            ),
            "acme": Addition(credentials=[{"name": "z", "secret": "another"}]),
        },
        [{"name": "central", "url": "https://c.example/"}],
        told.append,
    )
    snapshot = folder.load()
    new, acme = snapshot.tenants["new"], snapshot.tenants["acme"]
    assert told == ["a.example", "b.example"]
    assert (new.name, new.limits.hourly, new.created_at != "") == ("New", 7, True)
    found = snapshot.find_credential("plain-secret")
    assert found is not None
    assert (found[0].id, found[1].type, found[1].hold) == ("new", "api", True)
    assert b"plain-secret" not in (folder.root / "tenants" / "new.toml").read_bytes()
    assert [[one.selector[:4] for one in domain.dkim] for domain in new.domains] == [["post"], ["ark-"]]
    file = new.domains[0].dkim[0].private_key
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (key.pem, 0o600)
    assert (new.webhooks[0].takes("MessageSent"), new.track_domains[0].clicks) == (False, False)
    assert (acme.credentials[0], acme.domains) == (before.credentials[0], before.domains)
    assert acme.created_at == before.created_at
    assert snapshot.platform.webhooks[0].id.startswith("pwh_")
    ids = [one.id for one in (*new.credentials, *acme.credentials)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        pytest.param(addition(domains={"old.example": None}), ConfigErrors, id="a-domain-of-another"),
        pytest.param(addition(credentials=[{"name": "app", "secret": "y"}]), ConfigErrors, id="a-key-of-another"),
        pytest.param(addition(domains={"c.example": SigningKey("s", b"no key")}), ConfigErrors, id="no-key"),
        pytest.param(addition(new={"name": "N", "nmae": 1}), ConfigErrors, id="an-unknown-setting"),
    ],
)
def test_with_one_bad_thing_nothing_is_written(folder: Folder, bad: Addition, error: type[Exception]) -> None:
    folder.tenant("acme", "[[credentials]]\nname = 'x'\nsecret = 'y'\n[[domains]]\nname = 'old.example'\n")
    before = content(folder)
    good = addition(domains={"a.example": SigningKey("s", dkim_pem("rsa-sha256", 0))})
    with pytest.raises(error):
        take_over(folder.path, {"good": good, "bad": bad})
    assert content(folder) == before


def test_a_file_managed_by_hand_and_a_key_that_is_there_are_left_alone(folder: Folder) -> None:
    folder.tenant("acme", "managed = 'file'\n")
    folder.dkim("a.example.s")
    before = content(folder)
    with pytest.raises(Conflict, match="managed"):
        take_over(folder.path, {"acme": Addition(credentials=[{"name": "z", "secret": "another"}])})
    with pytest.raises(Exists, match="holds another key"):
        take_over(folder.path, {"new": addition(domains={"a.example": SigningKey("s", dkim_pem("rsa-sha256", 0))})})
    assert content(folder) == before


def test_a_key_that_a_crash_left_is_used(folder: Folder) -> None:
    key = SigningKey("s", dkim_pem("rsa-sha256", 0))
    folder.dkim("a.example.s", "rsa-sha256")
    take_over(folder.path, {"new": addition(domains={"a.example": key})})
    assert folder.load().tenants["new"].domains[0].dkim[0].selector == "s"


def test_another_broken_file_does_not_stand_in_the_way(folder: Folder) -> None:
    folder.write("tenants/beta.toml", "broken")
    take_over(folder.path, {"new": addition(credentials=[{"name": "z", "secret": "another"}])})
    (folder.root / "tenants" / "beta.toml").unlink()
    assert folder.load().tenants["new"].credentials[0].name == "z"
