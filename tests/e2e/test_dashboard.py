"""The dashboard by forms and links alone: who gets in, who sees what, what is refused, and what its verbs do."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from peers.arkdoor import ACME_KEY, OTHER_KEY, SMTP_KEY, ArkDoor, open_ark_door
from peers.daemon import Relay
from peers.panel import HOSTILE, Panel, attributes, fill, open_panel, pages, send

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
