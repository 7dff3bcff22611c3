"""Sender domains, their keys through a rotation, and their track domains."""

import stat

import pytest
from peers.configuration import Folder

from arkrelay.config import tenants
from arkrelay.config.domains import MAX_DOMAIN, sender_domain
from arkrelay.config.errors import ConfigErrors
from arkrelay.model.address import AddressError
from arkrelay.model.errors import Conflict, Exists, NotFound
from arkrelay.model.tenant import Domain

ED = ["ed25519-sha256"]


@pytest.fixture
def domain(folder: Folder) -> Domain:
    folder.tenant("acme")
    return tenants.add_domain(folder.path, "acme", "Bücher.example", trusted=True, algorithms=ED)


def states(domain: Domain) -> list[str]:
    return [key.state for key in domain.dkim]


def test_a_new_domain_signs_with_a_private_key(folder: Folder, domain: Domain) -> None:
    assert domain.name == "xn--bcher-kva.example"
    assert domain.trusted
    assert domain.id > 0
    (key,) = domain.dkim
    assert key.private_key == folder.state / "keys" / "dkim" / f"{domain.name}.{key.selector}.pem"
    assert stat.S_IMODE(key.private_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.private_key.parent.stat().st_mode) == 0o700
    assert key.selector.startswith("ark-")
    assert len(key.selector) == 10
    (signer,) = folder.load().signers("acme", domain.name)
    assert (signer.domain, signer.selector, signer.algorithm) == (domain.name, key.selector, key.algorithm)


def test_a_domain_has_an_rsa_key_unless_told_otherwise(folder: Folder) -> None:
    folder.tenant("acme")
    assert [key.algorithm for key in tenants.add_domain(folder.path, "acme", "a.example").dkim] == ["rsa-sha256"]
    both = tenants.add_domain(folder.path, "acme", "b.example", algorithms=["rsa-sha256", *ED])
    assert len(folder.load().signers("acme", "b.example")) == len(both.dkim) == 2
    assert folder.load().warnings == ()


def test_a_domain_is_added_once(folder: Folder, domain: Domain) -> None:
    with pytest.raises(Conflict, match="is a domain of this tenant already"):
        tenants.add_domain(folder.path, "acme", "bücher.EXAMPLE", algorithms=ED)
    assert [path.name for path in domain.dkim[0].private_key.parent.iterdir()] == [domain.dkim[0].private_key.name]


@pytest.mark.parametrize("name", ["../../etc/x", "a b", "", "x" * 300, "[127.0.0.1]"])
def test_what_is_no_domain_makes_no_file(folder: Folder, name: str) -> None:
    folder.tenant("acme")
    with pytest.raises(ConfigErrors, match=r"acme\.toml: domains: "):
        tenants.add_domain(folder.path, "acme", name, algorithms=ED)
    assert list((folder.state / "keys" / "dkim").iterdir()) == []


def test_a_rotation_always_leaves_a_key_that_signs(folder: Folder, domain: Domain) -> None:
    old = domain.dkim[0]
    published = tenants.rotate_dkim(folder.path, "acme", domain.name, "publish")
    assert states(published) == ["active", "published"]
    assert [signer.selector for signer in folder.load().signers("acme", domain.name)] == [old.selector]
    with pytest.raises(Conflict, match="has a published key already"):
        tenants.rotate_dkim(folder.path, "acme", domain.name, "publish")
    with pytest.raises(Conflict, match="has no retired key"):
        tenants.rotate_dkim(folder.path, "acme", domain.name, "retire")

    active = tenants.rotate_dkim(folder.path, "acme", domain.name, "activate")
    assert states(active) == ["retired", "active"]
    assert [signer.selector for signer in folder.load().signers("acme", domain.name)] == [active.dkim[1].selector]
    with pytest.raises(Conflict, match="has no published key"):
        tenants.rotate_dkim(folder.path, "acme", domain.name, "activate")
    assert old.private_key.exists()

    rest = tenants.rotate_dkim(folder.path, "acme", domain.name, "retire")
    assert rest.dkim == active.dkim[1:]
    assert not old.private_key.exists()
    assert (rest.id, rest.uuid) == (domain.id, domain.uuid)


def test_a_rotation_is_of_each_algorithm_apart(folder: Folder) -> None:
    folder.tenant("acme")
    tenants.add_domain(folder.path, "acme", "a.example", algorithms=[*ED, "rsa-sha256"])
    tenants.rotate_dkim(folder.path, "acme", "a.example", "publish")
    after = tenants.rotate_dkim(folder.path, "acme", "a.example", "activate")
    assert [(key.algorithm, key.state) for key in after.dkim] == [
        ("ed25519-sha256", "retired"),
        ("rsa-sha256", "retired"),
        ("ed25519-sha256", "active"),
        ("rsa-sha256", "active"),
    ]


def test_a_removed_domain_takes_its_keys_and_track_domain_along(folder: Folder, domain: Domain) -> None:
    tenants.add_track_domain(folder.path, "acme", "track", domain.name)
    tenants.remove_domain(folder.path, "acme", domain.name)
    tenant = folder.load().tenants["acme"]
    assert (tenant.domains, tenant.track_domains) == ((), ())
    assert list((folder.state / "keys" / "dkim").iterdir()) == []
    with pytest.raises(NotFound):
        tenants.remove_domain(folder.path, "acme", domain.name)


def test_a_key_kept_elsewhere_is_not_removed(folder: Folder) -> None:
    kept = folder.write("own.pem", folder.dkim("x").read_bytes())
    folder.tenant(
        "acme",
        "[[domains]]\nname = 'a.example'\n[[domains.dkim]]\nselector = 's'\nalgorithm = 'ed25519-sha256'\n"
        f"private_key = '{kept}'\n",
    )
    tenants.remove_domain(folder.path, "acme", "a.example")
    assert kept.exists()


def test_a_domain_becomes_trusted_and_keeps_its_ids(folder: Folder) -> None:
    folder.tenant("acme", "[[domains]]\nname = 'a.example'\n")
    before = folder.load().tenants["acme"].domains[0]
    after = tenants.change_domain(folder.path, "acme", "a.example", {"trusted": True})
    assert (after.trusted, after.id, after.uuid) == (True, before.id, before.uuid)


def test_a_track_domain_is_added_changed_and_removed(folder: Folder, domain: Domain) -> None:
    made = tenants.add_track_domain(folder.path, "acme", "track", domain.name, ssl=None, clicks=False)
    assert (made.ssl, made.clicks, made.full_name) == (True, False, f"track.{domain.name}")
    after = tenants.change_track_domain(folder.path, "acme", made.id, {"excluded": ["x.example"], "clicks": None})
    assert (after.id, after.clicks, after.excluded) == (made.id, True, ("x.example",))
    with pytest.raises(Exists, match="has a track domain already"):
        tenants.add_track_domain(folder.path, "acme", "other", domain.name)
    tenants.remove_track_domain(folder.path, "acme", made.id)
    assert folder.load().tenants["acme"].track_domains == ()
    with pytest.raises(NotFound, match=f"there is no track domain {made.id}"):
        tenants.remove_track_domain(folder.path, "acme", made.id)


def test_a_domain_to_which_a_credential_is_tied_is_not_removed(folder: Folder, domain: Domain) -> None:
    tenants.add_credential(folder.path, "acme", "narrow", domains=(domain.name,))
    with pytest.raises(Conflict, match=f"narrow is restricted to {domain.name}"):
        tenants.remove_domain(folder.path, "acme", domain.name)
    assert domain.dkim[0].private_key.exists()
    tenants.remove_credential(folder.path, "acme", "narrow")
    tenants.remove_domain(folder.path, "acme", domain.name)
    assert not domain.dkim[0].private_key.exists()


def test_a_sender_domain_leaves_room_for_the_name_of_its_key(folder: Folder) -> None:
    longest = ".".join(["a" * 57] * 4)
    assert len(longest) == MAX_DOMAIN
    assert sender_domain(longest.upper()) == longest
    with pytest.raises(AddressError, match="its DKIM record could have no name"):
        sender_domain(f"a{longest}")
    folder.tenant("acme")
    made = tenants.add_domain(folder.path, "acme", longest, algorithms=ED)
    assert len(f"{made.dkim[0].selector}._domainkey.{made.name}") == 253
