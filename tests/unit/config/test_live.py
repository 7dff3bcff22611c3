"""The configuration in force: swapped whole or not at all; key files followed."""

import os
from pathlib import Path

import pytest
from peers.configuration import Folder

from arkrelay.config import tenants
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.live import Live
from arkrelay.config.secrets import create_host_key

DOMAIN = """
[[domains]]
name = "a.example"
[[domains.dkim]]
selector = "k"
private_key = "dkim/k.pem"
algorithm = "ed25519-sha256"
"""
TLS = "[tls]\ncertificate = 'cert.pem'\nprivate_key = 'key.pem'\n"


def renew(path: Path, content: bytes) -> None:
    """Replace a file as certbot and arkrelay do: another inode, so no clock is asked."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.rename(path)


def test_a_reload_says_what_it_changed(folder: Folder) -> None:
    folder.tenant("acme")
    live = Live(folder.path)
    before = live.snapshot
    assert not live.reload()
    tenants.add_credential(folder.path, "acme", "production")
    changes = live.reload()
    assert changes.lines == ["tenant acme: credential production: added"]
    assert bool(changes)
    assert live.snapshot is not before
    assert before.tenants["acme"].credentials == ()


def test_a_broken_reload_leaves_the_last_good_configuration(folder: Folder) -> None:
    folder.tenant("acme")
    live = Live(folder.path)
    before = live.snapshot
    folder.tenant("beta", "broken")
    for _ in range(3):
        with pytest.raises(ConfigErrors, match=r"beta\.toml: is not TOML"):
            live.reload()
        assert live.snapshot is before
        assert [Path(problem.file).name for problem in live.problems] == ["beta.toml"]
    folder.tenant("beta")
    assert live.reload().lines == ["tenant beta: added"]
    assert live.problems == ()


def test_what_differs_is_told_by_effect(folder: Folder) -> None:
    folder.main(
        "[[route]]\ndomain = '*'\nhost = 'a:25'\nusername = 'u'\nsecret = 'one'\n[delivery]\nlifetime = '2d'\n"
    )
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'x'\n")
    folder.dkim("k")
    folder.dkim("l", number=1)
    folder.tenant("acme", "[limits]\nhourly = 5\n[[credentials]]\nname = 'a'\nsecret = 'secret-a'\n" + DOMAIN)
    folder.tenant("beta")
    live = Live(folder.path)
    key = create_host_key(folder.state)
    folder.main(
        """
        [smtp]
        max_message = "20MB"
        auth_mechanisms = ["PLAIN"]
        [delivery]
        lifetime = "1d"
        [delivery.timeouts]
        connect = "5s"
        [log]
        level = "debug"
        [[listen]]
        service = "http"
        address = "127.0.0.1:8025"
        serve = ["api"]
        [[route]]
        domain = "*"
        host = "a:25"
        username = "u"
        secret = "two"
        """
    )
    folder.write("platform.toml", "[[webhooks]]\nname = 'w'\nurl = 'https://h.example/'\nid = 'pwh_1'\n")
    more = f"[[credentials]]\nname = 'b'\nsecret = 'x'\n{DOMAIN}state = 'retired'\n"
    more += "[[domains.dkim]]\nselector = 'l'\nprivate_key = 'dkim/l.pem'\nalgorithm = 'ed25519-sha256'\n"
    folder.tenant(
        "acme",
        f"status = 'suspended'\n[[credentials]]\nname = 'a'\nsecret = '{key.seal('secret-a')}'\nhold = true\n{more}",
    )
    (folder.root / "tenants" / "beta.toml").unlink()
    folder.tenant("gamma")
    changes = live.reload()
    assert changes.lines == [
        "arkrelay.toml: smtp.max_message: 14MB → 20MB",
        "arkrelay.toml: smtp.auth_mechanisms: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256 → PLAIN",
        "arkrelay.toml: delivery.lifetime: 2d → 1d",
        "arkrelay.toml: delivery.timeouts.connect: 30s → 5s",
        "arkrelay.toml: log.level: info → debug (needs a restart)",
        "listener 127.0.0.1:2525: removed (needs a restart)",
        "listener 127.0.0.1:8025: serve: api, dashboard, metrics, public → api (needs a restart)",
        "route * to a:25: secret changed",
        "organisation key ops: removed",
        "platform webhook w (pwh_1): added",
        "tenant acme: status: active → suspended",
        "tenant acme: limits.hourly: 5 → 0",
        "tenant acme: credential a: hold: false → true",
        "tenant acme: credential b: added",
        "tenant acme: domain a.example: DKIM key k: state: active → retired",
        "tenant acme: domain a.example: DKIM key l: added",
        "tenant beta: removed",
        "tenant gamma: added",
    ]
    assert changes.needs_restart
    folder.tenant("acme", f"status = 'suspended'\n[[credentials]]\nname = 'a'\nsecret = 'other'\nhold = true\n{more}")
    assert live.reload().lines == ["tenant acme: credential a: secret changed"]


def test_a_secret_never_shows_in_what_differs(folder: Folder) -> None:
    route = "[[route]]\ndomain = '*'\nhost = 'a:25'\nusername = 'u'\nsecret = '{}'\n"
    folder.main(route.format("swordfish"))
    folder.tenant("acme", "[[credentials]]\nname = 'a'\nsecret = 'marlinspike'\n")
    live = Live(folder.path)
    folder.main(route.format("correct-horse"))
    folder.tenant("acme", "[[credentials]]\nname = 'a'\nsecret = 'battery'\n")
    text = repr(live.reload())
    assert "secret changed" in text
    assert not any(secret in text for secret in ("swordfish", "marlinspike", "correct-horse", "battery"))


def test_a_route_by_cause_a_source_and_a_provider_are_changes_of_their_own(folder: Folder) -> None:
    folder.main("[[route]]\ndomain = '*'\nhost = 'a:25'\nafter = 3\n")
    live = Live(folder.path)
    folder.main(
        "[[route]]\ndomain = '*'\nhost = 'a:25'\nafter = 3\n"
        "[[route]]\ndomain = '*'\nhost = 'a:25'\nwhen = 'warm-up'\n"
        "[[source]]\naddress = '192.0.2.1'\nwarmup = true\n[[provider]]\nname = 'x'\nmx = ['.x.test']\n"
    )
    assert live.reload().lines == [
        "source 192.0.2.1: added",
        "provider x: added",
        "route * to a:25 when warm-up: added",
    ]


def test_other_order_of_routes_is_a_change(folder: Folder) -> None:
    routes = ["[[route]]\ndomain = 'a.example'\nhost = 'a:25'\n", "[[route]]\ndomain = '*'\nhost = 'b:25'\n"]
    folder.main("".join(routes))
    live = Live(folder.path)
    folder.main("".join(reversed(routes)))
    assert live.reload().lines == ["routes: other order"]


def test_a_replaced_dkim_key_signs_after_the_next_look(folder: Folder) -> None:
    key = folder.dkim("k")
    folder.tenant("acme", DOMAIN)
    live = Live(folder.path)
    old = live.snapshot.signers("acme", "a.example")[0].key
    assert not live.stale()
    assert not live.poll()
    renew(key, folder.dkim("other", number=1).read_bytes())
    assert live.stale()
    assert live.poll()
    assert live.snapshot.signers("acme", "a.example")[0].key is not old
    assert not live.poll()
    renew(key, folder.dkim("other", number=2).read_bytes())
    assert live.refresh_keys().lines == ["tenant acme: domain a.example: DKIM key k: re-read"]


@pytest.mark.parametrize("how", ["gone", "rubbish", "readable"])
def test_a_key_file_that_breaks_leaves_the_last_good_key(folder: Folder, how: str) -> None:
    key = folder.dkim("k")
    folder.tenant("acme", DOMAIN)
    live = Live(folder.path)
    old = live.snapshot.signers("acme", "a.example")
    match how:
        case "gone":
            key.unlink()
        case "rubbish":
            renew(key, b"rubbish")
        case _:
            renew(key, folder.dkim("other", number=1).read_bytes())
            key.chmod(0o644)
    with pytest.raises(ConfigErrors, match=r"dkim/k\.pem: "):
        live.poll()
    assert live.snapshot.signers("acme", "a.example") == old
    assert not live.poll()  # said once
    assert [Path(problem.file).name for problem in live.problems] == ["k.pem"]
    renew(key, folder.dkim("other", number=1).read_bytes())
    assert live.poll()
    assert live.problems == ()
    assert live.snapshot.signers("acme", "a.example") != old


def test_configuration_files_wait_for_reload(folder: Folder) -> None:
    folder.dkim("k")
    folder.tenant("acme", DOMAIN)
    live = Live(folder.path)
    folder.tenant("beta")
    folder.write("state/keys/dkim/k.pem", folder.dkim("other", number=1).read_bytes() + b"\n")
    assert live.poll()
    assert list(live.snapshot.tenants) == ["acme"]


def test_a_renewed_certificate_takes_its_warning_along_and_no_other(folder: Folder) -> None:
    folder.main(TLS)
    folder.certificate(days=5)
    folder.tenant("acme", "[unsubscribe]\nenabled = true\n")
    live = Live(folder.path)
    assert [" expires on " in warning for warning in live.snapshot.warnings] == [False, True]
    folder.certificate(days=300)
    assert live.poll()
    (warning,) = live.snapshot.warnings
    assert "unsubscribe needs" in warning


def test_a_renewed_certificate_is_seen_when_it_is_whole(folder: Folder) -> None:
    folder.main(TLS)
    folder.certificate(0)
    live = Live(folder.path)
    folder.certificate(1, days=300)
    certificate, key = (folder.root / name for name in ("cert.pem", "key.pem"))
    new = certificate.read_bytes(), key.read_bytes()
    folder.certificate(0)
    live.reload()

    renew(certificate, new[0])  # half of a renewal
    changes = live.refresh_keys()
    assert [problem.key for problem in changes.problems] == ["tls"]
    assert not changes.certificate
    assert not live.stale()
    renew(key, new[1])
    changes = live.refresh_keys()
    assert changes.problems == ()
    assert changes.certificate
    assert changes.lines == ["arkrelay.toml: tls: certificate re-read"]


def test_an_unchanged_key_is_not_read_again(folder: Folder) -> None:
    key = folder.dkim("k")
    folder.tenant("acme", DOMAIN)
    live = Live(folder.path)
    signer = live.snapshot.signers("acme", "a.example")[0]
    folder.tenant("acme", "status = 'suspended'\n" + DOMAIN)
    live.reload()
    assert live.snapshot.signers("acme", "a.example")[0] is signer
    os.utime(key, (1, 1))
    assert live.poll()
    assert live.snapshot.signers("acme", "a.example")[0] is not signer


def test_a_changed_demand_of_tls_is_named(folder: Folder) -> None:
    folder.main("[[tls_policy]]\ndomain = 'a.test'\nrequire = 'verified'\n")
    live = Live(folder.path)
    folder.main(
        "[dns]\ntrust_ad = true\n[[tls_policy]]\ndomain = 'A.test'\nrequire = 'encrypted'\n"
        "[[tls_policy]]\ndomain = '*'\nrequire = 'encrypted'\n"
    )
    assert live.reload().lines == [
        "arkrelay.toml: dns.trust_ad: false → true (needs a restart)",
        "tls_policy a.test: require: verified → encrypted",
        "tls_policy *: added",
    ]
