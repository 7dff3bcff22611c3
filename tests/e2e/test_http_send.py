"""Emails by REST from their parts: what arrives, what is refused, batches, keys and limits."""

import base64
import email.policy
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
import pytest_asyncio
from ark import AsyncArk
from peers.mx import Received
from peers.office import assert_clean, lines, parse
from peers.restdoor import (
    ACME_KEY,
    GONE_KEY,
    HELD_KEY,
    OTHER_KEY,
    SMTP_KEY,
    TEST_KEY,
    Answer,
    RestDoor,
    open_rest_door,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITED_KEY, QUIET_KEY, ORG_TEST_KEY = (
    "ark_live_limited-0123456789",
    "ark_live_quiet-0123456789",
    "ark_test_org-0123456789",
)
LIMITED = f"""
name = "Limited"
[limits]
hourly = 4
[[credentials]]
name = "rest"
type = "api"
secret = "{LIMITED_KEY}"
[[credentials]]
name = "quiet"
type = "api"
secret = "{QUIET_KEY}"
permissions = []
[[domains]]
name = "limited.test"
trusted = true
[[domains]]
name = "unverified.test"
"""
PNG = bytes.fromhex("89504e470d0a1a0a") + bytes(range(256)) * 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("send")) as opened:
        tenant = opened.relay.folder / "tenants" / "limited.toml"
        tenant.write_text(LIMITED)
        tenant.chmod(0o600)
        platform = opened.relay.folder / "platform.toml"
        platform.write_text(platform.read_text() + f'[[keys]]\nname = "test"\nsecret = "{ORG_TEST_KEY}"\n')
        await opened.relay.call("POST", "/v1/control/reload")
        yield opened


async def send(door: RestDoor, to: str | list[str], /, *, key: str = ACME_KEY, **fields: Any) -> Answer:
    """Send an email with these fields instead of the usual ones."""
    usual = {"from": "App <app@sender.test>", "to": to, "subject": "Hello", "text": "Hello.\n"}
    return await door.ask("POST", "/v1/emails", usual | fields, key=key)


async def batch(door: RestDoor, emails: Any, /, *, key: str = ACME_KEY, **fields: Any) -> Answer:
    return await door.ask("POST", "/v1/emails/batch", {"from": "app@sender.test", "emails": emails} | fields, key=key)


async def arrived(door: RestDoor, recipient: str) -> Received:
    """Return the message that the MX took for this recipient."""
    while True:
        seen = len(door.mx.messages)
        for received in door.mx.messages:
            if recipient in received.recipients:
                return received
        await door.mx.wait(seen + 1, 30.0)


async def test_an_email_of_every_part_arrives_as_it_was_written(door: RestDoor) -> None:
    fields: dict[str, Any] = {
        "from": '"Müller, Söhne & Co." <app@sender.test>',
        "subject": "Grüße aus Zürich 😀: 50 % off",
        "html": "<p>Grüße, <b>fett</b></p>\n",
        "text": "Guten Tag,\n.\n..Punkt\nnaïve ✓\n",
        "cc": ["Carl <carl@rcpt.test>"],
        "bcc": ["bea@rcpt.test", "ann@rcpt.test"],
        "replyTo": "Hilfe <help@sender.test>",
        "headers": {"X-Order": "Nr. 17 ü", "List-Unsubscribe": "<https://sender.test/u>", "X-Ark-Track": "x"},
        "attachments": [
            {"content": base64.b64encode(PNG).decode(), "contentType": "image/png", "filename": "Bild ü.png"},
            {"content": base64.encodebytes(b"a,b\n").decode(), "contentType": "text/csv", "filename": "x.csv"},
        ],
        "tag": "welcome",
        "metadata": {"order": "A-17", "user": "Zoë"},
    }
    answer = await send(door, ["Zoë <zoe@rcpt.test>", "ann@rcpt.test"], **fields)
    assert answer.status == 200, answer.text
    data = answer.data
    assert data["to"] == ["Zoë <zoe@rcpt.test>", "ann@rcpt.test"]
    assert (data["tenantId"], data["status"], data["id"]) == ("acme", "pending", data["ids"][0])
    assert set(data) == {"id", "ids", "tenantId", "status", "to", "messageId"}
    shown = [(await door.ask("GET", f"/v1/emails/{id_}")).data for id_ in data["ids"]]
    assert [one["to"] for one in shown] == ["zoe@rcpt.test", "ann@rcpt.test", "carl@rcpt.test", "bea@rcpt.test"]
    for one in shown:
        assert (one["tag"], one["metadata"]) == ("welcome", {"order": "A-17", "user": "Zoë"})
        assert (one["subject"], one["from"]) == ("Grüße aus Zürich 😀: 50 % off", "app@sender.test")
        assert one["messageId"] == data["messageId"]
    for to in ("zoe", "ann", "carl", "bea"):
        received = await arrived(door, f"{to}@rcpt.test")
        assert_clean(received.content)
        message = parse(received.content)
        check(message)
        assert message["Message-ID"] == data["messageId"]
        assert b"bea@" not in received.content
        assert b"A-17" not in received.content
    assert sum("ann@rcpt.test" in one.recipients for one in door.mx.messages) == 1


def check(message: EmailMessage) -> None:
    assert message["Subject"] == "Grüße aus Zürich 😀: 50 % off"
    assert [(one.display_name, one.addr_spec) for one in message["From"].addresses] == [
        ("Müller, Söhne & Co.", "app@sender.test")
    ]
    assert [one.addr_spec for one in message["To"].addresses] == ["zoe@rcpt.test", "ann@rcpt.test"]
    assert [one.addr_spec for one in message["Cc"].addresses] == ["carl@rcpt.test"]
    assert [one.addr_spec for one in message["Reply-To"].addresses] == ["help@sender.test"]
    assert message["X-Order"] == "Nr. 17 ü"
    assert message["List-Unsubscribe"] == "<https://sender.test/u>"
    assert lines(message, "plain") == ["Guten Tag,", ".", "..Punkt", "naïve ✓"]
    assert lines(message, "html") == ["<p>Grüße, <b>fett</b></p>"]
    picture, table = message.iter_attachments()
    assert (picture.get_content_type(), picture.get_filename()) == ("image/png", "Bild ü.png")
    assert picture.get_content() == PNG
    assert (table.get_filename(), table.get_payload(decode=True)) == ("x.csv", b"a,b\n")


async def test_html_alone_gets_a_text(door: RestDoor) -> None:
    html = "<h1>Hi</h1>" + "<p>Some <b>words</b> of it.</p>\n" * 200
    answer = await send(door, "html@rcpt.test", text=None, html=html)
    assert answer.status == 200
    message = parse((await arrived(door, "html@rcpt.test")).content)
    assert message.get_content_type() == "multipart/alternative"
    assert lines(message, "plain")[0] == "# Hi"
    assert "Some **words** of it." in lines(message, "plain")
    assert_clean((await arrived(door, "html@rcpt.test")).content)


async def test_ten_megabytes_arrive(door: RestDoor) -> None:
    data = bytes(range(256)) * 39_000
    file = {"content": base64.b64encode(data).decode(), "contentType": "application/x-thing", "filename": "big.bin"}
    answer = await send(door, "big@rcpt.test", attachments=[file])
    assert answer.status == 200, answer.text
    received = await arrived(door, "big@rcpt.test")
    (attached,) = parse(received.content).iter_attachments()
    assert attached.get_payload(decode=True) == data
    assert_clean(received.content)


async def test_a_control_header_does_what_it_does_by_smtp_and_the_field_wins(door: RestDoor) -> None:
    headers = {"X-Ark-Tag": "by-header", "X-PM-Metadata-Order": "A-18", "X-Ark-Metadata-bad key": "x"}
    refused = await send(door, "control@rcpt.test", headers=headers)
    assert (refused.status, refused.field) == (400, "headers.X-Ark-Metadata-bad key")
    del headers["X-Ark-Metadata-bad key"]
    id_ = (await send(door, "control@rcpt.test", headers=headers)).data["id"]
    shown = (await door.ask("GET", f"/v1/emails/{id_}")).data
    assert (shown["tag"], shown["metadata"]) == ("by-header", {"Order": "A-18"})
    id_ = (await send(door, "control2@rcpt.test", headers=headers, tag="by-field", metadata={"a": "b"})).data["id"]
    shown = (await door.ask("GET", f"/v1/emails/{id_}")).data
    assert (shown["tag"], shown["metadata"]) == ("by-field", {"a": "b"})
    for to in ("control@rcpt.test", "control2@rcpt.test"):
        assert_clean((await arrived(door, to)).content)


async def test_a_suppressed_recipient_is_accepted_and_held(door: RestDoor) -> None:
    await door.ask("POST", "/v1/tenants/acme/suppressions", {"address": "supp@rcpt.test"})
    answer = await send(door, ["supp@rcpt.test", "well@rcpt.test"])
    assert answer.status == 200
    held, sent = answer.data["ids"]
    assert (await door.ask("GET", f"/v1/emails/{held}")).data["status"] == "held"
    await door.relay.until(f"/v1/emails/{sent}", lambda shown: shown["data"]["status"] == "sent")
    assert (await arrived(door, "well@rcpt.test")).recipients == ["well@rcpt.test"]


async def test_an_expiry_is_kept(door: RestDoor) -> None:
    id_ = (await send(door, "late@nowhere.test", expiresAt="2038-01-01T00:00:00Z")).data["id"]
    assert (await door.ask("GET", f"/v1/emails/{id_}")).status == 200
    row = await door.ask("GET", f"/v1/emails/{id_}?expand=raw")
    assert b"2038" not in base64.b64decode(row.data["rawMessage"])


@pytest.mark.parametrize(
    ("fields", "status", "code", "field"),
    [
        ({"from": "app@other.test"}, 422, "domain_not_verified", "from"),
        ({"from": "app@sub.sender.test"}, 422, "domain_not_verified", "from"),
        ({"from": "App"}, 400, "invalid_email_format", "from"),
        ({"to": ["ann@rcpt.test", "bob"]}, 400, "invalid_email_format", "to[1]"),
        ({"to": []}, 400, "validation_error", "to"),
        ({"cc": ["x@rcpt.test"] * 51}, 400, "validation_error", "cc"),
        ({"subject": None}, 400, "validation_error", "subject"),
        ({"subject": "x\r\nBcc: a@b.test"}, 400, "validation_error", "subject"),
        ({"text": None}, 400, "missing_required_field", "html"),
        ({"headers": {"Sender": "ceo@bank.test"}}, 400, "validation_error", "headers.Sender"),
        ({"headers": {"X-A": "b\r\nBcc: a@b.test"}}, 400, "validation_error", "headers.X-A"),
        ({"metadata": {"not-a-key": "x"}}, 400, "validation_error", "metadata.not-a-key"),
        ({"metadata": {"foo": "a\nb"}}, 400, "validation_error", "metadata.foo"),
        ({"replyTo": "x"}, 400, "invalid_email_format", "replyTo"),
        (
            {"attachments": [{"content": "QQ==", "contentType": "multipart/mixed", "filename": "x"}]},
            400,
            "validation_error",
            "attachments[0].contentType",
        ),
        (
            {"attachments": [{"content": "A" * 12_000_000, "contentType": "a/b", "filename": "x"}] * 2},
            413,
            "payload_too_large",
            None,
        ),
        ({"html": "x" * 26_000_000}, 413, "payload_too_large", None),
        ({"expiresAt": "yesterday"}, 400, "validation_error", "expiresAt"),
        ({"expiresAt": 1}, 400, "validation_error", "expiresAt"),
        ({"tenantId": "nobody"}, 403, "tenant_mismatch", "tenantId"),
    ],
)
async def test_what_is_not_allowed_is_refused_by_name(
    door: RestDoor, fields: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    before = (await door.ask("GET", "/v1/emails")).body["total"]
    answer = await send(door, "never@held.test", **fields)
    assert (answer.status, answer.code, answer.field) == (status, code, field), answer.text
    assert (await door.ask("GET", "/v1/emails")).body["total"] == before


@pytest.mark.parametrize("path", ["/v1/emails", "/v1/emails/batch"])
@pytest.mark.parametrize(
    ("key", "fields", "status", "code"),
    [
        (ACME_KEY, {"tenantId": "other"}, 403, "tenant_mismatch"),
        (HELD_KEY, {}, 403, "credential_on_hold"),
        (GONE_KEY, {}, 403, "tenant_suspended"),
        (QUIET_KEY, {}, 403, "permission_denied"),
        (OTHER_KEY, {}, 422, "domain_not_verified"),
        (LIMITED_KEY, {"from": "app@unverified.test"}, 422, "domain_not_verified"),
        (SMTP_KEY, {}, 401, "invalid_api_key"),
        ("", {"tenantId": "gone"}, 403, "tenant_suspended"),
        ("", {"tenantId": "nobody"}, 422, "validation_error"),
        ("", {"tenantId": "other"}, 422, "domain_not_verified"),
    ],
)
async def test_a_key_sends_for_its_tenant_and_only_if_it_may(
    door: RestDoor, path: str, key: str, fields: dict[str, Any], status: int, code: str
) -> None:
    one = {"to": ["never@held.test"], "subject": "Hello", "text": "Hello."}
    body = {"from": "app@sender.test", **(one if path == "/v1/emails" else {"emails": [one]}), **fields}
    answer = await door.ask("POST", path, body, key=key)
    assert (answer.status, answer.code) == (status, code), answer.text


async def test_an_organisation_key_sends_for_the_tenant_that_it_names_or_the_first(door: RestDoor) -> None:
    named = await send(door, "org@held.test", key="", tenantId="other", **{"from": "app@other.test"})
    assert (named.status, named.data["tenantId"]) == (200, "other")
    default = await send(door, "org@held.test", key="")
    assert (default.status, default.data["tenantId"]) == (200, "acme")
    assert "X-SendLimit-Limit" not in default.headers
    assert int(default.headers["X-SendLimit-Reset"]) % 3600 == 0


@pytest.mark.parametrize("key", [TEST_KEY, ORG_TEST_KEY], ids=["tenant", "organisation"])
async def test_a_test_key_sends_nothing_and_all_looks_sent(door: RestDoor, key: str) -> None:
    to = f"nothing{len(key)}@rcpt.test"
    before = (await door.ask("GET", "/v1/limits", key=ACME_KEY)).data["sendLimit"]["used"]
    single = await send(door, to, key=key, cc=[f"cc-{to}"])
    many = await batch(door, [{"to": [f"batch-{to}"], "subject": "x", "text": "x"}], key=key)
    raw = await door.send(f"raw-{to}", key=key)
    ids = [*single.data["ids"], many.data["messages"][f"batch-{to}"]["id"], *raw.data["ids"]]
    for id_ in ids:
        await door.relay.until(f"/v1/emails/{id_}", lambda shown: shown["data"]["status"] == "sent")
    after = (await door.ask("GET", "/v1/limits", key=ACME_KEY)).data["sendLimit"]["used"]
    assert after == before
    assert [one.recipients for one in door.mx.messages if any(to in address for address in one.recipients)] == []


async def test_over_the_hourly_limit_mail_is_accepted_and_held(door: RestDoor) -> None:
    fields = {"from": "app@limited.test", "key": LIMITED_KEY}
    first = await send(door, ["a@nowhere.test", "b@nowhere.test", "c@nowhere.test"], **fields)
    assert first.status == 200, first.text
    told = {name: first.headers[f"X-SendLimit-{name}"] for name in ("Limit", "Remaining", "Used")}
    assert told == {"Limit": "4", "Remaining": "1", "Used": "3"}
    over = await send(door, ["d@nowhere.test", "e@nowhere.test"], **fields)
    assert over.status == 200
    assert (await door.ask("GET", f"/v1/emails/{over.data['id']}")).data["status"] == "held"
    assert over.headers["X-SendLimit-Remaining"] == "1"


async def test_a_batch_fails_one_by_one(door: RestDoor) -> None:
    good = {"subject": "Hello", "text": "Hello."}
    answer = await batch(
        door,
        [
            {**good, "to": ["b1@rcpt.test", "B2 <b2@RCPT.test>"], "tag": "one", "metadata": {"n": "1"}},
            {**good, "to": ["nobody"]},
            {**good, "to": "b3@rcpt.test", "from": "Two <two@sender.test>"},
            {**good, "to": ["b4@rcpt.test"], "from": "app@other.test"},
            {**good, "to": ["b5@rcpt.test"], "text": None},
            {**good, "to": ["b6@rcpt.test"], "subject": ""},
            {**good, "to": ["b7@rcpt.test"], "metadata": {"not-a-key": "x"}},
            {**good, "to": ["x@rcpt.test"] * 51},
            {**good, "to": []},
            {**good, "to": ["b1@rcpt.test"], "subject": "Later"},
            {**good, "to": ["b3@rcpt.test"], "subject": "x\r\nBcc: y@rcpt.test"},
        ],
    )
    assert answer.status == 207, answer.text
    data = answer.data
    assert (answer.body["success"], data["total"], data["accepted"], data["failed"]) == (True, 11, 3, 8)
    messages = data["messages"]
    failed = {address: one["error"] for address, one in messages.items() if "error" in one}
    assert set(failed) == {"nobody", "b4@rcpt.test", "b5@rcpt.test", "b6@rcpt.test", "b7@rcpt.test", "x@rcpt.test"}
    assert all(messages[address]["id"] == "" for address in failed)
    for address, words in (
        ("nobody", "to[0]"),
        ("b4@rcpt.test", "other.test"),
        ("b5@rcpt.test", "html or text"),
        ("b6@rcpt.test", "subject"),
        ("b7@rcpt.test", "metadata.not-a-key"),
    ):
        assert words in failed[address]
    assert set(messages) - set(failed) == {"b1@rcpt.test", "b2@rcpt.test", "b3@rcpt.test"}
    shown = {
        name: (await door.ask("GET", f"/v1/emails/{messages[name]['id']}")).data
        for name in messages
        if name[:1] == "b" and messages[name]["id"]
    }
    assert shown["b1@rcpt.test"]["subject"] == "Later"
    assert (shown["b2@rcpt.test"]["tag"], shown["b2@rcpt.test"]["metadata"]) == ("one", {"n": "1"})
    assert shown["b3@rcpt.test"]["from"] == "two@sender.test"
    message = parse((await arrived(door, "b3@rcpt.test")).content)
    assert message["From"] == "Two <two@sender.test>"


async def test_a_whole_batch_is_200_and_a_large_one_is_taken(door: RestDoor) -> None:
    emails = [{"to": [f"many{n}@held.test", f"more{n}@held.test"], "subject": "x", "text": "x"} for n in range(100)]
    emails[50] |= {"text": "", "html": "<p>word</p>" * 1000}  # written in a thread, between those that are not
    answer = await batch(door, emails)
    assert (answer.status, answer.data["accepted"], len(answer.data["messages"])) == (200, 100, 200)
    assert answer.headers["X-SendLimit-Used"]


GOOD = {"to": ["never@held.test"], "subject": "Hello", "text": "Hello."}


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"emails": []}, "validation_error", "emails"),
        ({"emails": None}, "validation_error", "emails"),
        ({"emails": GOOD}, "validation_error", "emails"),
        ({"emails": [GOOD, "x"]}, "validation_error", "emails[1]"),
        ({"emails": [GOOD, {**GOOD, "to": 7}]}, "validation_error", "emails[1].to"),
        ({"emails": [GOOD, {**GOOD, "subject": 7}]}, "validation_error", "emails[1].subject"),
        ({"emails": [{"to": ["a@rcpt.test"], "text": "x"}]}, "missing_required_field", "emails[0].subject"),
        ({"emails": [GOOD] * 101}, "validation_error", "emails"),
        ({"emails": [{**GOOD, "to": ["x@held.test"] * 50}] * 20 + [GOOD]}, "validation_error", "emails"),
        ({"from": "nobody"}, "invalid_email_format", "from"),
        ({"from": None}, "missing_required_field", "from"),
        ({"from": None, "emails": [{**GOOD, "from": "app@sender.test"}, GOOD]}, "missing_required_field", "from"),
    ],
)
async def test_a_batch_that_is_none_is_refused_whole(
    door: RestDoor, fields: dict[str, Any], code: str, field: str
) -> None:
    before = (await door.ask("GET", "/v1/emails")).body["total"]
    answer = await batch(door, [GOOD], **fields)
    assert (answer.status, answer.code, answer.field) == (400, code, field), answer.text
    assert (await door.ask("GET", "/v1/emails")).body["total"] == before


async def test_a_batch_needs_no_sender_of_its_own_when_every_email_has_one(door: RestDoor) -> None:
    body = {"emails": [{**GOOD, "from": "app@sender.test"}]}
    answer = await door.ask("POST", "/v1/emails/batch", body, key=ACME_KEY)
    assert (answer.status, answer.data["accepted"]) == (200, 1)


async def test_a_batch_in_which_all_fails_is_207_too(door: RestDoor) -> None:
    answer = await batch(door, [{**GOOD, "to": ["nobody"]}])
    assert (answer.status, answer.data["accepted"], answer.data["failed"]) == (207, 0, 1)


async def test_the_ceiling_of_a_batch_is_a_setting(door: RestDoor) -> None:
    config = door.relay.config
    before = config.read_text()
    assert before.count("min_free_disk") == 1
    try:
        config.write_text(before.replace("min_free_disk", "batch_max = 2\nmin_free_disk"))
        await door.relay.call("POST", "/v1/control/reload")
        assert (await batch(door, [GOOD] * 3)).field == "emails"
        assert (await batch(door, [GOOD] * 2)).status == 200
    finally:
        config.write_text(before)
        await door.relay.call("POST", "/v1/control/reload")


async def test_the_official_client_sends_strictly(door: RestDoor) -> None:
    async with AsyncArk(
        api_key=ACME_KEY, base_url=f"{door.plain}/v1", max_retries=0, _strict_response_validation=True
    ) as client:
        sent = await client.emails.send(
            from_="App <app@sender.test>",
            to=["sdk@held.test"],
            subject="Hello",
            html="<p>x</p>",
            text=None,
            cc=None,
            attachments=[{"content": "QUJD", "content_type": "application/pdf", "filename": "a.pdf"}],
            metadata={"a": "b"},
            reply_to="help@sender.test",
        )
        assert sent.data.message_id is not None
        assert sent.data.message_id.startswith("<")
        partly = await client.emails.send_batch(
            from_="app@sender.test",
            emails=[
                {"to": ["sdk1@held.test"], "subject": "x", "text": "x"},
                {"to": ["nobody"], "subject": "x", "text": "x"},
            ],
        )
        assert (partly.data.accepted, partly.data.failed) == (1, 1)
        assert partly.data.messages["sdk1@held.test"].id
        assert partly.data.messages["nobody"].id == ""


async def test_no_octet_of_ours_is_wrong_on_the_wire(door: RestDoor) -> None:
    answer = await send(door, "wire@rcpt.test", text="a\rb\nc\r\nd\u2028e\x00f", html="<p>\r</p>")
    assert answer.status == 200
    received = await arrived(door, "wire@rcpt.test")
    message = email.message_from_bytes(received.content, policy=email.policy.default)
    assert [part.defects for part in message.walk()] == [[], [], []]
    assert_clean(received.content)
    assert door.mx.violations == []
