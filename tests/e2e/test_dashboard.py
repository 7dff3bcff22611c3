"""The dashboard by forms and links alone: who gets in, who sees what, what is refused, and what its verbs do."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from peers.arkdoor import ACME_KEY, OTHER_KEY, SMTP_KEY, ArkDoor, open_ark_door
from peers.daemon import Relay
from peers.panel import HOSTILE, Panel, Shown, attributes, fill, open_panel, pages, send

from arkrelay.config.tenants import add_key, remove_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("dashboard")) as opened:
        yield opened
        assert opened.relay.lines("page_crashed") == []
        assert opened.relay.lines("request_crashed") == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(door: ArkDoor) -> dict[str, str]:
    return await fill(door)


@pytest_asyncio.fixture(loop_scope="module")
async def panel(door: ArkDoor) -> AsyncIterator[Panel]:
    """Give a browser that is signed in with the organisation's key."""
    async with open_panel(door.bare) as opened:
        assert (await opened.sign_in(door.key)).status == 200
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def acme(door: ArkDoor) -> AsyncIterator[Panel]:
    async with open_panel(door.bare) as opened:
        await opened.sign_in(ACME_KEY)
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def other(door: ArkDoor) -> AsyncIterator[Panel]:
    async with open_panel(door.bare) as opened:
        await opened.sign_in(OTHER_KEY)
        yield opened


# who gets in


async def test_who_is_not_signed_in_is_led_to_the_form_and_back(door: ArkDoor) -> None:
    async with open_panel(door.bare) as stranger:
        shown = await stranger.get("messages?tag=orders")
        assert shown.where.startswith("/dashboard/sign-in?next=")
        back = re.search(r'name="next" value="([^"]*)"', shown.text)
        assert back is not None
        answer = await stranger.ask("POST", "sign-in", data={"key": door.key, "next": back[1]})
        assert answer.where == "/dashboard/messages?tag=orders"


async def test_the_root_leads_to_the_dashboard_and_the_api_stays(door: ArkDoor, panel: Panel) -> None:
    shown = await panel.ask("GET", f"{door.bare}/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert shown.where == "/dashboard/"
    assert (await panel.ask("GET", f"{door.bare}/")).status == 401
    assert (await panel.ask("GET", f"{door.bare}/v1/emails")).status == 401  # a cookie opens no API


@pytest.mark.parametrize("key", ["", "wrong", SMTP_KEY])
async def test_what_is_no_key_of_the_api_opens_nothing(door: ArkDoor, key: str) -> None:
    async with open_panel(door.bare) as stranger:
        shown = await stranger.sign_in(key)
        assert shown.status == (401 if key else 400)
        assert 'role="alert"' in shown.text
        assert key not in shown.text or not key
        assert (await stranger.get(follow=False)).status == 303


@pytest.mark.parametrize(
    "where", ["//evil.test/", "https://evil.test/", "/dashboard//evil.test", "/\\evil.test", "/x"]
)
async def test_signing_in_leads_nowhere_but_inside(door: ArkDoor, where: str) -> None:
    async with open_panel(door.bare) as stranger:
        answer = await stranger.ask("POST", "sign-in", data={"key": door.key, "next": where}, follow=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/dashboard/")


async def test_the_cookie_is_for_this_host_alone_and_no_script_sees_it(door: ArkDoor) -> None:
    async with open_panel(door.bare) as stranger:
        answer = await stranger.ask("POST", "sign-in", data={"key": door.key}, follow=False)
        cookie = answer.headers["Set-Cookie"]
        assert re.fullmatch(r"arkrelay=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict", cookie)
        proxied = await stranger.ask(
            "POST", "sign-in", data={"key": door.key}, headers={"X-Forwarded-Proto": "https"}, follow=False
        )
        assert proxied.headers["Set-Cookie"].startswith("__Host-arkrelay=")
        assert "Secure" in proxied.headers["Set-Cookie"]


async def test_signing_out_ends_the_session_wherever_its_cookie_is(door: ArkDoor) -> None:
    async with open_panel(door.bare) as first, open_panel(door.bare) as second:
        await first.sign_in(door.key)
        second.session.cookie_jar.update_cookies({one.key: one.value for one in first.session.cookie_jar})
        assert (await second.get("messages", follow=False)).status == 200
        await first.post("sign-out")
        assert (await second.get("messages", follow=False)).status == 303


async def test_a_session_ends_with_its_key(door: ArkDoor) -> None:
    _, key = add_key(door.relay.config, "brief")
    await door.relay.call("POST", "/v1/control/reload")
    async with open_panel(door.bare) as panel:
        await panel.sign_in(key)
        assert (await panel.get("messages", follow=False)).status == 200
        remove_key(door.relay.config, "brief")
        await door.relay.call("POST", "/v1/control/reload")
        assert (await panel.get("messages", follow=False)).status == 303


async def test_a_session_ends_when_its_key_is_put_on_hold(door: ArkDoor) -> None:
    created = (await door.api()("tenants.credentials.create", "acme", name="held-one", type="api")).data
    async with open_panel(door.bare) as panel:
        await panel.sign_in(created.key)
        assert (await panel.get("messages", follow=False)).status == 200
        await door.api()("tenants.credentials.update", str(created.id), tenant_id="acme", hold=True)
        assert (await panel.get("messages", follow=False)).status == 303
        assert (await panel.sign_in(created.key)).status == 403


async def test_on_the_control_socket_nobody_needs_a_key_under_a_name_of_this_host(door: ArkDoor) -> None:
    async with open_panel("http://localhost:8025", door.relay.socket) as panel:
        assert "Overview" in (await panel.get()).said
        assert (await panel.post("suppressions/acme/add", {"address": "local@rcpt.test"})).status == 200
    async with open_panel("http://rebound.evil.test", door.relay.socket) as panel:
        assert (await panel.get()).where.startswith("/dashboard/sign-in")
    async with open_panel("http://localhost:8025", door.relay.socket) as panel:
        shown = await panel.ask("GET", "messages", headers={"Sec-Fetch-Site": "cross-site"})
        assert shown.where.startswith("/dashboard/sign-in"), "another site asks, through a browser of this host"


async def test_the_session_of_a_local_peer_is_worth_nothing_on_tcp(door: ArkDoor) -> None:
    async with open_panel("http://localhost", door.relay.socket) as local, open_panel(door.bare) as remote:
        await local.get()
        remote.session.cookie_jar.update_cookies({one.key: one.value for one in local.session.cookie_jar})
        assert (await remote.get("messages", follow=False)).status == 303


# forms


@pytest.mark.parametrize("csrf", ["", "wrong", HOSTILE])
async def test_a_form_without_the_token_of_its_session_does_nothing(panel: Panel, csrf: str) -> None:
    shown = await panel.post("suppressions/acme/add", {"address": "csrf@rcpt.test"}, csrf=csrf)
    assert shown.status == 403
    assert "csrf@rcpt.test" not in (await panel.get("suppressions?tenant=acme")).text


async def test_a_token_is_good_for_its_own_session_only(panel: Panel, acme: Panel) -> None:
    shown = await panel.post("suppressions/acme/add", {"address": "csrf@rcpt.test"}, csrf=await acme.token())
    assert shown.status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_form_of_another_site_is_refused_also_when_it_signs_in(
    door: ArkDoor, panel: Panel, site: str
) -> None:
    headers = {"Sec-Fetch-Site": site}
    assert (await panel.post("suppressions/acme/add", {"address": "x@rcpt.test"}, **headers)).status == 403
    shown = await panel.ask("POST", "sign-in", data={"key": door.key}, headers=headers)
    assert shown.status == 403


async def test_a_body_that_is_no_form_or_too_long_is_refused(panel: Panel) -> None:
    assert (await panel.ask("POST", "suppressions/acme/add", json={"csrf": "x"})).status == 415
    assert (await panel.post("suppressions/acme/add", {"reason": "x" * 70_000})).status == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(panel: Panel, method: str) -> None:
    assert (await panel.ask(method, "messages")).status == 405


# what every page is


async def test_every_page_is_whole_guarded_and_loads_nothing_from_elsewhere(
    panel: Panel, made: dict[str, str]
) -> None:
    for path in pages(made):
        shown = await panel.get(path)
        assert shown.status == 200, path
        policy = shown.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert shown.headers["X-Content-Type-Options"] == "nosniff"
        assert shown.headers["Referrer-Policy"] == "no-referrer"
        assert shown.headers["Cache-Control"] == "no-store"
        assert "<script>alert" not in shown.text, path
        for tag, name, value in attributes(shown.text):
            assert tag not in {"img", "object", "embed", "base", "style"}, path
            assert not name.startswith("on"), path
            assert name != "style", path
            if name in {"src", "href", "action"}:
                assert value.startswith(("/dashboard/", "#", "data:,")), (path, value)


async def test_the_assets_are_kept_for_ever_under_a_name_that_changes_with_them(panel: Panel) -> None:
    page = await panel.get()
    for name in ("style.css", "script.js"):
        link = re.search(rf'"(/dashboard/{name}\?v=[0-9a-f]{{16}})"', page.text)
        assert link is not None
        assert "immutable" in (await panel.get(link[1])).headers["Cache-Control"]


async def test_no_secret_is_on_any_page(door: ArkDoor, panel: Panel, made: dict[str, str]) -> None:
    for path in pages(made):
        text = (await panel.get(path)).text
        for secret in (door.key, ACME_KEY, OTHER_KEY, SMTP_KEY):
            assert secret not in text, path


async def test_the_html_of_a_message_can_do_nothing(panel: Panel, made: dict[str, str]) -> None:
    page = await panel.get(f"messages/{made['sent']}")
    assert re.search(r"<iframe[^>]* sandbox src=", page.text)
    framed = await panel.get(f"messages/{made['sent']}/html")
    assert "<script>" in framed.text
    policy = framed.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert policy.endswith("sandbox")
    assert "script-src" not in policy
    assert re.search(r"img-src data:;", policy)


async def test_the_raw_message_is_for_saving(panel: Panel, made: dict[str, str]) -> None:
    saved = await panel.get(f"messages/{made['sent']}/raw")
    assert saved.headers["Content-Disposition"] == f'attachment; filename="{made["sent"]}.eml"'
    assert saved.headers["Content-Type"].startswith("message/rfc822")
    assert "DKIM-Signature" in saved.text or "From: Shop" in saved.text


async def test_what_is_not_there_is_a_page_that_says_so(panel: Panel) -> None:
    for path in (
        "nothing",
        "messages/none",
        "domains/acme/none.test",
        "webhooks/acme/1",
        "requests/req_none",
        "x/y/z",
    ):
        shown = await panel.get(path)
        assert (shown.status, "Not found" in shown.said) == (404, True), path


@pytest.mark.parametrize(
    "path",
    [
        "messages?status=nonsense",
        "messages?since=yesterday",
        "messages?older=x_y",
        "messages?older=nan_9",
        "messages?to=%00%ff",
        "messages?tenant=none",
        "usage?period=never",
        "events?kind=none",
        "suppressions?tenant=acme&cause=x",
        "requests?id=short",
        "suppressions?older=1e999_99999999999999999999999",
        "events?older=1_99999999999999999999999",
        "messages?since=9999-12-31T23:59&until=0001-01-01",
    ],
)
async def test_a_query_that_means_nothing_is_a_page_all_the_same(panel: Panel, path: str) -> None:
    assert (await panel.get(path)).status in {200, 400}


# who sees what


async def test_a_tenant_sees_itself_and_nothing_of_others(
    acme: Panel, other: Panel, panel: Panel, made: dict[str, str]
) -> None:
    for path in pages(made):
        if path.startswith(("messages/", "domains/", "webhooks/", "requests/")):
            assert (await acme.get(path)).status == (404 if path.startswith("requests/") else 200), path
            assert (await other.get(path)).status == 404, path
    for path in ("", "messages", "domains", "webhooks", "events", "usage", "requests", "credentials", "suppressions"):
        shown = await other.get(path)
        assert shown.status == 200
        for foreign in ("rcpt.test", "acme", "Acme", "sender.test", "shop.example.com", made["webhook"]):
            assert foreign not in shown.text, (path, foreign)
    assert (await other.get(f"messages/{made['sent']}/raw")).status == 404
    assert (await other.get(f"messages/{made['sent']}/html")).status == 404
    assert (await other.get("messages?tenant=acme")).said.count("rcpt.test") == 0
    assert (await other.get(f"search?q={made['sent']}")).where == "/dashboard/messages"


async def test_a_tenant_does_nothing_to_others(other: Panel, made: dict[str, str], door: ArkDoor) -> None:
    for path, fields in (
        (f"messages/{made['softfail']}/delete", {}),
        ("suppressions/acme/add", {"address": "foreign@rcpt.test"}),
        ("suppressions/acme/delete", {"address": "held-1@rcpt.test"}),
        ("credentials/acme/add", {"name": "foreign", "type": "api"}),
        ("domains/add", {"tenant": "acme", "name": "foreign.example"}),
        ("domains/acme/shop.example.com/delete", {}),
        ("domains/acme/shop.example.com/verify", {}),
        (f"webhooks/acme/{made['webhook']}", {"name": "foreign", "url": "https://x.test/", "which": "all"}),
        (f"webhooks/acme/{made['webhook']}/delete", {}),
        (f"webhooks/acme/{made['webhook']}/test", {"event": "MessageSent"}),
        (f"webhooks/acme/{made['webhook']}/deliveries/{made['delivery']}/replay", {}),
    ):
        assert (await other.post(path, fields)).status == 404, path
    shown = await door.relay.get(f"/v1/emails/{made['softfail']}")
    assert shown["data"]["status"] == "softfail"


# what it does


async def test_a_message_is_held_released_retried_and_deleted(door: ArkDoor, acme: Panel) -> None:
    one = await send(door, "busy-verbs@rcpt.test")
    await door.settled(door.api(), one, "softfail")
    for verb, said in (
        ("hold", "not sent until somebody releases it"),
        ("release", "Released"),
        ("retry", "Put back into the queue"),
        ("delete", "Given up"),
    ):
        if verb in {"retry", "delete"}:
            await door.settled(door.api(), one, "softfail")
        shown = await acme.post(f"messages/{one}/{verb}")
        assert shown.where == f"/dashboard/messages/{one}"
        assert said in shown.said, verb
    refused = await acme.post(f"messages/{one}/hold")
    assert "nothing to hold" in refused.said
    assert 'class="notice bad"' in refused.text
    assert (await acme.post(f"messages/{one}/explode")).status == 404


async def waiting(door: ArkDoor, *addresses: str, **more: str) -> list[str]:
    """Send mail that is deferred, to domains of the MX, and return the ids once it is."""
    for address in addresses:
        domain = address.rpartition("@")[2]
        door.dns.set(domain, "MX", f"10 mx.{domain}.")
        door.dns.set(f"mx.{domain}", "A", "127.0.0.1")
    ids = [await send(door, address, **more) for address in addresses]
    for one in ids:
        await door.settled(door.api(), one, "softfail")
    return ids


async def states(door: ArkDoor, ids: list[str]) -> list[str]:
    return [(await door.relay.get(f"/v1/emails/{one}"))["data"]["status"] for one in ids]


async def attempts(door: ArkDoor, domain: str) -> list[int]:
    found = (await door.http.get(f"/v1/queue?status=softfail,pending&domain={domain}")).json()["data"]
    return sorted(one["attempts"] for one in found if one["status"] == "softfail")


def offered(shown: Shown) -> dict[str, str]:
    """Return the verbs for all that match, with what each asks before it is done."""
    asks = re.findall(r'<details class="confirm" name="bulk">(.*?)</details>', shown.text, re.DOTALL)
    found = {}
    for one in asks:
        verb = re.search(r'<button name="verb" value="(\w+)"', one)
        assert verb is not None
        assert 'name="csrf"' in one
        found[verb[1]] = " ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split())
    return found


async def test_all_that_is_deferred_for_a_domain_is_retried_and_nothing_else(door: ArkDoor, panel: Panel) -> None:
    await waiting(door, *(f"busy-{n}@again.test" for n in range(3)), "busy-1@not-again.test")
    where = "messages?status=softfail&domain=again.test"
    asked = offered(await panel.get(where))
    assert set(asked) == {"retry", "hold", "delete"}
    assert asked["retry"].startswith("Retry 3 3 messages match. They are tried again now")
    assert "This cannot be undone." in asked["delete"]
    done = await panel.post(where, {"verb": "retry"})
    assert done.where == "/dashboard/messages?status=softfail&domain=again.test"
    assert "3 are tried again now." in done.said
    await door.until(lambda: attempts(door, "again.test"), lambda found: found == [2, 2, 2])
    assert await attempts(door, "not-again.test") == [1]


async def test_all_with_a_tag_is_held_and_released_and_deleted(door: ArkDoor, acme: Panel) -> None:
    ids = await waiting(door, "busy-1@tagged.test", "busy-2@tagged.test", tag="bulk")
    ids += await waiting(door, "busy-1@tagged.test", tag="other")
    assert set(offered(await acme.get("messages?tag=bulk"))) == {"retry", "hold", "delete"}
    assert set(offered(await acme.get("messages?tenant=acme"))) >= {"retry", "hold", "delete"}
    assert offered(await acme.get("messages?tag=bulk&domain=none.test")) == {}
    where = "messages?tag=bulk&domain=tagged.test&from=app@sender.test&since=2020-01-01"
    held = await acme.post(where, {"verb": "hold"})
    assert "2 are held: they are not sent until somebody releases them." in held.said
    assert await states(door, ids) == ["held", "held", "softfail"]
    assert set(asked := offered(held)) == {"release", "delete"}
    assert asked["release"].startswith("Release 2 2 messages match. They are sent now.")
    assert "nothing left to hold" in (await acme.post(where, {"verb": "hold"})).said
    assert "nothing left" in (await acme.post(f"{where}&until=2020-01-02", {"verb": "release"})).said
    assert "2 are released" in (await acme.post("messages?status=held&tag=bulk", {"verb": "release"})).said
    await door.until(lambda: states(door, ids), lambda found: found == ["softfail"] * 3)
    one = await acme.post("messages?status=softfail&tag=bulk&to=BUSY-2@tagged.test", {"verb": "delete"})
    assert "1 is given up: it is not sent." in one.said
    assert await states(door, ids) == ["softfail", "hardfail", "softfail"]
    failed = offered(await acme.get("messages?status=hardfail&tag=bulk"))
    assert set(failed) == {"retry"}
    assert "1 is tried again" in (await acme.post("messages?status=hardfail&tag=bulk", {"verb": "retry"})).said
    assert await states(door, ids) != ["softfail", "hardfail", "softfail"]


async def test_what_a_delivery_has_in_hand_is_left_out_and_said(door: ArkDoor, acme: Panel) -> None:
    await waiting(door, "busy-1@in-hand.test")
    one = await send(door, "slow-1@in-hand.test")
    await door.until(lambda: acme.get(f"messages/{one}"), lambda shown: "A delivery has it in hand" in shown.said)
    assert "Hold 2" in offered(await acme.get("messages?domain=in-hand.test"))["hold"]
    done = await acme.post("messages?domain=in-hand.test", {"verb": "hold"})
    assert "1 is held: it is not sent until somebody releases it." in done.said
    assert "1 is in the hands of a delivery at this moment, and was left alone." in done.said
    due = await acme.post("messages?domain=in-hand.test&status=pending", {"verb": "retry"})
    assert "What is being sent is due already" in due.said
    await door.settled(door.api(), one, "sent")


async def test_a_tenant_acts_on_its_own_whatever_tenant_it_names(door: ArkDoor, other: Panel) -> None:
    ids = await waiting(door, "busy-1@foreign.test")
    own = await send(door, "busy-1@foreign.test", **{"from": "app@other.test", "tenantId": "other"})
    for path in ("messages?tenant=acme&domain=foreign.test", "messages?tenant=&to=busy-1@foreign.test"):
        await door.until(lambda: states(door, [own]), lambda found: found in (["softfail"], ["held"], ["hardfail"]))
        await other.post(path, {"verb": "delete"})
        assert await states(door, [*ids, own]) == ["softfail", "hardfail"]
        assert offered(await other.get(path)) == {}
        for verb in ("hold", "retry", "release"):
            await other.post(path, {"verb": verb, "tenant": "acme"})
    assert await states(door, ids) == ["softfail"]


@pytest.mark.parametrize("csrf", ["", "wrong"])
async def test_nothing_is_done_to_many_without_the_token(door: ArkDoor, panel: Panel, csrf: str) -> None:
    ids = await waiting(door, f"busy-1@{'no' if csrf else 'empty'}-token.test")
    shown = await panel.post(f"messages?domain={'no' if csrf else 'empty'}-token.test", {"verb": "delete"}, csrf=csrf)
    assert shown.status == 403
    assert await states(door, ids) == ["softfail"]


async def test_a_key_that_may_not_send_retries_and_releases_nothing(door: ArkDoor) -> None:
    ids = await waiting(door, "busy-1@reader.test")
    made = (await door.api()("tenants.credentials.create", "acme", name="reader", type="api")).data
    file = door.relay.folder / "tenants" / "acme.toml"
    async with open_panel(door.bare) as panel:
        await panel.sign_in(made.key)
        token = await panel.token()
        file.write_text(file.read_text().replace('name = "reader"', 'name = "reader"\npermissions = []'))
        await door.relay.call("POST", "/v1/control/reload")
        for verb in ("retry", "release"):
            shown = await panel.post("messages?domain=reader.test", {"verb": verb})
            assert 'lacks the permission "send"' in shown.said
            assert shown.where == "/dashboard/messages?domain=reader.test"
        await door.api()("tenants.credentials.update", str(made.id), tenant_id="acme", hold=True)
        for verb in ("retry", "hold", "release", "delete"):
            shown = await panel.post("messages?domain=reader.test", {"verb": verb}, csrf=token)
            assert (shown.status, "Nothing was done" in shown.said) == (403, True)
    assert await states(door, ids) == ["softfail"]
    assert await attempts(door, "reader.test") == [1]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "Choose a state or a filter first"),
        ("?status=sent", "nothing left to delete"),
        ("?status=sent,bounced", "nothing left to delete"),
        ("?status=nonsense", "There is no state"),
        ("?status=softfail&since=yesterday", "Since is a date"),
        ("?status=softfail&tenant=none", "There is no such tenant"),
    ],
)
async def test_a_filter_that_cannot_be_acted_on_shows_no_verbs_and_does_nothing(
    door: ArkDoor, panel: Panel, made: dict[str, str], query: str, why: str
) -> None:
    ids = await waiting(door, f"busy-1@inert-{len(query)}.test")
    assert offered(await panel.get(f"messages{query}")) == {}
    refused = await panel.post(f"messages{query}", {"verb": "delete"})
    assert why in refused.said
    assert refused.where == f"/dashboard/messages{query}"
    assert await states(door, ids) == ["softfail"]
    assert (await panel.post("messages?status=softfail", {"verb": "explode"})).status == 404


async def test_the_page_of_a_message_tells_what_became_of_it(panel: Panel, made: dict[str, str]) -> None:
    shown = await panel.get(f"messages/{made['softfail']}")
    for words in ("Deferred after 1 attempt", "451 4.7.1 try again later", "What was said", "RCPT TO:"):
        assert words in shown.said
    assert HOSTILE in shown.said


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=softfail", {"busy-1"}),
        ("to=ANN-1@rcpt.test", {"ann-1"}),
        ("from=app@sender.test&status=held", {"held-1"}),
        ("tag=orders", {"ann-1", "busy-1", "nobody-1"}),
        ("domain=RCPT.test&status=hardfail", {"nobody-1"}),
        ("domain=other.test", set()),
        ("until=2000-01-01", set()),
        ("tenant=other", set()),
    ],
)
async def test_filters_find_what_they_say(panel: Panel, made: dict[str, str], query: str, found: set[str]) -> None:
    shown = await panel.get(f"messages?{query}")
    names = set(re.findall(r">((?:ann|busy|nobody|held)-1)@rcpt\.test<", shown.text))
    assert names == found


@pytest.mark.parametrize("asked", ["id", "ann-1@rcpt.test", "rcpt.test", "nonsense"])
async def test_one_field_finds_an_id_an_address_or_a_domain(panel: Panel, made: dict[str, str], asked: str) -> None:
    shown = await panel.get("search?q=" + (made["sent"] if asked == "id" else asked))
    where = {
        "id": f"/dashboard/messages/{made['sent']}",
        "ann-1@rcpt.test": "/dashboard/messages?to=ann-1@rcpt.test",
        "rcpt.test": "/dashboard/messages?domain=rcpt.test",
        "nonsense": "/dashboard/messages",
    }[asked]
    assert shown.where.replace("%40", "@") == where


async def test_a_credential_is_made_shown_once_held_and_deleted(door: ArkDoor, acme: Panel) -> None:
    shown = await acme.post("credentials/acme/add", {"name": "from-page", "type": "api"})
    key = re.search(r"ark_live_[\w-]{43}", shown.text)
    assert key is not None
    assert key[0] not in (await acme.get("credentials")).text
    one = str(
        next(c.id for c in (await door.api()("tenants.credentials.list", "acme")).data if c.name == "from-page")
    )
    assert key[0] in (await acme.post(f"credentials/acme/{one}/reveal")).text
    assert "on hold" in (await acme.post(f"credentials/acme/{one}/hold")).said
    assert "released" in (await acme.post(f"credentials/acme/{one}/hold")).said
    assert "is deleted" in (await acme.post(f"credentials/acme/{one}/delete")).said
    assert "up to 50 letters" in (await acme.post("credentials/acme/add", {"name": HOSTILE, "type": "api"})).said
    own = next(c.id for c in (await door.api()("tenants.credentials.list", "acme")).data if c.name == "rest")
    assert "cannot delete itself" in (await acme.post(f"credentials/acme/{own}/delete")).said


async def test_a_domain_is_added_checked_and_removed(acme: Panel) -> None:
    shown = await acme.post("domains/add", {"tenant": "acme", "name": "Page.Example"})
    assert shown.where == "/dashboard/domains/acme/page.example"
    for words in ("v=spf1", "v=DKIM1", "psrp", "CNAME", "not verified"):
        assert words in (await acme.post("domains/acme/page.example/verify")).said, words
    assert "already" in (await acme.post("domains/add", {"tenant": "acme", "name": "page.example"})).said
    assert "not the name of a domain" in (await acme.post("domains/add", {"tenant": "acme", "name": "x y"})).said
    assert "is removed" in (await acme.post("domains/acme/page.example/delete")).said


async def test_a_domain_shows_the_record_of_its_links(door: ArkDoor, acme: Panel) -> None:
    await acme.post("domains/add", {"tenant": "acme", "name": "links.example"})
    (domain,) = [
        one
        for one in (await door.http.get("/v1/tenants/acme/domains")).json()["data"]["domains"]
        if one["name"] == "links.example"
    ]
    made = await door.http.post(
        "/v1/tenants/acme/tracking", json={"domainId": domain["id"], "name": "go", "trackOpens": False}
    )
    assert made.status_code == 201, made.text
    shown = (await acme.get("domains/acme/links.example")).said
    said = shown.partition("Track domain")[2]
    for words in ("CNAME", "go", "track.relay.test", "It sees clicks, while this record is right"):
        assert words in said, words
    door.dns.set("go.links.example", "CNAME", "track.relay.test.")
    said = (await acme.post("domains/acme/links.example/verify")).said.partition("Track domain")[2]
    assert "as expected" in said
    assert "not all right yet" in (await acme.post("domains/acme/links.example/verify")).said  # the domain's own
    await acme.post("domains/acme/links.example/delete")


async def test_an_address_is_suppressed_looked_up_and_mailed_again(acme: Panel) -> None:
    assert "is not mailed" in (await acme.post("suppressions/acme/add", {"address": "Zoe@rcpt.test"})).said
    assert "Zoe@rcpt.test" in (await acme.get("suppressions?address=zoe@rcpt.test")).said
    assert "may be mailed again" in (await acme.post("suppressions/acme/delete", {"address": "zoe@rcpt.test"})).said
    assert "Not on the list" in (await acme.get("suppressions?address=zoe@rcpt.test")).said
    assert "not an address" in (await acme.post("suppressions/acme/add", {"address": "x"})).said


async def test_a_delivery_is_posted_again(door: ArkDoor, acme: Panel, made: dict[str, str]) -> None:
    before = len(door.receiver.posts)
    shown = await acme.post(f"webhooks/acme/{made['webhook']}/deliveries/{made['delivery']}/replay")
    assert len(door.receiver.posts) == before + 1
    assert "It answered 500" in shown.said
    assert shown.where != f"/dashboard/webhooks/acme/{made['webhook']}/deliveries/{made['delivery']}"


async def webhooks_of(door: ArkDoor, tenant: str = "acme") -> dict[str, dict[str, object]]:
    """Return a tenant's webhooks by their names, as REST has them."""
    listed = (await door.http.get(f"/v1/tenants/{tenant}/webhooks")).json()["data"]["webhooks"]
    return {one["name"]: {key: one[key] for key in ("id", "url", "events", "allEvents", "enabled")} for one in listed}


def hook_fields(name: str, url: str, *events: str, enabled: bool = True, **more: str) -> dict[str, str]:
    """Return what the form of a webhook sends; without ``events``: all."""
    chosen = {f"event-{one}": "on" for one in events}
    switch = {"enabled": "on"} if enabled else {}
    return {"name": name, "url": url, "which": "some" if events else "all", **chosen, **switch, **more}


def typed(shown: Shown) -> dict[str, str]:
    """Return what stands in the form of a webhook on a page: what it would send, were its button pressed."""
    form = re.search(r'<form class="card settings".*?</form>', shown.text, re.DOTALL)
    assert form is not None, shown.said
    fields: dict[str, str] = {}
    for tag in re.findall(r"<(?:input|option) [^>]*>", form[0]):
        found = {name: value for _, name, value in attributes(tag)}
        if found.get("type") in {"radio", "checkbox"} and "checked" not in found:
            continue
        if tag.startswith("<option"):
            fields |= {"owner": found["value"]} if "selected" in found else {}
        elif found["name"] != "csrf":
            fields[found["name"]] = found.get("value", "")
    return fields


async def test_a_webhook_is_made_changed_disabled_and_deleted(door: ArkDoor, acme: Panel) -> None:
    url = door.receiver.url("page")
    shown = await acme.post("webhooks", hook_fields("From a page", url, "MessageSent", "MessageHeld"))
    made = (await webhooks_of(door))["From a page"]
    assert made == {
        "id": made["id"], "url": url, "events": ["MessageSent", "MessageHeld"], "allEvents": False, "enabled": True,
    }  # fmt: skip
    where = f"webhooks/acme/{made['id']}"
    assert (shown.status, shown.where) == (200, f"/dashboard/{where}")
    assert "is made" in shown.said
    assert typed(shown) == hook_fields("From a page", url, "MessageSent", "MessageHeld")
    # what it takes it gets, signed by the key that is published
    await door.settled(door.api(), await send(door, "ann-hooked@rcpt.test"), "sent")
    (post,) = await door.until(lambda: asyncio.sleep(0, door.receiver.at(url)), bool)
    assert post.json["event"] == "MessageSent"
    keys = (await door.http.get("/.well-known/jwks.json")).json()["keys"]
    assert post.headers["X-Ark-Signature-KID"] in {one["kid"] for one in keys}

    moved = door.receiver.url("moved")
    assert "is changed" in (await acme.post(where, hook_fields("Moved", moved))).said
    assert (await webhooks_of(door))["Moved"] == {
        "id": made["id"], "url": moved, "events": [], "allEvents": True, "enabled": True,
    }  # fmt: skip
    assert "disabled" in (await acme.post(where, hook_fields("Moved", moved, enabled=False))).said
    assert not (await webhooks_of(door))["Moved"]["enabled"]
    assert "nothing was changed" in (await acme.post(where, hook_fields("Moved", moved, enabled=False))).said

    page = await acme.get(where)
    confirm = re.search(r'<details class="confirm">.*?</details>', page.text, re.DOTALL)
    assert confirm is not None, "the first press asks, and needs no script"
    assert f'action="/dashboard/{where}/delete"' in confirm[0]
    gone = await acme.post(f"{where}/delete")
    assert (gone.where, "is deleted" in gone.said) == ("/dashboard/webhooks?tenant=acme", True)
    assert "Moved" not in await webhooks_of(door)
    assert (await acme.get(where)).status == 404
    assert len(door.receiver.at(url)) == 1


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"name": ""}, "name", "Name: is empty"),
        ({"name": "x" * 1001}, "name", "Name: is longer than 1000"),
        ({"name": "a\x07b"}, "name", "Name: "),
        ({"url": ""}, "url", "URL: expected https://host"),
        ({"url": "https://user:word@hook.test/"}, "url", "user name or password"),
        ({"url": "https://169.254.169.254/latest"}, "url", "may not be posted to"),
        ({"url": "https://0x7f000001/"}, "url", "URL: "),
        ({"url": "https://8.8.8.8:25/"}, "url", "port 25"),
        ({"url": f"https://hook.test/{HOSTILE}"}, "url", "percent-encode"),
        ({"which": "some"}, "events", "Events: choose one or more"),
        ({"which": "some", "event-SendLimitExceeded": "on"}, "events", "Events: choose one or more"),
    ],
)
async def test_what_a_webhook_cannot_be_is_said_at_its_field_and_the_rest_is_kept(
    door: ArkDoor, acme: Panel, made: dict[str, str], change: dict[str, str], field: str, said: str
) -> None:
    before = await webhooks_of(door)
    fields = hook_fields("Kept", door.receiver.url("kept") + "?token=sesame", enabled=False) | change
    shown = await acme.post("webhooks", fields)
    assert (shown.status, shown.where) == (400, "/dashboard/webhooks")
    assert said in shown.said
    assert "<script>alert" not in shown.text
    sent = {name: value for name, value in fields.items() if name != "event-SendLimitExceeded"}
    assert typed(shown) == {**sent, "owner": "acme"}
    faulty = re.findall(r'<(?:input|fieldset)[^>]* aria-describedby="hook-problem"[^>]*>', shown.text)
    assert len(faulty) == 1
    assert f'name="{field}"' in faulty[0] or (field, faulty[0][:9]) == ("events", "<fieldset")
    assert await webhooks_of(door) == before

    one = next(one["id"] for one in before.values())
    shown = await acme.post(f"webhooks/acme/{one}", fields)
    assert (shown.status, shown.where) == (400, f"/dashboard/webhooks/acme/{one}")
    assert said in shown.said
    assert typed(shown) == sent
    assert '<details class="change" id="change" open>' in shown.text
    assert await webhooks_of(door) == before
    assert not [line for line in door.relay.lines("") if "sesame" in str(line)]


@pytest.mark.parametrize("csrf", ["", "wrong"])
async def test_no_webhook_is_made_changed_or_deleted_without_the_token(
    door: ArkDoor, panel: Panel, made: dict[str, str], csrf: str
) -> None:
    before = await webhooks_of(door)
    fields = hook_fields("Forged", door.receiver.url("forged"), owner="acme")
    where = f"webhooks/acme/{made['webhook']}"
    for path in ("webhooks", where, f"{where}/delete"):
        assert (await panel.post(path, fields, csrf=csrf)).status == 403, path
    assert await webhooks_of(door) == before


async def test_a_tenants_webhook_is_its_own_whatever_the_form_says(door: ArkDoor, other: Panel) -> None:
    for owner in ("acme", "platform", ""):
        name = f"For {owner or 'nobody'}"
        shown = await other.post("webhooks", hook_fields(name, door.receiver.url("own"), owner=owner))
        mine = (await webhooks_of(door, "other"))[name]
        assert shown.where == f"/dashboard/webhooks/other/{mine['id']}"
        assert name not in await webhooks_of(door)
        assert (await other.post(f"webhooks/other/{mine['id']}/delete")).status == 200
    assert (await other.post("webhooks/platform/pwh_0", hook_fields("x", door.receiver.url("own")))).status == 404
    assert (await door.http.get("/v1/platform/webhooks")).json()["data"] == []


async def test_an_organisation_makes_webhooks_of_the_tenant_that_the_page_shows_and_of_all(
    door: ArkDoor, panel: Panel
) -> None:
    page = await panel.get("webhooks?tenant=other")
    assert typed(page)["owner"] == "other"
    assert "orders/500" not in page.text, "another tenant's"
    refused = await panel.post("webhooks?tenant=other", hook_fields("Ours", "ftp://x/", owner="other"))
    assert (refused.status, refused.where, typed(refused)["owner"]) == (
        400,
        "/dashboard/webhooks?tenant=other",
        "other",
    )
    for owner in ("other", "platform"):
        url = door.receiver.url(f"{owner}-page")
        shown = await panel.post("webhooks", hook_fields(f"Ours {owner}", url, "MessageBounced", owner=owner))
        assert re.fullmatch(rf"/dashboard/webhooks/{owner}/\w+", shown.where), shown.said
        assert "MessageBounced" in shown.said
        assert "is changed" in (await panel.post(shown.where, hook_fields("Renamed", url))).said
        assert "Renamed" in (await panel.get("webhooks")).said
        gone = await panel.post(f"{shown.where}/delete")
        assert gone.where == "/dashboard/webhooks" + ("?tenant=other" if owner == "other" else "")
    for owner in ("", "none"):
        assert (await panel.post("webhooks", hook_fields("x", door.receiver.url("x"), owner=owner))).status == 404


async def test_webhooks_of_a_file_that_is_changed_by_hand_are_read_and_not_changed(
    door: ArkDoor, panel: Panel
) -> None:
    file = door.relay.folder / "tenants" / "manual.toml"
    url = door.receiver.url("manual")
    file.write_text(f'name = "Manual"\nmanaged = "file"\n[[webhooks]]\nname = "Hand"\nurl = "{url}"\nid = "77"\n')
    file.chmod(0o600)
    await door.relay.call("POST", "/v1/control/reload")
    content = file.read_bytes()
    try:
        for path in ("webhooks?tenant=manual", "webhooks/manual/77"):
            shown = await panel.get(path)
            assert 'managed = "file"' in shown.said, path
            assert "card settings" not in shown.text
            assert "/delete" not in shown.text
        assert 'value="manual"' not in re.sub(
            r'(?s)<form class="choose".*?</form>', "", (await panel.get("webhooks")).text
        )
        made = await panel.post("webhooks?tenant=manual", hook_fields("x", url, owner="manual"))
        assert (made.status, 'managed = "file"' in made.said) == (400, True)
        changed = await panel.post("webhooks/manual/77", hook_fields("x", url))
        assert (changed.status, "is changed by hand" in changed.said) == (400, True)
        gone = await panel.post("webhooks/manual/77/delete")
        assert (gone.where, "is changed by hand" in gone.said) == ("/dashboard/webhooks/manual/77", True)
        assert file.read_bytes() == content
        assert "answered 204" in (await panel.post("webhooks/manual/77/test", {"event": "MessageSent"})).said
    finally:
        file.unlink()
        await door.relay.call("POST", "/v1/control/reload")


async def test_a_webhook_that_its_endpoint_disabled_is_enabled_again_by_a_person(door: ArkDoor, acme: Panel) -> None:
    url = door.receiver.url("gone", 410)
    where = (await acme.post("webhooks", hook_fields("Gone", url, "MessageSent"))).where
    await send(door, "ann-gone@rcpt.test")
    await door.until(lambda: acme.get(where), lambda shown: "410 Gone" in shown.said)
    assert typed(await acme.get(where)) == hook_fields("Gone", url, "MessageSent", enabled=False)
    # a name that changes meanwhile, and another URL, do not enable it: nobody ticked that
    await acme.post(where, hook_fields("Gone still", url, "MessageSent", enabled=False))
    assert "410 Gone" in (await acme.get(where)).said
    assert "410 Gone" not in (await acme.post(where, hook_fields("Gone", url, "MessageSent"))).said
    assert (await webhooks_of(door))["Gone"]["enabled"]
    await send(door, "ann-gone-again@rcpt.test")
    await door.until(lambda: acme.get(where), lambda shown: "410 Gone" in shown.said)
    await acme.post(where, hook_fields("Gone", door.receiver.url("gone"), "MessageSent", enabled=False))
    assert not (await webhooks_of(door))["Gone"]["enabled"]
    await acme.post(f"{where}/delete")


@pytest.mark.parametrize(
    ("path", "fields", "back"),
    [
        ("suppressions/other/add", {"address": "x"}, "suppressions?tenant=other"),
        ("credentials/other/add", {"name": "a b", "type": "api"}, "credentials?tenant=other"),
        ("domains/other/other.test/delete", {}, "domains/other/other.test"),
    ],
)
async def test_a_refused_verb_stays_on_the_page_of_its_tenant(
    door: ArkDoor, panel: Panel, path: str, fields: dict[str, str], back: str
) -> None:
    file = door.relay.folder / "tenants" / "other.toml"
    before = file.read_text()
    file.write_text('managed = "file"\n' + before)
    await door.relay.call("POST", "/v1/control/reload")
    try:
        shown = await panel.post(path, fields)
    finally:
        file.write_text(before)
        await door.relay.call("POST", "/v1/control/reload")
    assert 'class="notice bad"' in shown.text
    assert shown.where == f"/dashboard/{back}"
    assert "Other Ltd" in shown.said


async def test_events_come_as_they_happen(door: ArkDoor, acme: Panel, other: Panel) -> None:
    page = await acme.get("events")
    stream = re.search(r'data-events="([^"]+)"', page.text)
    assert stream is not None
    url = f"{door.bare}{stream[1]}"
    async with (
        acme.session.get(url) as events,
        other.session.get(f"{door.bare}/dashboard/events/stream?after=0") as foreign,
    ):
        assert events.content_type == "text/event-stream"
        await acme.post("suppressions/acme/add", {"address": "live@rcpt.test"})
        async with asyncio.timeout(WAIT_S):
            while b"live@rcpt.test" not in (line := await events.content.readline()):
                assert line
        await other.post("suppressions/other/add", {"address": "own@elsewhere.example"})
        async with asyncio.timeout(WAIT_S):
            while b"own@elsewhere.example" not in (line := await foreign.content.readline()):
                assert line
                assert b"live@rcpt.test" not in line
        await acme.post("sign-out")
        await door.api()("tenants.suppressions.create", "acme", address="later@rcpt.test")
        async with asyncio.timeout(WAIT_S):
            while line := await events.content.readline():
                assert b"later@rcpt.test" not in line


async def test_a_stream_without_a_session_is_refused(door: ArkDoor) -> None:
    async with open_panel(door.bare) as stranger:
        assert (await stranger.get("events/stream", follow=False)).status == 403


async def test_a_page_turns_where_the_last_one_ended(door: ArkDoor, panel: Panel) -> None:
    for number in range(0, 120, 40):
        mails = [
            {"to": [f"page{number + n}@rcpt.test"], "subject": f"Page {number + n}", "text": "x"} for n in range(40)
        ]
        answer = await door.http.post(
            "/v1/emails/batch", json={"from": "app@sender.test", "emails": mails, "tenantId": "acme"}
        )
        assert answer.status_code == 200, answer.text
    seen: list[str] = []
    path = "messages?from=app@sender.test&tenant=acme"
    for _ in range(10):
        shown = await panel.get(path)
        seen += re.findall(r">(page\d+@rcpt\.test)</a>", shown.text)
        older = [one for one in shown.links("/dashboard/messages?") if "older=" in one]
        if not older:
            break
        path = older[0]
    assert len(seen) == len(set(seen)) == 120


async def test_the_theme_is_kept_in_a_cookie(door: ArkDoor, panel: Panel) -> None:
    assert 'data-theme="auto"' in (await panel.get()).text
    await panel.post("theme", {"theme": "dark", "next": "/dashboard/usage"})
    assert 'data-theme="dark"' in (await panel.get()).text
    await panel.post("theme", {"theme": HOSTILE})
    assert 'data-theme="dark"' in (await panel.get()).text


async def test_a_listener_that_does_not_serve_it_knows_no_dashboard(tmp_path: Path) -> None:
    more = '[[listen]]\nservice = "http"\naddress = "127.0.0.1:0"\nserve = ["api"]\n'
    async with Relay(tmp_path, more=more) as relay:
        bound = [one["address"] for one in relay.listeners if one["service"] == "http"]
        shown, hidden = (address for address in bound if not address.startswith("unix:"))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{shown}/dashboard/sign-in") as answer:
                assert answer.status == 200
            for path in ("/", "/dashboard/", "/dashboard/sign-in", "/dashboard/style.css"):
                async with session.get(f"http://{hidden}{path}") as answer:
                    assert answer.status == 401, path


async def test_who_guesses_is_not_listened_to_for_a_while(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_ark_door(tmp_path_factory.mktemp("guesses")) as door:
        text = door.relay.config.read_text()
        door.relay.config.write_text(text.replace("[limits]\n", "[limits]\ntrusted_addresses = []\n"))
        await door.relay.call("POST", "/v1/control/reload")
        async with open_panel(door.bare) as stranger:
            for _ in range(30):
                assert (await stranger.sign_in("wrong")).status == 401
            assert (await stranger.sign_in(door.key)).status == 429
            answer = await door.http.get("/v1/emails")
            assert answer.status_code == 429, "the API counts with it"


async def test_the_doctors_findings_are_a_page_and_the_grave_ones_want_attention(
    door: ArkDoor, panel: Panel, acme: Panel, made: dict[str, str]
) -> None:
    shown = await panel.post("doctor/look")
    assert shown.where == "/dashboard/doctor"
    found = (await door.http.get("/v1/doctor")).json()["data"]
    assert [one for one in found["findings"] if one["level"] == "fail"]
    for one in found["findings"]:
        assert one["found"].split("\n")[0] in shown.said
    assert "spf shop.example.com" in shown.said
    assert "/dashboard/doctor" in (await panel.get()).links("/dashboard/doctor")
    own = await acme.get("doctor")
    assert "spf shop.example.com" in own.said
    assert "other.test" not in own.text, "another tenant's domain"
    assert "disk " not in own.said, "the machine is the organisation's"
    assert (await acme.post("doctor/look")).status == 404
