"""Look-ups: whose secret, which user name, whose domain, which signers."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers.configuration import Folder

from arkrelay.config.secrets import create_host_key
from arkrelay.config.snapshot import Snapshot


@pytest.fixture
def snapshot(folder: Folder) -> Snapshot:
    sealed = create_host_key(folder.state).seal("sealed-secret")
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'ark_live_ops'\n")
    folder.tenant(
        "acme",
        f"""
        [[credentials]]
        name = "production"
        secret = "acme-one"
        [[credentials]]
        name = "staging"
        type = "api"
        secret = "{sealed}"
        username = "Stage User"
        [[domains]]
        name = "a.example"
        """,
    )
    folder.tenant(
        "beta_two", "[[credentials]]\nname = 'production'\nsecret = 'beta-one'\n[[domains]]\nname='b.example'"
    )
    folder.tenant("gamma", f"[[credentials]]\nname = 'hashed'\nsecret = 'sha256:{'0' * 64}'\n")
    return folder.load()


def named(snapshot: Snapshot, username: str) -> list[str]:
    return [f"{tenant.id}/{credential.name}" for tenant, credential in snapshot.credentials_named(username)]


@pytest.mark.parametrize(
    ("secret", "owner"),
    [
        ("acme-one", "acme/production"),
        ("sealed-secret", "acme/staging"),
        ("beta-one", "beta_two/production"),
        ("ark_live_ops", None),
        ("", None),
        ("acme-one ", None),
        ("\ud800", None),
    ],
)
def test_a_secret_finds_its_credential(snapshot: Snapshot, secret: str, owner: str | None) -> None:
    found = snapshot.find_credential(secret)
    assert (f"{found[0].id}/{found[1].name}" if found else None) == owner


def test_an_organisation_key_is_found_apart(snapshot: Snapshot) -> None:
    key = snapshot.find_key("ark_live_ops")
    assert key is not None
    assert key.name == "ops"
    assert snapshot.find_key("acme-one") is None


@pytest.mark.parametrize(
    ("username", "credentials"),
    [
        ("acme/production", ["acme/production"]),
        ("Acme/production", ["acme/production"]),
        ("acme_production", ["acme/production"]),
        ("beta_two/production", ["beta_two/production"]),
        ("beta_two_production", ["beta_two/production"]),
        ("acme/acme-one", ["acme/production"]),
        ("acme-one", ["acme/production"]),
        ("sealed-secret", ["acme/staging"]),
        ("Stage User", ["acme/staging"]),
        ("stage user", []),
        ("beta_two/acme-one", []),
        ("acme", ["acme/production", "acme/staging"]),
        ("myorg/production", ["acme/production", "beta_two/production"]),
        ("myorg/acme", ["acme/production", "acme/staging"]),
        ("myorg/acme-one", ["acme/production"]),
        ("acme/nothing", []),
        ("nobody", []),
        ("", []),
        ("/", []),
        ("_" * 10_000, []),
    ],
)
def test_a_user_name_finds_the_credentials_it_may_mean(
    snapshot: Snapshot, username: str, credentials: list[str]
) -> None:
    assert named(snapshot, username) == credentials


@pytest.mark.parametrize(
    ("username", "matches"),
    [
        ("acme/production", True),
        ("acme/acme-one", True),
        ("ACME/anything", True),
        ("acme", True),
        ("acme-one", True),
        ("myorg/production", True),
        ("myorg/acme", True),
        ("apikey", True),
        ("", True),
        ("\ud800", True),
        ("beta_two/production", False),
        ("gamma", False),
        ("myorg/gamma", False),
        ("Stage User", False),
    ],
)
def test_a_user_name_matches_unless_it_names_somebody_else(snapshot: Snapshot, username: str, matches: bool) -> None:
    tenant = snapshot.tenants["acme"]
    assert snapshot.username_matches(username, tenant, tenant.credentials[0]) is matches


def test_an_explicit_user_name_is_its_owners(snapshot: Snapshot) -> None:
    tenant = snapshot.tenants["acme"]
    assert snapshot.username_matches("Stage User", tenant, tenant.credentials[1])


def test_reveal_gives_the_plain_value_where_there_is_one(snapshot: Snapshot) -> None:
    secrets = [item.secret for tenant in snapshot.tenants.values() for item in tenant.credentials]
    assert [snapshot.reveal(secret) for secret in secrets] == ["acme-one", "sealed-secret", "beta-one", None]
    assert snapshot.reveal("file:/nowhere") is None
    assert snapshot.reveal("sealed:v9:x") is None


def test_a_domain_has_one_owner(snapshot: Snapshot) -> None:
    owner = snapshot.owner_of("b.example")
    assert owner is not None
    assert (owner[0].id, owner[1].name) == ("beta_two", "b.example")
    assert snapshot.owner_of("sub.b.example") is None


def test_only_active_keys_sign(folder: Folder) -> None:
    text = "[[domains]]\nname = 'a.example'\n"
    for number, state in enumerate(("active", "published", "active", "retired")):
        folder.dkim(f"k{number}", number=number)
        text += f"[[domains.dkim]]\nselector = 'k{number}'\nprivate_key = 'dkim/k{number}.pem'\nstate = '{state}'\n"
        text += "algorithm = 'ed25519-sha256'\n"
    folder.tenant("acme", text)
    signers = folder.load().signers("acme", "a.example")
    assert [(signer.domain, signer.selector) for signer in signers] == [("a.example", "k0"), ("a.example", "k2")]
    assert folder.load().signers("beta", "a.example") == ()


def test_a_short_rsa_key_is_a_warning(folder: Folder) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.write("state/keys/dkim/k.pem", pem)
    folder.tenant(
        "acme", "[[domains]]\nname = 'a.example'\n[[domains.dkim]]\nselector = 'k'\nprivate_key = 'dkim/k.pem'\n"
    )
    assert folder.load().warnings == ("tenant acme: domain a.example: DKIM key k has 1024 bits; RFC 8301 wants 2048",)


def test_ids_are_derived_stably_and_never_0(folder: Folder) -> None:
    text = """
    [[credentials]]
    name = "one"
    secret = "{0}-x"
    [[credentials]]
    name = "two"
    secret = "{0}-y"
    id = 12
    [[domains]]
    name = "{0}.example"
    [[webhooks]]
    name = "hook"
    url = "https://h.example/"
    [[webhooks]]
    name = "hook"
    url = "https://h.example/2"
    [[track_domains]]
    name = "t"
    domain = "{0}.example"
    """
    folder.tenant("acme", text.format("acme"))
    before = folder.load().tenants["acme"]
    folder.tenant("aaaa", text.format("aaaa"))
    folder.write("platform.toml", "[[webhooks]]\nname = 'w'\nurl = 'https://h.example/'\n")
    after = folder.load()
    assert after.tenants["acme"] == before
    assert [item.id for item in before.credentials][1] == 12
    numbers = [item.id for item in before.credentials] + [item.id for item in before.domains]
    assert all(0 < number < 2**31 for number in numbers)
    texts = [item.id for item in before.webhooks] + [item.id for item in before.track_domains]
    assert all(text.isdecimal() for text in texts)
    assert len({item.id for item in before.webhooks} | {item.uuid for item in before.webhooks}) == 4
    assert before.domains[0].uuid != after.tenants["aaaa"].domains[0].uuid
    assert after.platform.webhooks[0].id.startswith("pwh_")


def test_the_secret_of_return_paths_outlives_a_restart(folder: Folder) -> None:
    first = folder.load().return_path_secret()
    assert len(first) == 32
    assert folder.load().return_path_secret() == first
