"""Postal's dumps, by the command line: what becomes of its servers, and what is said of the rest."""

import gzip
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers.postal import dump
from unit.cli.support import Double, Program

from arkrelay.cli.records import records_of
from arkrelay.config.load import load
from arkrelay.policy.records import Found, judge

KEY = rsa.generate_private_key(65537, 1024)  # what Postal makes
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()
TABLES: dict[str, list[dict[str, Any]]] = {
    "organizations": [
        {"name": "Acme Inc", "permalink": "acme"},
        {"name": "Beta", "permalink": "beta", "suspended_at": "2026-01-01 00:00:00"},
    ],
    "servers": [
        {"organization_id": 1, "name": "Shop", "permalink": "shop", "mode": "Live", "send_limit": 500,
         "domains_not_to_click_track": "www.shop.test\nshop.test"},
        {"organization_id": 1, "name": "Mail", "permalink": "mail", "mode": "Development"},
        {"organization_id": 2, "name": "Mail", "permalink": "mail", "mode": "Live"},
        {"organization_id": 1, "name": "Gone", "permalink": "gone", "mode": "Live", "deleted_at": "2026-01-01"},
    ],
    "domains": [
        {"name": "shop.test", "owner_type": "Server", "owner_id": 1, "outgoing": 1, "dkim_private_key": PEM,
         "dkim_identifier_string": "XYZABC"},
        {"name": "in.test", "owner_type": "Server", "owner_id": 1, "outgoing": 0},
        {"name": "broken.test", "owner_type": "Server", "owner_id": 1, "dkim_private_key": "x",
         "dkim_identifier_string": "ABC"},
        {"name": "all.test", "owner_type": "Organization", "owner_id": 1},
        {"name": "beta.test", "owner_type": "Organization", "owner_id": 2, "use_for_any": 1},
    ],
    "credentials": [
        {"server_id": 1, "key": "AbCdEf0123456789AbCdEf01", "type": "SMTP", "name": "Web shop's app", "hold": 0},
        {"server_id": 1, "key": "BbCdEf0123456789AbCdEf01", "type": "API", "name": "Web shop?s app", "hold": 1},
        {"server_id": 1, "key": "10.0.0.0/8", "type": "SMTP-IP", "name": "lan"},
    ],
    "webhooks": [
        {"server_id": 1, "name": "hook", "url": "https://shop.test/hook", "all_events": 0, "enabled": 1},
        {"server_id": 1, "name": "clear", "url": "http://shop.test/hook", "all_events": 1, "enabled": 0},
    ],
    "webhook_events": [{"webhook_id": 1, "event": one} for one in ("MessageSent", "MessageBounced", "Odd")],
    "track_domains": [
        {"server_id": 1, "domain_id": 1, "name": "track", "ssl_enabled": 1, "track_clicks": 1, "track_loads": 0,
         "excluded_click_domains": "x.test"},
    ],
    "routes": [{"server_id": 1, "name": "*"}],
    "http_endpoints": [{"server_id": 1}],
    "users": [{"email_address": "ann@shop.test", "password_digest": "$2a$"}],
    "queued_messages": [{"server_id": 1}, {"server_id": 1}],
    "ip_pools": [{"name": "marketing"}],
    "ip_addresses": [{"ip_pool_id": 1, "ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}],
}  # fmt: skip
LATER = time.time() + 86400
LIST: list[dict[str, Any]] = [
    {"type": "recipient", "address": "gone@else.test", "reason": "too many hard fails", "timestamp": 1769860800.5,
     "keep_until": LATER},
    {"type": "recipient", "address": "old@else.test", "reason": "x", "timestamp": 1, "keep_until": 2},
    {"type": "sender", "address": "me@shop.test", "timestamp": 1, "keep_until": LATER},
    {"type": "recipient", "address": "no address", "timestamp": 1, "keep_until": LATER},
]  # fmt: skip


@pytest.fixture
def dumps(tmp_path: Path) -> list[str]:
    """The main database, and that of server 1, packed."""
    (tmp_path / "postal.sql").write_bytes(dump("postal", **TABLES))
    packed = gzip.compress(dump("postal-server-1", messages=[{"subject": "a;b"}], suppressions=LIST))
    (tmp_path / "server.sql.gz").write_bytes(packed)
    return [str(tmp_path / "postal.sql"), str(tmp_path / "server.sql.gz")]


def items(out: str) -> dict[tuple[str | None, str, str], tuple[str, str | None]]:
    return {
        (one["tenant"], one["what"], one["name"]): (one["result"], one["note"]) for one in json.loads(out)["items"]
    }


def files(program: Program) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in program.home.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_nothing_is_written_before_yes(program: Program, dumps: list[str]) -> None:
    before = files(program)
    for words in ((), ("--dry-run",), ("--dry-run", "--yes")):
        ran = program("import", "postal", *words, *dumps)
        assert (ran.code, "nothing was written" in ran.err) == (0, True), ran.err
    assert "shop.test" in ran.out
    assert files(program) == before


def test_every_thing_has_its_line(program: Program, daemon: Double, dumps: list[str]) -> None:
    daemon.answers["POST /v1/control/reload"] = {"restart": []}
    daemon.answers["POST /v1/tenants/shop/suppressions/import"] = {"added": 1, "present": 0}
    ran = program("import", "postal", "--yes", "--json", *dumps)
    assert ran.code == 0, ran.err
    found = items(ran.out)
    assert {key: result for key, (result, _) in found.items()} == {
        ("shop", "tenant", "Shop"): "taken",
        ("shop", "domain", "shop.test"): "taken",
        ("shop", "domain", "in.test"): "not taken",
        ("shop", "domain", "broken.test"): "not taken",
        ("shop", "credential", "Web-shop-s-app"): "taken",
        ("shop", "credential", "Web-shop-s-app-2"): "taken",
        ("shop", "credential", "lan"): "not taken",
        ("shop", "webhook", "hook https://shop.test/hook"): "taken",
        ("shop", "webhook", "clear http://shop.test/hook"): "not taken",
        ("shop", "track domain", "track.shop.test"): "taken",
        ("shop", "routes", "1"): "not taken",
        ("shop", "endpoints", "1"): "not taken",
        ("shop", "queue", "2"): "not taken",
        ("shop", "suppressions", "1"): "not taken",
        ("shop", "suppressions", "3"): "taken",
        ("acme-mail", "tenant", "Mail"): "taken",
        ("acme-mail", "suppressions", ""): "not taken",
        ("beta-mail", "tenant", "Mail"): "taken",
        ("beta-mail", "domain", "beta.test"): "taken",
        ("beta-mail", "domain", "beta.test for any sender"): "not taken",
        ("beta-mail", "suppressions", ""): "not taken",
        (None, "domain", "all.test"): "not taken",
        (None, "users", "1"): "not taken",
        (None, "ip pool", "marketing"): "not taken",
    }
    assert found["shop", "domain", "shop.test"][1] == (
        "its DKIM key has 1024 bits, RFC 8301 wants 2048: arkrelay domain rotate shop.test"
    )
    assert found["shop", "webhook", "hook https://shop.test/hook"][1] == "without Odd"
    assert "1 new, 0 here before, 2 not taken" in str(found["shop", "suppressions", "3"][1])
    (asked,) = [one for one in daemon.asked if one.path.endswith("/import")]
    assert asked.body == {
        "entries": [{"address": "gone@else.test", "reason": "too many hard fails", "createdAt": "1769860800.5"}]
    }
    assert "PRIVATE KEY" not in ran.out + ran.err
    assert "AbCdEf0123456789" not in ran.out + ran.err


def test_a_server_is_a_tenant_that_works_as_it_did(program: Program, dumps: list[str]) -> None:
    ran = program("import", "postal", "--yes", *dumps)
    assert ran.code == 1  # the daemon does not run: the list was not taken, all else was
    snapshot = load(program.config)
    shop = snapshot.tenants["shop"]
    assert (shop.name, shop.status, shop.limits.hourly) == ("Shop", "active", 500)
    found = snapshot.find_credential("AbCdEf0123456789AbCdEf01")
    assert found is not None
    assert (found[0].id, found[1].type, found[1].hold) == ("shop", "smtp", False)
    for username in ("acme/shop", "acme/Web-shop-s-app", "x"):  # Postal's own, and what it takes beside
        assert snapshot.username_matches(username, *found)
    held = snapshot.find_credential("BbCdEf0123456789AbCdEf01")
    assert held is not None
    assert (held[1].type, held[1].hold) == ("api", True)
    assert [(one.name, one.events) for one in shop.webhooks] == [("hook", ("MessageSent", "MessageBounced"))]
    (track,) = shop.track_domains
    assert (track.full_name, track.opens, track.excluded) == (
        "track.shop.test", False, ("x.test", "www.shop.test", "shop.test"),
    )  # fmt: skip
    assert {one: snapshot.tenants[one].status for one in ("acme-mail", "beta-mail")} == {
        "acme-mail": "suspended",
        "beta-mail": "suspended",
    }


def test_what_postal_had_published_goes_on_verifying(program: Program, dumps: list[str]) -> None:
    program("import", "postal", "--yes", *dumps)
    snapshot = load(program.config)
    domain = snapshot.tenants["shop"].domains[0]
    assert [one.selector for one in domain.dkim] == ["postal-XYZABC"]
    records = records_of(snapshot, domain)
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    theirs = f"v=DKIM1; t=s; h=sha256; p={''.join(public.splitlines()[1:-1])};"
    verdicts = judge(records, Found((), {records.dkim[0].full_name: (theirs,)}, ()))
    assert [str(one.status) for one in verdicts.keys.values()] == ["OK"]


def test_a_second_run_takes_nothing(program: Program, daemon: Double, dumps: list[str]) -> None:
    daemon.answers["POST /v1/control/reload"] = {"restart": []}
    daemon.answers["POST /v1/tenants/shop/suppressions/import"] = lambda _query: {"added": 0, "present": 1}
    assert program("import", "postal", "--yes", *dumps).code == 0
    written = files(program)
    ran = program("import", "postal", "--yes", "--json", *dumps)
    assert ran.code == 0, ran.err
    assert {result for result, _ in items(ran.out).values()} == {"is here", "not taken"}
    assert files(program) == written


@pytest.mark.parametrize(
    ("words", "tenants", "domains"),
    [
        (("--server", "shop"), {"shop"}, {"shop.test", "all.test"}),
        (("--server", "beta/mail"), {"beta-mail"}, {"beta.test"}),
        (("--organization", "Acme Inc"), {"shop", "acme-mail"}, {"shop.test"}),
        (("--organization", "acme", "--server", "mail"), {"acme-mail"}, {"all.test"}),
    ],
)
def test_servers_are_chosen_by_name(
    program: Program, dumps: list[str], words: tuple[str, ...], tenants: set[str], domains: set[str]
) -> None:
    program("import", "postal", "--yes", *words, *dumps)
    snapshot = load(program.config)
    assert set(snapshot.tenants) == tenants
    assert {one.name for tenant in snapshot.tenants.values() for one in tenant.domains} == domains


def test_a_dump_comes_by_standard_input_too(
    program: Program, dumps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(Path(dumps[0]).read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    ran = program("import", "postal", "--json", "-")
    assert ran.code == 0, ran.err
    assert ("shop", "tenant", "Shop") in items(ran.out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda content: content[: len(content) // 2], "cut off", id="half"),
        pytest.param(lambda content: gzip.compress(content)[:-20], "damaged or cut off", id="half-a-gzip"),
        pytest.param(lambda _content: dump("wordpress", users=[{}]), "no mail servers", id="another-program"),
        pytest.param(
            lambda _content: b"CREATE TABLE `servers` (`id` int);INSERT INTO `servers` VALUES (1);",
            "no mail servers",
            id="a-table-of-that-name",
        ),
        pytest.param(
            lambda content: content.replace(b"500", b"'x'", 1) + b"INSERT INTO `q` VALUES (`", "cut off", id="no-end"
        ),
        pytest.param(lambda _content: b"\xfd7zXZ\0", "unpack it", id="xz"),
        pytest.param(lambda _content: b"", "no mail servers", id="empty"),
    ],
)
def test_a_dump_that_is_none_is_refused_whole(program: Program, tmp_path: Path, change: Any, says: str) -> None:
    bad = tmp_path / "bad.sql"
    bad.write_bytes(change(dump("postal", **TABLES)))
    before = files(program)
    ran = program("import", "postal", "--yes", str(bad))
    assert (ran.code, says in ran.err) == (1, True), ran.err
    assert files(program) == before


def test_tables_of_other_programs_are_passed_over(program: Program, tmp_path: Path) -> None:
    other = dump("mysql", messages=[{"subject": "x"}]).replace(b"messages", b"servers").replace(b"subject", b"Host")
    (tmp_path / "all.sql").write_bytes(other + dump("postal", **TABLES) + other.replace(b"servers", b"users"))
    ran = program("import", "postal", "--json", str(tmp_path / "all.sql"))
    assert ran.code == 0, ran.err
    found = items(ran.out)
    assert {name for _, what, name in found if what == "tenant"} == {"Shop", "Mail"}
    assert (None, "users", "1") in found


def test_numbers_that_are_none_are_nothing(program: Program, tmp_path: Path) -> None:
    servers: list[dict[str, Any]] = [
        {"organization_id": 1, "name": "Shop", "permalink": "shop", "send_limit": "many", "id": "x"}
    ]
    (tmp_path / "odd.sql").write_bytes(dump("postal", servers=servers))
    ran = program("import", "postal", "--yes", str(tmp_path / "odd.sql"))
    assert ran.code == 0, ran.err
    assert load(program.config).tenants["shop"].limits.hourly == 0


def test_when_a_file_cannot_be_written_nothing_is(program: Program, dumps: list[str]) -> None:
    (program.home / "state" / "keys" / "dkim").mkdir(parents=True)
    other = program.home / "state" / "keys" / "dkim" / "shop.test.postal-XYZABC.pem"
    other.write_text("another key")
    before = {name: content for name, content in files(program).items() if not name.endswith("host.key")}
    ran = program("import", "postal", "--yes", *dumps)
    assert (ran.code, "holds another key" in ran.err) == (1, True), ran.err
    after = {name: content for name, content in files(program).items() if not name.endswith("host.key")}
    assert after == before
