"""Tenants by REST, and what holds for every setting: at once in force, and never half done."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import ark
import pytest
import pytest_asyncio
from peers.arkdoor import ACME_KEY, OTHER_KEY, ArkDoor, open_ark_door, unique
from peers.tenants import ask, credential, file_of, in_file, login, refused, tenant, waiting

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("settings")) as opened:
        yield opened


async def test_a_tenant_lives_as_the_official_client_has_it(door: ArkDoor) -> None:
    api = door.api()
    metadata = {"external_id": "42", "paid": True, "seats": 3, "rate": 1.5, "plan": None, "a b\n": "ü\u0000\n"}
    made = (await api("tenants.create", name="Grüße & Co", metadata=metadata)).data
    assert made.id.startswith("cm")
    assert (made.name, made.metadata, made.status) == ("Grüße & Co", metadata, "active")
    assert made.created_at == made.updated_at
    assert (await api("tenants.retrieve", made.id)).data == made
    assert in_file(door, made.id)["metadata"]["plan"] == []

    changed = (await api("tenants.update", made.id, name="New", status="suspended")).data
    assert (changed.name, changed.status, changed.metadata) == ("New", "suspended", metadata)
    assert (changed.created_at, changed.updated_at > made.updated_at) == (made.created_at, True)
    other = {"plan": None}
    assert (await api("tenants.update", made.id, metadata=other)).data.metadata == other
    assert (await api("tenants.update", made.id, metadata=None)).data.metadata == {}
    assert (await api("tenants.delete", made.id)).data.deleted is True
    with pytest.raises(ark.NotFoundError):
        await api("tenants.retrieve", made.id)
    assert not file_of(door, made.id).exists()


async def test_tenants_are_listed_newest_first_and_by_status(door: ArkDoor) -> None:
    api = door.api()
    made = [await tenant(door, f"T{number}") for number in range(3)]
    await api("tenants.update", made[1], status="archived")
    listed = [one.id for one in await api.all("tenants.list", per_page=2)]
    assert listed[:3] == made[::-1]
    assert {"acme", "other"} <= set(listed)
    archived = await api("tenants.list", status="archived")
    assert [one.id for one in archived.data] == [made[1]]
    assert (archived.total, archived.total_pages) == (1, 1)
    assert (await api("tenants.list", page=99)).data == []


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing_required_field", "name"),
        ({"name": ""}, "validation_error", "name"),
        ({"name": "x" * 101}, "validation_error", "name"),
        ({"name": 7}, "validation_error", "name"),
        ({"name": "two\nlines"}, "validation_error", "name"),
        ({"name": "x", "metadata": []}, "validation_error", "metadata"),
        ({"name": "x", "metadata": {"good": 1, "deep": {}}}, "validation_error", "metadata.deep"),
        ({"name": "x", "metadata": {"list": []}}, "validation_error", "metadata.list"),
        ({"name": "x", "metadata": {"long": "x" * 501}}, "validation_error", "metadata.long"),
        ({"name": "x", "metadata": {"k" * 41: 1}}, "validation_error", f"metadata.{'k' * 41}"),
        ({"name": "x", "metadata": {f"k{i}": i for i in range(51)}}, "validation_error", "metadata"),
        ({"name": "x", "metadata": {f"k{i}": "x" * 490 for i in range(17)}}, "validation_error", "metadata"),
    ],
)
async def test_a_tenant_that_the_contract_does_not_allow_is_refused_by_name(
    door: ArkDoor, body: dict[str, Any], code: str, field: str | None
) -> None:
    assert await refused(door, "POST", "/tenants", body) == (400, code, field)
    if body:
        assert await refused(door, "PATCH", "/tenants/acme", body) == (400, code, field)


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, None), ({"name": None}, None), ({"unknown": 1}, None), ({"status": "gone"}, "status")],
)
async def test_a_change_of_nothing_is_refused(door: ArkDoor, body: dict[str, Any], field: str | None) -> None:
    before = file_of(door, "acme").read_bytes()
    assert await refused(door, "PATCH", "/tenants/acme", body) == (400, "validation_error", field)
    assert file_of(door, "acme").read_bytes() == before


async def test_what_metadata_may_be_is_kept_to_the_last_character(door: ArkDoor) -> None:
    most = {f"{i:040d}": "ü" * 110 for i in range(28)} | {f"n{i}": i * 10**17 for i in range(22)}
    made = (await ask(door, "POST", "/tenants", {"name": "Full", "metadata": most})).json()["data"]
    assert made["metadata"] == most
    await door.relay.call("POST", "/v1/control/reload")
    assert (await ask(door, "GET", f"/tenants/{made['id']}")).json()["data"]["metadata"] == most


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/tenants", None, 403, "permission_denied"),
        ("POST", "/tenants", {"name": "x"}, 403, "permission_denied"),
        ("PATCH", "/tenants/acme", {"name": "x"}, 403, "permission_denied"),
        ("DELETE", "/tenants/acme", None, 403, "permission_denied"),
        ("DELETE", "/tenants/other", None, 403, "permission_denied"),
        ("GET", "/tenants/other", None, 404, "not_found"),
        ("GET", "/tenants/nobody", None, 404, "not_found"),
        ("GET", "/tenants/other/credentials", None, 404, "not_found"),
        ("POST", "/tenants/other/credentials", {"name": "x", "type": "api"}, 404, "not_found"),
        ("GET", "/tenants/other/credentials/{other}", None, 404, "not_found"),
        ("GET", "/tenants/acme/credentials/{other}", None, 404, "not_found"),
        ("PATCH", "/tenants/acme/credentials/{other}", {"hold": True}, 404, "not_found"),
        ("DELETE", "/tenants/acme/credentials/{other}", None, 404, "not_found"),
    ],
)
async def test_a_tenants_key_reaches_its_own_tenant_only(
    door: ArkDoor, method: str, path: str, body: Any, status: int, code: str
) -> None:
    theirs = (await ask(door, "GET", "/tenants/other/credentials")).json()["data"][0]["id"]
    found = await refused(door, method, path.format(other=theirs), body, ACME_KEY)
    assert found[:2] == (status, code)
    assert (await ask(door, "GET", "/tenants/acme", key=ACME_KEY)).json()["data"]["id"] == "acme"


async def test_a_suspended_tenant_is_refused_and_its_mail_is_held_until_released(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    smtp, rest = await credential(door, owner, "smtp"), await credential(door, owner)
    email = await waiting(door, owner, smtp.key)
    await api("tenants.update", owner, status="suspended")
    assert (await refused(door, "GET", f"/tenants/{owner}", key=rest.key))[:2] == (403, "tenant_suspended")
    assert await login(door, owner, smtp.key) == 535
    await api("emails.retry", email)
    await door.settled(api, email, "held")
    (why,) = (await ask(door, "GET", f"/emails/{email}/why")).json()["data"]["sentences"]
    assert f"The tenant {owner} was suspended when this was due" in why["sentence"]
    await api("tenants.update", owner, status="active")
    assert await login(door, owner, smtp.key) == 250
    assert (await ask(door, "POST", "/queue/release", {"ids": [email]})).json()["data"]["count"] == 1
    await door.settled(api, email, "softfail")


async def test_mail_of_a_deleted_tenant_ends_with_the_reason(door: ArkDoor) -> None:
    api, owner = door.api(), await tenant(door)
    smtp = await credential(door, owner, "smtp")
    deferred, held = [await waiting(door, owner, smtp.key) for _ in range(2)]
    assert (await ask(door, "POST", "/queue/hold", {"ids": [held]})).json()["data"]["count"] == 1
    await api("tenants.suppressions.create", owner, address="x@rcpt.test")
    assert (await api("tenants.delete", owner)).data.deleted is True
    for email in (deferred, held):
        shown = (await ask(door, "GET", f"/emails/{email}")).json()["data"]
        assert (shown["status"], shown["tenantId"]) == ("hardfail", owner)
        (why,) = (await ask(door, "GET", f"/emails/{email}/why")).json()["data"]["sentences"]
        assert f"The tenant {owner} was deleted" in why["sentence"]
    assert (await refused(door, "GET", f"/tenants/{owner}/suppressions"))[:2] == (404, "not_found")
    assert await login(door, owner, smtp.key) == 535


async def test_a_tenant_that_arkrelay_toml_names_is_not_deleted(door: ArkDoor) -> None:
    answer = await ask(door, "DELETE", "/tenants/acme")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert "arkrelay.toml" in answer.json()["error"]["message"]
    assert file_of(door, "acme").exists()


async def test_a_tenant_that_is_managed_by_hand_is_read_and_not_changed(door: ArkDoor) -> None:
    api, owner = door.api(), unique("byhand")
    file_of(door, owner).write_text(
        'name = "By hand"\nmanaged = "file"\n'
        '[[credentials]]\nname = "x"\ntype = "api"\nsecret = "by-hand-0123456789"\n'
        '[[domains]]\nname = "byhand.test"\n[[track_domains]]\nname = "t"\ndomain = "byhand.test"\n'
    )
    file_of(door, owner).chmod(0o600)
    await door.relay.call("POST", "/v1/control/reload")
    before = file_of(door, owner).read_bytes()
    (own,) = (await api("tenants.credentials.list", owner)).data
    (domain,) = (await api("tenants.domains.list", owner)).data.domains
    (track,) = (await api("tenants.tracking.list", owner)).data.track_domains
    shown = (await api("tenants.credentials.retrieve", own.id, tenant_id=owner, reveal=True)).data
    assert shown.key == "by-hand-0123456789"
    assert (await api("tenants.retrieve", owner)).data.created_at
    assert (await api("tenants.domains.retrieve", str(domain.id), tenant_id=owner)).data.name == "byhand.test"
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("tenants.update", (owner,), {"name": "x"}),
        ("tenants.delete", (owner,), {}),
        ("tenants.credentials.create", (owner,), {"name": "y", "type": "api"}),
        ("tenants.credentials.update", (own.id,), {"tenant_id": owner, "hold": True}),
        ("tenants.credentials.delete", (own.id,), {"tenant_id": owner}),
        ("tenants.domains.create", (owner,), {"name": "new.test"}),
        ("tenants.domains.delete", (str(domain.id),), {"tenant_id": owner}),
        ("tenants.tracking.update", (track.id,), {"tenant_id": owner, "track_opens": False}),
        ("tenants.tracking.delete", (track.id,), {"tenant_id": owner}),
    ]
    for name, args, kwargs in calls:
        with pytest.raises(ark.ConflictError) as caught:
            await api(name, *args, **kwargs)
        assert caught.value.response.headers["x-should-retry"] == "false", name
        assert api.count(name) == 1, name
    assert file_of(door, owner).read_bytes() == before


async def test_parallel_creations_lose_nothing(door: ArkDoor) -> None:
    owner = await tenant(door)
    asked = [ask(door, "POST", "/tenants", {"name": f"P{number}"}) for number in range(20)]
    asked += [
        ask(door, "POST", f"/tenants/{owner}/credentials", {"name": f"c{number}", "type": "smtp"})
        for number in range(20)
    ]
    asked += [ask(door, "POST", f"/tenants/{owner}/domains", {"name": f"p{number}.test"}) for number in range(5)]
    asked += [ask(door, "POST", f"/tenants/{owner}/domains", {"name": "same.test"}) for _ in range(3)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201] * 46 + [409] * 2
    made = [answer.json()["data"] for answer in answers if answer.status_code == 201]
    for one in made[:20]:
        assert (await ask(door, "GET", f"/tenants/{one['id']}")).json()["data"] == one
    listed = (await ask(door, "GET", f"/tenants/{owner}/credentials?perPage=100")).json()
    assert {one["id"] for one in listed["data"]} == {one["id"] for one in made[20:40]}
    domains = (await ask(door, "GET", f"/tenants/{owner}/domains")).json()["data"]["domains"]
    assert {one["name"] for one in domains} == {*(f"p{number}.test" for number in range(5)), "same.test"}
    assert len({one["id"] for one in domains}) == 6


async def test_a_broken_file_elsewhere_is_named_and_nothing_is_half_done(door: ArkDoor) -> None:
    owner, broken = await tenant(door), file_of(door, "other")
    before, good = file_of(door, owner).read_bytes(), broken.read_text()
    files = sorted(door.relay.folder.rglob("*.toml"))
    broken.write_text(good + '[[credentials]]\nname = "leaky"\ntype = "imap"\nsecret = "not-for-the-answer"\n')
    try:
        for method, path, body in (
            ("POST", "/tenants", {"name": "x"}),
            ("PATCH", f"/tenants/{owner}", {"name": "x"}),
            ("POST", f"/tenants/{owner}/credentials", {"name": "x", "type": "api"}),
            ("DELETE", f"/tenants/{owner}", None),
        ):
            answer = await ask(door, method, path, body)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
            message = answer.json()["error"]["message"]
            assert message.startswith("Nothing was changed: tenants/other.toml: credentials[1].type: ")
            assert "not-for-the-answer" not in message
        mine = await ask(door, "POST", "/tenants/acme/credentials", {"name": "x", "type": "api"}, key=ACME_KEY)
        assert mine.status_code == 409
        assert "other" not in mine.text
        assert (await ask(door, "GET", f"/tenants/{owner}", key="")).status_code == 200
        assert (file_of(door, owner).read_bytes(), sorted(door.relay.folder.rglob("*.toml"))) == (before, files)
    finally:
        broken.write_text(good)
    assert (await ask(door, "PATCH", f"/tenants/{owner}", {"name": "x"})).status_code == 200


async def test_a_hand_edit_is_shown_after_a_reload_and_keeps_its_dates_when_rest_writes(door: ArkDoor) -> None:
    api, owner = door.api(), unique("hand")
    file = file_of(door, owner)
    file.write_text('name = "Hand"\n[[credentials]]\nname = "x"\ntype = "api"\nsecret = "hand-0123456789"\n')
    file.chmod(0o600)
    await door.relay.call("POST", "/v1/control/reload")
    shown = (await api("tenants.retrieve", owner)).data
    assert shown.created_at.timestamp() == pytest.approx(file.stat().st_mtime, abs=0.01)
    (own,) = (await api("tenants.credentials.list", owner)).data
    assert own.created_at == shown.created_at == own.updated_at
    await credential(door, owner)
    after = (await api("tenants.retrieve", owner)).data
    assert after.created_at == shown.created_at < after.updated_at
    again = (await api("tenants.credentials.retrieve", own.id, tenant_id=owner)).data
    assert again.model_dump(exclude_unset=True) == own.model_dump(exclude_unset=True)
    file.write_text(file.read_text().replace('"Hand"', '"Edited"'))
    assert (await api("tenants.retrieve", owner)).data.name == "Hand"
    await door.relay.call("POST", "/v1/control/reload")
    assert (await api("tenants.retrieve", owner)).data.name == "Edited"


async def test_a_folder_that_cannot_be_written_is_told_and_changes_nothing(door: ArkDoor) -> None:
    lock = door.relay.folder / "tenants" / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # which no mode keeps root from
    try:
        answer = await ask(door, "POST", "/tenants", {"name": "x"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (500, "internal_error")
        assert answer.headers["x-should-retry"] == "false"
        assert str(door.relay.folder) not in answer.text
    finally:
        lock.rmdir()
    assert (await ask(door, "POST", "/tenants", {"name": "x"})).status_code == 201


async def test_other_keys_still_see_their_own(door: ArkDoor) -> None:
    assert (await ask(door, "GET", "/tenants/other", key=OTHER_KEY)).json()["data"]["name"] == "Other Ltd"
