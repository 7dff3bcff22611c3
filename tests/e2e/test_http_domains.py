"""Sender domains and track domains by REST: their records, their keys, and what DNS says of them."""

import asyncio
import json
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ark
import pytest
import pytest_asyncio
from peers.arkdoor import ACME_KEY, ArkDoor, open_ark_door, unique
from peers.tenants import ask, file_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("domains")) as opened:
        yield opened


def key_files(door: ArkDoor, domain: str) -> list[Path]:
    return list((door.relay.state / "keys" / "dkim").glob(f"{domain}.ark-*.pem"))


def publish(door: ArkDoor, *records: Any) -> None:
    for record in records:
        value = f"{record.value}." if record.type == "CNAME" else record.value
        door.dns.set(record.full_name, record.type, value, ttl=1)


def dump(model: Any, *but: str) -> dict[str, Any]:
    """Return what a model of the client holds; two of its operations have a class each for the same thing."""
    found: dict[str, Any] = model.model_dump(exclude=set(but))
    return found


async def sender(door: ArkDoor) -> Any:
    """Give acme a new sender domain."""
    return (await door.api()("tenants.domains.create", "acme", name=f"{unique('d')}.test")).data


async def tracker(door: ArkDoor, **fields: Any) -> Any:
    """Give acme a track domain under a new sender domain."""
    made = await sender(door)
    return (await door.api()("tenants.tracking.create", "acme", domain_id=made.id, name="track", **fields)).data


# -- sender domains ------------------------------------------------------------------------------------------------


async def test_a_domain_lives_as_the_official_client_has_it(door: ArkDoor) -> None:
    api, name = door.api(key=ACME_KEY), f"mail.{unique('d')}.co.uk"
    made = (await api("tenants.domains.create", "acme", name=name.upper())).data
    zone = name.removeprefix("mail.")
    assert (made.name, made.verified, made.verified_at) == (name, False, None)
    assert (made.tenant_id, made.tenant_name) == ("acme", "Acme Inc")
    records = made.dns_records
    assert records.zone == zone
    selector = records.dkim.name.removesuffix("._domainkey.mail")
    assert selector.startswith("ark-")
    assert [(one.type, one.name, one.full_name, one.status) for one in (records.spf, records.dkim)] == [
        ("TXT", "mail", name, None),
        ("TXT", f"{selector}._domainkey.mail", f"{selector}._domainkey.{name}", None),
    ]
    assert records.spf.value == "v=spf1 a mx include:spf.relay.test ~all"
    assert records.dkim.value.startswith("v=DKIM1; k=rsa; t=s; p=")
    assert (records.return_path.type, records.return_path.full_name) == ("CNAME", f"psrp.{name}")
    assert (records.return_path.name, records.return_path.value) == ("psrp.mail", "rp.relay.test")
    (key,) = key_files(door, name)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    one = {"tenant_id": "acme"}
    missing = (await api("tenants.domains.verify", str(made.id), **one)).data
    assert (missing.verified, missing.dns_records.spf.status) == (False, "Missing")
    door.dns.set(name, "TXT", "v=spf1 -all", ttl=1)
    assert (await api("tenants.domains.verify", str(made.id), **one)).data.dns_records.spf.status == "Invalid"
    publish(door, records.spf, records.dkim, records.return_path)
    good = (await api("tenants.domains.verify", str(made.id), **one)).data
    assert good.verified
    assert good.verified_at is not None
    assert [getattr(good.dns_records, part).status for part in ("spf", "dkim", "return_path")] == ["OK"] * 3
    assert dump((await api("tenants.domains.retrieve", str(made.id), **one)).data, "checkedAt") == dump(
        good, "checkedAt"
    )
    assert (await ask(door, "GET", f"/tenants/acme/domains/{name}")).json()["data"]["id"] == made.id
    listed = (await api("tenants.domains.list", "acme")).data.domains
    assert (listed[0].id, listed[0].name, listed[0].verified, listed[0].tenant_id) == (made.id, name, True, "acme")
    assert listed[-1].name == "sender.test"

    assert name in (await api("tenants.domains.delete", str(made.id), **one)).data.message
    assert key_files(door, name) == []
    with pytest.raises(ark.NotFoundError):
        await api("tenants.domains.retrieve", str(made.id), **one)
    # one that comes back is another: with another key, and not verified
    again = (await api("tenants.domains.create", "acme", name=name)).data
    assert (again.verified, again.dns_records.spf.status, again.id == made.id) == (False, None, False)
    assert again.dns_records.dkim.value != records.dkim.value


async def test_a_name_of_any_script_is_kept_in_a_labels(door: ArkDoor) -> None:
    made = (await door.api()("tenants.domains.create", "acme", name="Bücher.Test")).data
    assert (made.name, made.dns_records.spf.full_name) == ("xn--bcher-kva.test", "xn--bcher-kva.test")


async def test_mail_is_signed_by_the_new_key_as_soon_as_the_domain_is_verified(door: ArkDoor) -> None:
    made = await sender(door)
    mail = {"from": f"app@{made.name}", "to": [f"{unique('ann')}@rcpt.test"], "subject": "x", "text": "x"}
    before = await ask(door, "POST", "/emails", mail)
    assert (before.status_code, before.json()["error"]["code"]) == (422, "domain_not_verified")
    records = made.dns_records
    publish(door, records.spf, records.dkim, records.return_path)
    await door.api()("tenants.domains.verify", str(made.id), tenant_id="acme")
    assert (await ask(door, "POST", "/emails", mail)).status_code == 200
    letter = await door.letter(mail["to"][0])
    assert f"d={made.name}; s={records.dkim.name.split('.')[0]}".encode() in letter.content.replace(b"\r\n\t", b" ")
    await door.api()("tenants.domains.delete", str(made.id), tenant_id="acme")
    after = await ask(door, "POST", "/emails", mail)
    assert (after.status_code, after.json()["error"]["code"]) == (422, "domain_not_verified")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, (400, "missing_required_field", "name")),
        ({"name": ""}, (400, "validation_error", "name")),
        ({"name": 7}, (400, "validation_error", "name")),
        ({"name": "a b.test"}, (400, "validation_error", "name")),
        ({"name": "../../etc/passwd"}, (400, "validation_error", "name")),
        ({"name": "a_b.test"}, (400, "validation_error", "name")),
        ({"name": "x.test."}, (400, "validation_error", "name")),
        ({"name": "192.0.2.1"}, (400, "validation_error", "name")),
        ({"name": "[192.0.2.1]"}, (400, "validation_error", "name")),
        ({"name": "xn--a.test\u0000"}, (400, "validation_error", "name")),
        ({"name": "-a.test"}, (400, "validation_error", "name")),
        ({"name": f"{'a' * 64}.test"}, (400, "validation_error", "name")),
        ({"name": ".".join(["a" * 60] * 4)}, (400, "validation_error", "name")),
        ({"name": "sender.test"}, (409, "already_exists", None)),
        ({"name": "SENDER.test"}, (409, "already_exists", None)),
        ({"name": "other.test"}, (409, "already_exists", None)),
    ],
)
async def test_what_is_no_new_domain_is_refused_by_name(
    door: ArkDoor, body: dict[str, Any], wanted: tuple[int, str, str | None]
) -> None:
    before = file_of(door, "acme").read_bytes(), len(list((door.relay.state / "keys" / "dkim").iterdir()))
    answer = await ask(door, "POST", "/tenants/acme/domains", body, ACME_KEY)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("field")) == wanted, answer.text
    assert (answer.headers.get("x-should-retry") == "false") == (answer.status_code == 409)
    assert "other " not in error["message"].replace("another ", "")
    after = file_of(door, "acme").read_bytes(), len(list((door.relay.state / "keys" / "dkim").iterdir()))
    assert after == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, f"/tenants/{tenant}/{kind}/{{id}}{end}")
        for tenant, kind in (("acme", "domains"), ("acme", "tracking"), ("other", "domains"), ("nobody", "tracking"))
        for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/verify"), ("PATCH", ""))
        if (kind, method) != ("domains", "PATCH")
    ],
)
@pytest.mark.parametrize("one", ["1", "x", "theirs", "%2e%2e", "9" * 300])
async def test_what_is_not_there_and_what_is_anothers_are_404_alike(
    door: ArkDoor, method: str, path: str, one: str
) -> None:
    if one == "theirs":
        (theirs,) = (await ask(door, "GET", "/tenants/other/domains")).json()["data"]["domains"]
        one = str(theirs["id"])
    answer = await ask(door, method, path.format(id=one), {} if method == "PATCH" else None, ACME_KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_resolver_in_trouble_changes_nothing_and_says_so(door: ArkDoor) -> None:
    api, made = door.api(), await sender(door)
    records = made.dns_records
    publish(door, records.spf, records.dkim, records.return_path)
    assert (await api("tenants.domains.verify", str(made.id), tenant_id="acme")).data.verified
    for record in (records.spf, records.dkim, records.return_path):
        door.dns.fail(record.full_name, "*", "servfail")
    assert (await api("tenants.domains.verify", str(made.id), tenant_id="acme")).data.verified
    unlucky = await tracker(door)
    door.dns.fail(unlucky.full_name, "*", "servfail")
    assert (await api("tenants.tracking.verify", unlucky.id, tenant_id="acme")).data.dns_status == "missing"
    door.dns.heal()


# -- track domains -------------------------------------------------------------------------------------------------


async def test_a_track_domain_lives_as_the_official_client_has_it(door: ArkDoor) -> None:
    api, domain = door.api(key=ACME_KEY), await sender(door)
    one: dict[str, Any] = {"tenant_id": "acme"}
    made = (await api("tenants.tracking.create", "acme", domain_id=domain.id, name="go")).data
    assert (made.name, made.full_name, made.domain_id) == ("go", f"go.{domain.name}", str(domain.id))
    assert (made.ssl_enabled, made.track_clicks, made.track_opens) == (True, True, True)
    assert (made.dns_ok, made.dns_status, made.excluded_click_domains) == (False, "missing", None)
    assert made.dns_checked_at is not None
    assert "track.relay.test" in made.dns_error
    assert (made.dns_record.type, made.dns_record.name, made.dns_record.value) == ("CNAME", "go", "track.relay.test")
    assert made.updated_at == made.created_at
    # it is looked up by the schedule too
    same = dump(made, "dns_checked_at")
    assert dump((await api("tenants.tracking.retrieve", made.id, **one)).data, "dns_checked_at") == same
    assert dump((await api("tenants.tracking.list", "acme")).data.track_domains[0], "dns_checked_at") == same

    for value, status in (("elsewhere.test.", "invalid"), ("Track.Relay.test.", "ok")):
        door.dns.set(made.full_name, "CNAME", value, ttl=1)
        seen = (await api("tenants.tracking.verify", made.id, **one)).data
        assert (seen.id, seen.full_name) == (made.id, made.full_name)
        assert (seen.dns_ok, seen.dns_status, seen.dns_error is None) == (status == "ok", status, status == "ok")
    shown = (await api("tenants.tracking.retrieve", made.id, **one)).data
    assert (shown.dns_ok, shown.dns_status, shown.dns_checked_at) == (True, "ok", seen.dns_checked_at)

    changed = (
        await api(
            "tenants.tracking.update", made.id, **one, excluded_click_domains=" Bank.test,bücher.test,, bank.test "
        )
    ).data
    assert changed.excluded_click_domains == "bank.test,xn--bcher-kva.test"
    assert changed.updated_at > made.updated_at
    off = {"ssl_enabled": False, "track_clicks": False, "track_opens": False}
    changed = (await api("tenants.tracking.update", made.id, **one, **off)).data
    assert (changed.ssl_enabled, changed.track_clicks, changed.track_opens) == (False, False, False)
    assert changed.excluded_click_domains == "bank.test,xn--bcher-kva.test"
    nulls = dict.fromkeys(off, None)
    before = file_of(door, "acme").read_bytes()
    assert (await api("tenants.tracking.update", made.id, **one, **nulls)).data == changed
    assert file_of(door, "acme").read_bytes() == before
    cleared = (await api("tenants.tracking.update", made.id, **one, **nulls, excluded_click_domains=None)).data
    assert (cleared.excluded_click_domains, cleared.track_opens, cleared.dns_ok) == (None, False, True)

    assert made.full_name in (await api("tenants.tracking.delete", made.id, **one)).data.message
    with pytest.raises(ark.NotFoundError):
        await api("tenants.tracking.retrieve", made.id, **one)
    with pytest.raises(ark.NotFoundError):
        await api("tenants.tracking.verify", made.id, **one)


async def test_the_record_of_a_track_domain_is_looked_up_when_it_is_made_also_the_second_time(door: ArkDoor) -> None:
    api, domain = door.api(), await sender(door)
    door.dns.set(f"track.{domain.name}", "CNAME", "track.relay.test.", ttl=1)
    made = (
        await api(
            "tenants.tracking.create",
            "acme",
            domain_id=domain.id,
            name="track",
            ssl_enabled=None,
            track_clicks=None,
            track_opens=False,
        )
    ).data
    assert (made.dns_ok, made.dns_status, made.dns_error) == (True, "ok", None)
    assert (made.ssl_enabled, made.track_clicks, made.track_opens) == (True, True, False)
    # made anew under the same name, it is another
    await api("tenants.domains.delete", str(domain.id), tenant_id="acme")
    assert made.id not in {one.id for one in (await api("tenants.tracking.list", "acme")).data.track_domains}
    again = (await api("tenants.domains.create", "acme", name=domain.name)).data
    door.dns.fail(f"track.{domain.name}", "*", "servfail")
    fresh = (await api("tenants.tracking.create", "acme", domain_id=again.id, name="track")).data
    assert (fresh.dns_ok, fresh.dns_status, fresh.dns_checked_at) == (False, None, None)
    assert fresh.dns_error
    door.dns.heal()


async def test_a_track_domain_written_by_hand_is_looked_up_after_the_reload(door: ArkDoor) -> None:
    file = file_of(door, "other")
    door.dns.set("go.other.test", "CNAME", "track.relay.test.", ttl=1)
    file.write_text(file.read_text() + '[[track_domains]]\nname = "go"\ndomain = "other.test"\n')
    await door.relay.call("POST", "/v1/control/reload")
    listed = await door.until(
        lambda: door.api()("tenants.tracking.list", "other"), lambda shown: shown.data.track_domains[0].dns_ok
    )
    (one,) = listed.data.track_domains
    (domain,) = (await door.api()("tenants.domains.list", "other")).data.domains
    assert (one.full_name, one.domain_id) == ("go.other.test", str(domain.id))
    assert one.created_at.timestamp() == pytest.approx(file.stat().st_mtime, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"domainId": None}, (400, "missing_required_field", "domainId")),
        ({"domainId": "one"}, (400, "validation_error", "domainId")),
        ({"domainId": 1.5}, (400, "validation_error", "domainId")),
        ({"domainId": 1}, (404, "not_found", "domainId")),
        ({"domainId": 10**18}, (404, "not_found", "domainId")),
        ({"name": None}, (400, "missing_required_field", "name")),
        ({"name": ""}, (400, "validation_error", "name")),
        ({"name": "Track"}, (400, "validation_error", "name")),
        ({"name": "two.labels"}, (400, "validation_error", "name")),
        ({"name": "-x"}, (400, "validation_error", "name")),
        ({"name": "x\n"}, (400, "validation_error", "name")),
        ({"name": "x" * 64}, (400, "validation_error", "name")),
        ({"name": "psrp"}, (400, "validation_error", "name")),
        ({"name": "taken"}, (409, "conflict", None)),
        ({"trackOpens": "yes"}, (400, "validation_error", "trackOpens")),
        ({}, (409, "already_exists", None)),
    ],
)
async def test_what_is_no_track_domain_is_refused_by_name(
    door: ArkDoor, fields: dict[str, Any], wanted: tuple[int, str, str | None]
) -> None:
    rows = (await ask(door, "GET", "/tenants/acme/tracking")).json()["data"]["trackDomains"]
    if not any(row["fullName"] == "good.sender.test" for row in rows):
        (sending,) = [
            row for row in (await ask(door, "GET", "/tenants/acme/domains")).json()["data"]["domains"]
            if row["name"] == "sender.test"
        ]  # fmt: skip
        made = await ask(door, "POST", "/tenants/acme/tracking", {"domainId": sending["id"], "name": "good"})
        assert made.status_code == 201
        await ask(door, "POST", "/tenants/acme/domains", {"name": "taken.sender.test"})
        rows = [made.json()["data"]]
    own = next(row["domainId"] for row in rows if row["fullName"] == "good.sender.test")
    before = file_of(door, "acme").read_bytes()
    body = {"domainId": int(own), "name": "more", **fields}
    answer = await ask(
        door, "POST", "/tenants/acme/tracking", {key: value for key, value in body.items() if value is not None}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("field")) == wanted, answer.text
    assert (answer.headers.get("x-should-retry") == "false") == (answer.status_code == 409)
    assert file_of(door, "acme").read_bytes() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"excludedClickDomains": "a.test,b c.test"}, "excludedClickDomains"),
        ({"excludedClickDomains": "https://a.test"}, "excludedClickDomains"),
        ({"excludedClickDomains": ["a.test"]}, "excludedClickDomains"),
        ({"excludedClickDomains": "a.test," * 2000}, "excludedClickDomains"),
        ({"sslEnabled": 1}, "sslEnabled"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_by_name(door: ArkDoor, body: dict[str, Any], field: str) -> None:
    made = await tracker(door)
    answer = await ask(door, "PATCH", f"/tenants/acme/tracking/{made.id}", body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


async def test_the_command_line_looks_a_track_domain_up_with_the_daemon_and_without(door: ArkDoor) -> None:
    made, config = await tracker(door), door.relay.config
    alone = config.with_name("alone.toml")
    alone.write_text(config.read_text().replace('state_dir = "state"', 'state_dir = "alone"'))
    shutil.copytree(door.relay.state / "keys", config.parent / "alone" / "keys")

    async def run(config: Path, *words: str) -> tuple[int | None, str]:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "arkrelay",
            "track-domain",
            "verify",
            "-c",
            str(config),
            *words,
            stdout=-1,
            stderr=-1,
        )
        out, _ = await program.communicate()
        return program.returncode, out.decode()

    for one in (config, alone):
        code, out = await run(one, made.id)
        assert (code, out.splitlines()[0]) == (1, f"{made.full_name}: missing")
    door.dns.set(made.full_name, "CNAME", "track.relay.test.", ttl=1)
    for one in (alone, config):
        assert await run(one, made.full_name) == (0, f"{made.full_name}: ok\n")
    assert (await door.api()("tenants.tracking.retrieve", made.id, tenant_id="acme")).data.dns_ok
    code, out = await run(alone, made.id, "--json")
    assert (code, json.loads(out)["dnsStatus"]) == (0, "ok")
