"""Credentials by REST: as the official client has them, open and shut at once, and written nowhere in clear."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import ark
import httpx
import pytest
import pytest_asyncio
from peers.arkdoor import ArkDoor, open_ark_door, unique
from peers.tenants import ask, credential, file_of, login, refused, sending_domain, tenant, waiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("credentials")) as opened:
        yield opened


async def test_a_credential_lives_as_the_official_client_has_it(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    made = (await api("tenants.credentials.create", owner, name="prod_1", type="smtp")).data
    assert (made.name, made.type, made.hold, made.last_used_at) == ("prod_1", "smtp", False, None)
    assert made.smtp_username == f"{owner}/{made.key}"
    plain = (await api("tenants.credentials.retrieve", made.id, tenant_id=owner)).data
    assert (plain.key, plain.smtp_username) == (None, None)
    raw = await api.raw("tenants.credentials.retrieve", made.id, tenant_id=owner, reveal=False)
    assert '"key"' not in raw.text
    assert '"lastUsedAt":null' in raw.text
    shown = (await api("tenants.credentials.retrieve", made.id, tenant_id=owner, reveal=True)).data
    assert (shown.key, shown.smtp_username) == (made.key, made.smtp_username)

    rest = (await api("tenants.credentials.create", owner, name="rest", type="api")).data
    assert rest.key.startswith("ark_live_")
    assert rest.smtp_username is None
    listed = await api.all("tenants.credentials.list", owner, per_page=1)
    assert [(one.id, one.type) for one in listed] == [(rest.id, "api"), (made.id, "smtp")]
    text = (await api.raw("tenants.credentials.list", owner)).text
    assert made.key not in text
    assert rest.key not in text
    assert [one.id for one in (await api("tenants.credentials.list", owner, type="smtp")).data] == [made.id]

    sender = await sending_domain(door, owner)
    assert await login(door, made.smtp_username, made.key, f"app@{sender}", "ann@rcpt.test") == 250
    used = await door.until(
        lambda: api("tenants.credentials.retrieve", made.id, tenant_id=owner), lambda answer: answer.data.last_used_at
    )
    renamed = (await api("tenants.credentials.update", made.id, tenant_id=owner, name="prod-2")).data
    assert (renamed.id, renamed.name, renamed.hold) == (made.id, "prod-2", False)
    assert renamed.last_used_at == used.data.last_used_at
    assert renamed.updated_at > renamed.created_at == made.created_at
    again = (await api("tenants.credentials.retrieve", made.id, tenant_id=owner, reveal=True)).data
    assert again.key == made.key
    assert (await api("tenants.credentials.delete", made.id, tenant_id=owner)).data.deleted is True
    with pytest.raises(ark.NotFoundError):
        await api("tenants.credentials.retrieve", made.id, tenant_id=owner)
    fresh = (await api("tenants.credentials.create", owner, name="prod-2", type="smtp")).data
    assert fresh.id != made.id
    seen = (await api("tenants.credentials.retrieve", fresh.id, tenant_id=owner)).data
    assert seen.last_used_at is None


async def test_a_credential_opens_its_door_at_once_and_shuts_it_at_once(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    rest, smtp = await credential(door, owner), await credential(door, owner, "smtp")
    mail = {"from": "a@x.test", "to": ["b@y.test"], "rawMessage": "RnJvbTogYUB4LnRlc3QNCg0KeA0K"}

    async def doors() -> tuple[str, int]:
        answer = await refused(door, "POST", "/emails/raw", mail, rest.key)
        return answer[1], await login(door, f"{owner}/{smtp.name}", smtp.key)

    assert await doors() == ("domain_not_verified", 250)
    for one in (rest, smtp):
        assert (await api("tenants.credentials.update", one.id, tenant_id=owner, hold=True)).data.hold is True
    assert await doors() == ("credential_on_hold", 535)
    for one in (rest, smtp):
        await api("tenants.credentials.update", one.id, tenant_id=owner, hold=False)
    assert await doors() == ("domain_not_verified", 250)
    assert await login(door, owner, rest.key) == 535
    assert (await refused(door, "GET", f"/tenants/{owner}", key=smtp.key))[:2] == (401, "invalid_api_key")
    for one in (rest, smtp):
        await api("tenants.credentials.delete", one.id, tenant_id=owner)
    assert await doors() == ("invalid_api_key", 535)


async def test_mail_that_waits_is_held_with_its_credential_and_a_person_may_release_it(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    smtp = await credential(door, owner, "smtp", name="app")
    email = await waiting(door, owner, smtp.key)
    await api("tenants.credentials.update", smtp.id, tenant_id=owner, hold=True)
    await api("emails.retry", email)
    await door.settled(api, email, "held")
    (why,) = (await ask(door, "GET", f"/emails/{email}/why")).json()["data"]["sentences"]
    assert "The credential app was on hold when this was due" in why["sentence"]
    tries = len((await api("emails.retrieve_deliveries", email)).data.deliveries)
    assert (await ask(door, "POST", "/queue/release", {"ids": [email]})).json()["data"]["count"] == 1
    history = await door.until(
        lambda: api("emails.retrieve_deliveries", email), lambda shown: len(shown.data.deliveries) > tries
    )
    assert history.data.status == "softfail"  # its peer was asked again


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("POST", "", {"type": "api"}, (400, "missing_required_field", "name")),
        ("POST", "", {"name": "x"}, (400, "missing_required_field", "type")),
        ("POST", "", {"name": "x y", "type": "api"}, (400, "validation_error", "name")),
        ("POST", "", {"name": "x\n", "type": "api"}, (400, "validation_error", "name")),
        ("POST", "", {"name": "x" * 51, "type": "api"}, (400, "validation_error", "name")),
        ("POST", "", {"name": "x", "type": "imap"}, (400, "validation_error", "type")),
        ("POST", "", {"name": "rest", "type": "api"}, (409, "already_exists", None)),
        ("GET", "?type=imap", None, (400, "validation_error", "type")),
        ("GET", "?perPage=101", None, (400, "validation_error", "perPage")),
        ("GET", "/one", None, (400, "validation_error", "credentialId")),
        ("GET", "/-1", None, (400, "validation_error", "credentialId")),
        ("GET", "/{own}?reveal=perhaps", None, (400, "validation_error", "reveal")),
        ("GET", "/1", None, (404, "not_found", None)),
        ("GET", f"/{'9' * 500}", None, (404, "not_found", None)),
        ("DELETE", "/1", None, (404, "not_found", None)),
        ("PATCH", "/1", {"hold": True}, (404, "not_found", None)),
        ("PATCH", "/{own}", {"hold": "yes"}, (400, "validation_error", "hold")),
        ("PATCH", "/{own}", {"name": "ü"}, (400, "validation_error", "name")),
        ("PATCH", "/{own}", {"name": "production"}, (409, "already_exists", None)),
    ],
)
async def test_what_is_no_credential_is_refused_by_name(
    door: ArkDoor, method: str, path: str, body: Any, wanted: tuple[int, str, str | None]
) -> None:
    before = file_of(door, "acme").read_bytes()
    rows = (await ask(door, "GET", "/tenants/acme/credentials")).json()["data"]
    own = next(row["id"] for row in rows if row["name"] == "rest")
    answer = await ask(door, method, f"/tenants/acme/credentials{path.format(own=own)}", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("field")) == wanted
    assert (answer.headers.get("x-should-retry") == "false") == (answer.status_code == 409)
    assert file_of(door, "acme").read_bytes() == before


async def test_a_change_of_nothing_leaves_a_credential_as_it_is(door: ArkDoor) -> None:
    owner = await tenant(door)
    made = await credential(door, owner)
    before = file_of(door, owner).read_bytes()
    answer = await ask(door, "PATCH", f"/tenants/{owner}/credentials/{made.id}", {"name": None, "hold": None})
    assert (answer.status_code, answer.json()["data"]["name"]) == (200, made.name)
    assert file_of(door, owner).read_bytes() == before


async def test_a_key_manages_others_only_as_far_as_it_may_itself(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    own, other = await credential(door, owner), await credential(door, owner)
    sender = await sending_domain(door, owner)
    path = f"/tenants/{owner}/credentials"
    new = {"name": unique("n"), "type": "smtp"}
    changes: list[tuple[str, str, Any]] = [
        ("POST", path, new), ("PATCH", f"{path}/{other.id}", {"hold": True}), ("DELETE", f"{path}/{other.id}", None),
        ("GET", f"{path}/{other.id}?reveal=true", None),
    ]  # fmt: skip
    # what an ordinary key of the tenant may do, and what none does to itself
    assert (await ask(door, "GET", f"{path}/{other.id}?reveal=true", key=own.key)).json()["data"]["key"] == other.key
    assert (await ask(door, "POST", path, {"name": "more", "type": "api"}, key=own.key)).status_code == 201
    for method, body in (("DELETE", None), ("PATCH", {"hold": True})):
        found = await refused(door, method, f"{path}/{own.id}", body, own.key)
        assert found[:2] == (409, "conflict")
    # on hold it looks, and that is all
    await api("tenants.credentials.update", own.id, tenant_id=owner, hold=True)
    everything = [*changes, ("PATCH", f"{path}/{own.id}", {"hold": False})]
    everything += [("POST", f"/tenants/{owner}/domains", {"name": "new.test"})]
    for method, where, body in everything:
        assert (await refused(door, method, where, body, own.key))[:2] == (403, "credential_on_hold")
    assert (await ask(door, "GET", path, key=own.key)).status_code == 200
    # and one that is restricted could lift that by another
    text = file_of(door, owner).read_text()
    restricted = text.replace("hold = true", f'domains = ["{sender}"]', 1)
    assert restricted != text
    file_of(door, owner).write_text(restricted)
    await door.relay.call("POST", "/v1/control/reload")
    for method, where, body in changes:
        assert (await refused(door, method, where, body, own.key))[:2] == (403, "permission_denied")
    assert (await ask(door, "GET", f"{path}/{other.id}", key=own.key)).status_code == 200
    assert (await refused(door, "DELETE", f"/tenants/{owner}/domains/{sender}"))[:2] == (409, "conflict")


async def test_a_test_key_makes_and_shows_test_keys_only(door: ArkDoor) -> None:
    owner = await tenant(door)
    live = await credential(door, owner)
    test = "ark_test_0123456789"
    with file_of(door, owner).open("a") as file:
        file.write(f'\n[[credentials]]\nname = "test"\ntype = "api"\nsecret = "{test}"\n')
    await door.relay.call("POST", "/v1/control/reload")
    path = f"/tenants/{owner}/credentials"
    assert (await refused(door, "GET", f"{path}/{live.id}?reveal=true", key=test))[:2] == (403, "permission_denied")
    sender = await sending_domain(door, owner)
    for kind in ("api", "smtp"):
        made = (await ask(door, "POST", path, {"name": f"t{kind}", "type": kind}, key=test)).json()["data"]
        assert made["key"].startswith("ark_test_")
        shown = await ask(door, "GET", f"{path}/{made['id']}?reveal=true", key=test)
        assert shown.json()["data"]["key"] == made["key"]
    assert await login(door, owner, made["key"], f"app@{sender}", "tess@rcpt.test") == 250
    rows = await door.until(
        lambda: ask(door, "GET", f"/emails?tenantId={owner}&status=sent"), lambda answer: answer.json()["data"]
    )
    assert [row["to"] for row in rows.json()["data"]] == ["tess@rcpt.test"]
    assert not [one for one in door.mx.messages if "tess@rcpt.test" in one.recipients]


async def test_every_form_of_a_secret_is_revealed_if_it_can_be(door: ArkDoor) -> None:
    owner = await tenant(door)
    secret = door.relay.folder / "secret"
    secret.write_text("from-a-file-0123456789\n")
    secret.chmod(0o600)
    digest = hashlib.sha256(b"only-a-digest-0123456789").hexdigest()
    forms = {"plain": "plain-0123456789", "file": f"file:{secret}", "digest": f"sha256:{digest}"}
    with file_of(door, owner).open("a") as file:
        for name, form in forms.items():
            file.write(f'\n[[credentials]]\nname = "{name}"\nsecret = "{form}"\n')
    await door.relay.call("POST", "/v1/control/reload")
    path = f"/tenants/{owner}/credentials"
    ids = {row["name"]: row["id"] for row in (await ask(door, "GET", path)).json()["data"]}

    async def reveal(name: str) -> httpx.Response:
        return await ask(door, "GET", f"{path}/{ids[name]}?reveal=true")

    assert (await reveal("plain")).json()["data"]["key"] == "plain-0123456789"
    assert (await reveal("file")).json()["data"]["key"] == "from-a-file-0123456789"
    answer = await reveal("digest")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert "SHA-256" in answer.json()["error"]["message"]
    assert await login(door, owner, "only-a-digest-0123456789") == 250


async def test_a_key_is_written_nowhere_in_clear_and_a_repeated_request_shows_it_again(door: ArkDoor) -> None:
    owner = await tenant(door)
    path, body = f"/tenants/{owner}/credentials", {"name": "once", "type": "smtp"}
    once = {"Idempotency-Key": unique("idem")}
    first, second = [await ask(door, "POST", path, body, headers=once) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    made = first.json()["data"]
    assert second.json() == first.json()
    await ask(door, "GET", f"{path}/{made['id']}?reveal=true")
    assert await login(door, owner, made["key"]) == 250
    wrong = await ask(door, "POST", path, {"name": "once", "type": "smtp"})
    assert wrong.status_code == 409
    key = made["key"].encode()
    looked = [one for one in door.relay.folder.rglob("*") if one.is_file()]
    assert {"arkrelay.db", "log.jsonl", f"{owner}.toml"} <= {one.name for one in looked}
    assert [one.name for one in looked if key in one.read_bytes()] == []
