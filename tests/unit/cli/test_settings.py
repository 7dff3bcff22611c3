"""tenant, credential, domain, key, webhook, track-domain: real files, with and without a daemon."""

import asyncio
import json
import stat
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Self

import pytest
from peers.dns import DnsServer
from unit.cli.support import Double, Program

from arkrelay.config.load import load

RELOADED: dict[str, Any] = {"POST /v1/control/reload": {"changes": [], "restart": []}}


@pytest.fixture
def acme(program: Program) -> Program:
    """A configuration with one tenant."""
    assert program("tenant", "add", "acme", "--name", "Acme Inc").code == 0
    return program


def shown(program: Program, *words: str) -> Any:
    ran = program(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_a_tenant_from_add_to_remove(acme: Program) -> None:
    assert shown(acme, "tenant", "show", "acme")["name"] == "Acme Inc"
    assert acme("tenant", "set", "acme", "--hourly", "100", "--status", "suspended").code == 0
    assert acme("tenant", "set", "acme", "--hard-cap", "9", "--new-recipients", "5").code == 0
    one = shown(acme, "tenant", "list")["data"][0]
    assert (one["status"], one["limits"]) == (
        "suspended",
        {"hourly": 100, "hardCapMonthly": 9, "newRecipientsDaily": 5},
    )
    assert acme("tenant", "list", "--status", "active").err == "no tenants: arkrelay tenant add ID\n"
    assert "Acme Inc" in acme("tenant", "list").out
    assert acme("tenant", "remove", "--yes", "acme").code == 0
    assert shown(acme, "tenant", "list") == {"data": []}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("tenant", "add", "acme"), 1, "already"),
        (("tenant", "add", "Acme!"), 1, "expected"),
        (("tenant", "set", "acme"), 2, "Nothing to change"),
        (("tenant", "set", "nobody", "--name", "x"), 1, 'no tenant "nobody"'),
        (("tenant", "show", "nobody"), 1, "there is: acme"),
        (("tenant", "set", "acme", "--name", "x" * 200), 1, "acme.toml: name: "),
        (("credential", "set", "x"), 2, "Nothing to change"),
        (("credential", "show", "x"), 1, "it has: none"),
        (("credential", "remove", "x"), 1, "no credential"),
        (("credential", "add", "a b"), 1, "credentials[0].name"),
        (("domain", "add", "x_y.test"), 1, "x_y.test: "),
        (("domain", "show", "nobody.test"), 1, "no sender domain nobody.test"),
        (("key", "remove", "x"), 1, "no organisation key"),
        (("webhook", "add", "http://x.test/"), 1, "allow_http"),
        (("webhook", "add", "--platform", "--tenant", "acme", "https://x.test/"), 2, "not both"),
        (("track-domain", "remove", "x"), 1, "no track domain x"),
    ],
)
def test_refusals_name_the_reason_and_write_nothing(
    acme: Program, words: tuple[str, ...], code: int, text: str
) -> None:
    before = (acme.home / "tenants" / "acme.toml").read_bytes()
    ran = acme(*words)
    assert ran.code == code
    assert text in ran.err
    assert "Traceback" not in ran.err
    assert (acme.home / "tenants" / "acme.toml").read_bytes() == before


def test_removal_asks_first(acme: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert acme("tenant", "remove", "acme").code == 1
    assert (acme.home / "tenants" / "acme.toml").exists()


def test_a_key_is_shown_once_kept_sealed_and_revealed_on_request(acme: Program) -> None:
    made = shown(acme, "credential", "add", "production")
    assert made["smtpUsername"] == "acme/production"
    text = (acme.home / "tenants" / "acme.toml").read_text()
    assert made["key"] not in text
    assert 'secret = "sealed:' in text
    assert "key" not in shown(acme, "credential", "show", "production")
    assert "key" not in shown(acme, "credential", "list")["data"][0]
    assert shown(acme, "credential", "show", "--reveal", "production")["key"] == made["key"]
    assert made["key"] in acme("credential", "show", "--reveal", "production").out
    assert load(acme.config).find_credential(made["key"]) is not None


def test_a_digest_cannot_be_revealed(acme: Program) -> None:
    path = acme.home / "tenants" / "acme.toml"
    path.write_text(path.read_text() + f'[[credentials]]\nname = "old"\nsecret = "sha256:{"0" * 64}"\n')
    ran = acme("credential", "show", "--reveal", "old")
    assert ran.code == 1
    assert "--renew" in ran.err


def test_a_credential_is_changed_and_renewed(acme: Program) -> None:
    acme("domain", "add", "example.com")
    first = shown(acme, "credential", "add", "app", "--type", "api", "--domain", "EXAMPLE.com")
    assert first["key"].startswith("ark_live_")
    assert first["domains"] == ["example.com"]
    again = shown(acme, "credential", "set", "app", "--hold", "--rename", "web", "--domain", "", "--renew")
    assert (again["name"], again["hold"], again["domains"]) == ("web", True, [])
    assert again["key"] != first["key"]
    assert again["id"] == first["id"]
    assert shown(acme, "credential", "set", "web", "--no-hold")["hold"] is False
    assert acme("credential", "remove", "web").code == 0
    assert acme("credential", "list").err == "no credentials: arkrelay credential add NAME\n"


def test_organisation_keys(program: Program) -> None:
    live, test = shown(program, "key", "add", "ops"), shown(program, "key", "add", "ci", "--test")
    assert live["key"].startswith("ark_live_")
    assert test["key"].startswith("ark_test_")
    assert [one["name"] for one in shown(program, "key", "list")["data"]] == ["ops", "ci"]
    assert "ark_" not in program("key", "list").out
    assert program("key", "remove", "ops").code == 0
    assert load(program.config).find_key(live["key"]) is None
    assert load(program.config).find_key(test["key"]) is not None


def test_webhooks_of_a_tenant_and_of_the_platform(acme: Program) -> None:
    mine = shown(acme, "webhook", "add", "https://app.example.com/hooks", "--event", "MessageSent")
    all_ = shown(acme, "webhook", "add", "--platform", "https://central.example.com/", "--name", "Central")
    assert (mine["name"], mine["events"], mine["tenantId"]) == ("app.example.com", ["MessageSent"], "acme")
    assert (all_["id"][:4], all_["allEvents"], all_["tenantId"]) == ("pwh_", True, None)
    assert {one["id"] for one in shown(acme, "webhook", "list")["webhooks"]} == {mine["id"], all_["id"]}
    assert [one["id"] for one in shown(acme, "webhook", "list", "--platform")["webhooks"]] == [all_["id"]]
    assert acme("webhook", "remove", "--platform", all_["id"]).code == 0
    assert acme("webhook", "remove", mine["uuid"]).code == 0
    assert shown(acme, "webhook", "list") == {"webhooks": []}


def test_track_domains(acme: Program) -> None:
    acme("domain", "add", "example.com")
    made = shown(acme, "track-domain", "add", "example.com", "--no-clicks", "--exclude", "bank.example")
    assert (made["fullName"], made["trackClicks"], made["trackOpens"]) == ("track.example.com", False, True)
    assert shown(acme, "track-domain", "list") == {"trackDomains": [made]}
    acme("domain", "add", "example.org")
    ran = acme("track-domain", "add", "example.org", "--name", "click")
    assert "publish click.example.org. CNAME track.relay.example.com." in ran.out
    assert acme("track-domain", "remove", "Track.example.com.").code == 0
    assert [one["name"] for one in shown(acme, "track-domain", "list")["trackDomains"]] == ["click"]


def test_a_domain_gets_keys_with_the_right_mode(acme: Program) -> None:
    made = shown(acme, "domain", "add", "Exämple.com", "--algorithm", "rsa-sha256", "--algorithm", "ed25519-sha256")
    assert made["name"] == "xn--exmple-cua.com"
    assert [key["algorithm"] for key in made["dkim"]] == ["rsa-sha256", "ed25519-sha256"]
    files = list((acme.home / "state" / "keys" / "dkim").iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert made["dnsRecords"]["dkim"]["value"].startswith("v=DKIM1; k=rsa")
    assert len(made["dnsRecords"]["dkimKeys"]) == 2
    assert acme("domain", "remove", "--yes", "exämple.com").code == 0
    assert not list((acme.home / "state" / "keys" / "dkim").iterdir())


def test_dns_records_in_three_forms(acme: Program) -> None:
    ran = acme("domain", "add", "mail.example.co.uk")
    assert "arkrelay domain verify mail.example.co.uk" in ran.err
    table = acme("domain", "dns", "mail.example.co.uk").out
    assert "include:spf.relay.example.com" in table
    assert "psrp.mail" in table
    zone = acme("domain", "dns", "--format", "bind", "mail.example.co.uk").out
    assert zone.startswith("$ORIGIN example.co.uk.\n")
    assert "psrp.mail 3600 IN CNAME rp.relay.example.com." in zone
    assert all(len(part) <= 255 for line in zone.splitlines() for part in line.split('"')[1::2])
    records = shown(acme, "domain", "dns", "mail.example.co.uk")
    assert set(records) == {"zone", "spf", "dkim", "returnPath", "dmarc"}
    assert records["spf"] == {
        "type": "TXT",
        "name": "mail",
        "fullName": "mail.example.co.uk",
        "value": "v=spf1 a mx include:spf.relay.example.com ~all",
        "status": None,
    }
    assert json.loads(acme("domain", "dns", "--format", "json", "mail.example.co.uk").out) == records


def test_domain_list_and_show(acme: Program) -> None:
    assert acme("domain", "list").err == "no domains: arkrelay domain add NAME\n"
    made = shown(acme, "domain", "add", "example.com", "--trusted")
    assert shown(acme, "domain", "list")["domains"][0]["trusted"] is True
    assert made["dkim"][0]["selector"] in acme("domain", "list").out
    assert "psrp" in acme("domain", "show", "example.com").out
    assert shown(acme, "domain", "show", "example.com")["tenant_id"] == "acme"


def test_an_edit_asks_the_daemon_to_reload(program: Program, daemon: Double) -> None:
    daemon.answers = dict(RELOADED)
    ran = program("tenant", "add", "acme")
    assert ran.code == 0
    assert ran.err == "next: arkrelay domain add --tenant acme DOMAIN\n"
    assert [(asked.method, asked.path) for asked in daemon.asked] == [("POST", "/v1/control/reload")]


def test_an_edit_that_the_daemon_does_not_take_says_so(program: Program, daemon: Double) -> None:
    problem = {"file": "/e/arkrelay.toml", "key": "listen", "reason": "broken by hand"}
    answer = {"error": {"message": "the configuration cannot be used"}, "problems": [problem]}
    daemon.answers = {"POST /v1/control/reload": (422, answer)}
    ran = program("tenant", "add", "acme")
    assert ran.code == 1
    assert "/e/arkrelay.toml: listen: broken by hand" in ran.err
    assert "saved, but not in force" in ran.err
    assert (program.home / "tenants" / "acme.toml").exists()


def test_which_tenant_is_meant(acme: Program) -> None:
    assert shown(acme, "credential", "add", "one")["tenantId"] == "acme"
    acme("tenant", "add", "beta")
    ran = acme("credential", "add", "two")
    assert ran.code == 2
    assert "there are: acme, beta" in ran.err
    acme.config.write_text(acme.config.read_text() + 'default_tenant = "beta"\n')
    assert shown(acme, "credential", "add", "two")["tenantId"] == "beta"
    assert shown(acme, "credential", "add", "three", "--tenant", "acme")["tenantId"] == "acme"


def test_a_file_managed_by_hand_is_left_alone(acme: Program) -> None:
    path = acme.home / "tenants" / "acme.toml"
    path.write_text(path.read_text() + 'managed = "file"\n')
    before = path.read_text()
    ran = acme("domain", "add", "example.com")
    assert ran.code == 1
    assert "by hand" in ran.err
    assert path.read_text() == before


class Names:
    """A real DNS server in a thread of its own, since a command has the main thread's loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = DnsServer()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self.server.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.server.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def _do(self, coro: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coro, self.loop).result(10)

    def publish(self, records: dict[str, Any]) -> None:
        """Publish every record of a dnsRecords object."""
        keys = records.get("dkimKeys") or [records["dkim"]]
        for one in (records["spf"], *keys):
            parts = [one["value"][at : at + 255] for at in range(0, len(one["value"]), 255)]
            self.server.set(one["fullName"], "TXT", " ".join(f'"{part}"' for part in parts))
        alias = records["returnPath"]
        self.server.set(alias["fullName"], "CNAME", alias["value"] + ".")


@pytest.fixture
def names(acme: Program) -> Iterator[Names]:
    """DNS for the configuration of ``acme``, which has the domain example.com."""
    with Names() as names:
        nameserver = f'[dns]\nnameservers = ["{names.server.address}"]\n'
        acme.config.write_text(acme.config.read_text() + nameserver)
        assert acme("domain", "add", "example.com").code == 0
        yield names


def test_verify_without_a_daemon_looks_itself(acme: Program, names: Names) -> None:
    ran = acme("domain", "verify", "example.com")
    assert ran.code == 1
    assert "example.com is not verified" in ran.out
    assert "Missing" in ran.out
    names.publish(shown(acme, "domain", "dns", "example.com"))
    ran = acme("domain", "verify", "example.com")
    assert ran.code == 0, ran.out + ran.err
    assert "example.com is verified" in ran.out
    assert shown(acme, "domain", "verify", "example.com")["dnsRecords"]["spf"]["status"] == "OK"


def test_verify_asks_the_daemon_when_it_runs(acme: Program, daemon: Double) -> None:
    daemon.answers = dict(RELOADED)
    records = shown(acme, "domain", "add", "example.com")["dnsRecords"]
    records["spf"]["status"] = "Invalid"
    found = {"verified": False, "dnsRecords": records, "errors": {"spf": "two SPF records"}}
    daemon.answers = {"POST /v1/tenants/acme/domains/example.com/verify": found}
    ran = acme("domain", "verify", "EXAMPLE.com")
    assert ran.code == 1
    assert "two SPF records" in ran.out
    assert json.loads(acme("domain", "verify", "example.com", "--json").out) == found


def test_a_key_is_rotated_only_when_dns_has_it(acme: Program, names: Names) -> None:
    old = shown(acme, "domain", "show", "example.com")["dkim"][0]["selector"]
    ran = acme("domain", "rotate", "example.com")
    assert ran.code == 0, ran.err
    assert "published since" in ran.out
    assert "--continue" in ran.err
    assert acme("domain", "rotate", "example.com").code == 0  # shows how far it is, and does nothing
    assert shown(acme, "domain", "rotate", "example.com")["step"] is None
    for words in (["--continue"], ["--continue", "--now"]):
        ran = acme("domain", "rotate", "example.com", *words)
        assert ran.code == 1
        assert "yet" in ran.err
    names.publish(shown(acme, "domain", "dns", "example.com"))
    done = shown(acme, "domain", "rotate", "example.com", "--continue")
    assert (done["step"], done["next"]["step"]) == ("see", "activate")
    assert done["next"]["dueAt"] > time.time()
    assert shown(acme, "domain", "rotate", "example.com", "--continue")["step"] is None  # the overlap
    assert "seen in DNS" in acme("domain", "show", "example.com").out
    done = shown(acme, "domain", "rotate", "example.com", "--continue", "--now")
    assert done["step"] == "activate"
    assert {key["selector"]: key["state"] for key in done["dkim"]}[old] == "retired"
    assert shown(acme, "domain", "rotate", "example.com", "--continue")["step"] is None
    done = shown(acme, "domain", "rotate", "example.com", "--continue", "--now")
    assert (done["step"], [key["state"] for key in done["dkim"]]) == ("retire", ["active"])
    assert len(list((acme.home / "state" / "keys" / "dkim").iterdir())) == 1
    assert acme("domain", "rotate", "example.com", "--continue").code == 1
    assert acme("domain", "rotate", "example.com", "--now").code == 2


def test_a_rotation_may_be_left_to_the_daemon_and_change_the_algorithm(acme: Program, names: Names) -> None:
    done = shown(acme, "domain", "rotate", "example.com", "--auto", "--algorithm", "ed25519-sha256")
    assert (done["rotation"], done["next"]["step"]) == ("auto", "see")
    assert [key["algorithm"] for key in done["dkim"] if key["state"] == "published"] == ["ed25519-sha256"]
    assert "the daemon does it" in acme("domain", "show", "example.com").out
    assert acme("domain", "rotate", "example.com", "--algorithm", "rsa-sha256").code == 1  # one is under way
    assert shown(acme, "domain", "rotate", "example.com", "--manual")["rotation"] == "manual"


def test_a_rotation_can_be_forced(acme: Program, names: Names) -> None:
    assert acme("domain", "rotate", "--step", "retire", "example.com").code == 1
    assert acme("domain", "rotate", "example.com").code == 0
    assert acme("domain", "rotate", "--force", "example.com").code == 0
