"""Scenes of ``emails``: seven methods."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.sdk.table import scene
from peers.arkclient import Api
from peers.arkdoor import ArkDoor, mailbox, unique
from peers.office import lines, parse

FILE = b"%PDF-1.4 not really\n\x00\xff"


def fields(*to: str, **more: Any) -> dict[str, Any]:
    """Return what a plain send needs."""
    return {"from_": "app@sender.test", "to": list(to), "subject": "hello", "text": "Hello.", **more}


def same(shown: datetime, at: float) -> bool:
    """Whether both are one moment; the ISO form has milliseconds."""
    return abs(shown.timestamp() - at) < 0.001


def raw_message(to: str, more: str = "") -> str:
    """Return a message in base64."""
    text = f"From: App <app@sender.test>\r\nTo: {to}\r\nSubject: as it is\r\n{more}\r\nUntouched.\r\n"
    return base64.b64encode(text.encode()).decode()


@scene("emails.send")
async def send(api: Api, door: ArkDoor) -> None:
    to, cc, bcc = mailbox("to"), mailbox("cc"), mailbox("bcc")
    given = {
        "from_": '"Acme, Inc" <app@sender.test>',
        "to": [to],
        "cc": [cc],
        "bcc": [bcc],
        "subject": "Grüße an alle",
        "html": "<p>Hello <b>you</b></p>",
        "text": "Hello you",
        "reply_to": "help@sender.test",
        "tag": unique("tag"),
        "headers": {"X-Campaign": "spring"},
        "attachments": [
            {
                "content": base64.b64encode(FILE).decode(),
                "content_type": "application/pdf",
                "filename": "invoice.pdf",
            }
        ],
        "metadata": {"user_id": "usr_secret_1"},
        "idempotency_key": unique("send"),
    }
    sent = (await api("emails.send", **given)).data
    assert sent.status == "pending"
    assert sent.to == [to]
    assert sent.sandbox is None
    assert sent.message_id.startswith("<")
    assert sent.message_id.endswith(">")
    for address in (to, cc, bcc):
        letter = await door.letter(address)
        message = parse(letter.content)
        assert message["Subject"] == "Grüße an alle"
        assert message["From"] == '"Acme, Inc" <app@sender.test>'
        assert (message["To"], message["Cc"], message["Bcc"]) == (to, cc, None)
        assert (message["Reply-To"], message["X-Campaign"]) == ("help@sender.test", "spring")
        assert message["Message-ID"] == sent.message_id
        assert lines(message, "plain") == ["Hello you"]
        assert lines(message, "html") == ["<p>Hello <b>you</b></p>"]
        (attached,) = message.iter_attachments()
        assert (attached.get_filename(), attached.get_content_type()) == ("invoice.pdf", "application/pdf")
        assert attached.get_content() == FILE
        assert b"usr_secret_1" not in letter.content
        assert bcc.encode() not in letter.content
    again = (await api("emails.send", **given)).data
    assert again == sent
    listed = await api.all("emails.list", tag=given["tag"])
    assert sorted(row.to for row in listed) == sorted([to, cc, bcc])
    nulls = ("attachments", "bcc", "cc", "headers", "html", "metadata", "reply_to", "tag")
    plain = await api("emails.send", **fields(mailbox("nulls")), **dict.fromkeys(nulls))
    assert plain.data.id not in {sent.id, ""}


@scene("emails.send_batch")
async def send_batch(api: Api, door: ArkDoor) -> None:
    ann, bob = mailbox("ann"), mailbox("bob")
    given = {
        "from_": "App <app@sender.test>",
        "emails": [
            {
                "to": [ann],
                "subject": "Hello Ann",
                "html": "<p>Your order</p>",
                "text": "Your order",
                "tag": "order",
                "metadata": {"order": "1"},
            },
            {"to": [bob], "subject": "Hello Bob", "text": "Yours too", "html": None, "tag": None, "metadata": None},
        ],
        "idempotency_key": unique("batch"),
    }
    answer = await api.raw("emails.send_batch", **given)
    assert answer.status == 200
    sent = answer.parsed.data
    assert (sent.total, sent.accepted, sent.failed, sent.sandbox) == (2, 2, 0, None)
    assert set(sent.messages) == {ann, bob}
    shown = (await api("emails.retrieve", sent.messages[ann].id)).data
    assert (shown.to, shown.subject, shown.tag) == (ann, "Hello Ann", "order")
    assert parse((await door.letter(bob)).content)["Subject"] == "Hello Bob"
    again = await api("emails.send_batch", **given)
    assert again.data == sent
    good, bad = mailbox("good"), "no address"
    mixed = await api.raw(
        "emails.send_batch",
        from_="app@sender.test",
        emails=[{"to": [good], "subject": "x", "text": "x"}, {"to": [bad], "subject": "x", "text": "x"}],
    )
    assert mixed.status == 207
    data = mixed.parsed.data
    assert (mixed.parsed.success, data.total, data.accepted, data.failed) == (True, 2, 1, 1)
    assert data.messages[good].id
    assert data.messages[bad].id == ""
    assert data.messages[bad].error


@scene("emails.send_raw")
async def send_raw(api: Api, door: ArkDoor) -> None:
    to, system = mailbox("raw"), mailbox("system")
    given = {"from_": "App <app@sender.test>", "to": [to], "raw_message": raw_message(to)}
    sent = (await api("emails.send_raw", **given, bounce=None)).data
    assert (sent.status, sent.to, sent.sandbox) == ("pending", [to], None)
    letter = await door.letter(to)
    assert letter.return_path != ""
    message = parse(letter.content)
    assert (message["Subject"], message["Message-ID"]) == ("as it is", sent.message_id)
    assert lines(message, "plain") == ["Untouched."]
    await api("emails.send_raw", **{**given, "to": [system], "raw_message": raw_message(system)}, bounce=True)
    assert (await door.letter(system)).return_path == ""


@scene("emails.list")
async def list_emails(api: Api, door: ArkDoor) -> None:
    address, tag = await door.suppressed(api), unique("list")
    began = datetime.now(UTC) - timedelta(seconds=2)
    ids = [(await api("emails.send", **fields(address, tag=tag))).data.id for _ in range(5)]
    given = {
        "from_": "app@sender.test",
        "to": address,
        "tag": tag,
        "status": "held",
        "after": began.isoformat(),
        "before": str(int(began.timestamp()) + 3600),
    }
    rows = await api.all("emails.list", **given, page=1, per_page=2)
    assert [row.id for row in rows] == ids[::-1]
    assert api.count("emails.list") == 3
    first = rows[0]
    assert (first.from_, first.to, first.subject) == ("app@sender.test", address, "hello")
    assert (first.status, first.tag, first.tenantId) == ("held", tag, "acme")
    assert same(first.timestamp_iso, first.timestamp)
    page = await api("emails.list", **given, page=3, per_page=2)
    assert (page.page, page.per_page, page.total, page.total_pages) == (3, 2, 5, 3)
    assert [row.id for row in page.data] == ids[:1]
    assert page.meta.request_id.startswith("req_")
    assert not page.has_next_page()
    past = await api("emails.list", tag=tag, page=9)
    assert (past.data, past.page, past.total) == ([], 9, 5)


@scene("emails.retrieve")
async def retrieve(api: Api, door: ArkDoor) -> None:
    to = mailbox("whole")
    attachment = {"content": base64.b64encode(FILE).decode(), "content_type": "text/x-odd", "filename": "größe.txt"}
    given = fields(to, html="<p>Hello</p>", text="Hello", tag="whole", attachments=[attachment])
    id_ = (await api("emails.send", **given)).data.id
    await door.settled(api, id_, "sent")
    plain = (await api("emails.retrieve", id_)).data
    assert (plain.id, plain.from_, plain.to, plain.subject) == (id_, "app@sender.test", to, "hello")
    assert (plain.scope, plain.status, plain.tag, plain.tenantId) == ("outgoing", "sent", "whole", "acme")
    assert same(plain.timestamp_iso, plain.timestamp)
    absent = {"activity", "attachments", "deliveries", "headers", "html_body", "plain_body", "raw_message"}
    assert not absent & plain.model_fields_set
    full = (await api("emails.retrieve", id_, expand="full")).data
    assert absent <= full.model_fields_set
    assert full.html_body.strip() == "<p>Hello</p>"
    assert full.plain_body.strip() == "Hello"
    assert full.headers["Subject"] == "hello"
    assert full.headers["Message-ID"] == full.message_id
    assert (full.activity.opens, full.activity.clicks) == ([], [])
    (file,) = full.attachments
    assert (file.filename, file.content_type, file.size) == ("größe.txt", "text/x-odd", len(FILE))
    assert base64.b64decode(file.data) == FILE
    assert file.hash == hashlib.sha256(FILE).hexdigest()
    assert b"Subject: hello" in base64.b64decode(full.raw_message)
    (attempt,) = full.deliveries
    assert (attempt.status, attempt.code, attempt.sent_with_ssl) == ("sent", 250, False)
    assert attempt.details == f"Message for {to} accepted by 127.0.0.1:{door.mx.port} (mx.rcpt.test)"
    assert (attempt.remote_host, attempt.classification, attempt.classification_code) == ("mx.rcpt.test", None, None)
    some = (await api("emails.retrieve", id_, expand="headers,raw")).data
    assert absent & some.model_fields_set == {"headers", "raw_message"}


@scene("emails.retrieve_deliveries")
async def retrieve_deliveries(api: Api, door: ArkDoor) -> None:
    nobody, busy = mailbox("nobody"), mailbox("busy")
    failed = await door.settled(api, (await api("emails.send", **fields(nobody))).data.id, "hardfail")
    assert (failed.data.can_retry_manually, failed.data.retry_state) == (True, None)
    assert "retry_state" in failed.data.model_fields_set
    (attempt,) = failed.data.deliveries
    assert (attempt.status, attempt.code, attempt.smtp_enhanced_code) == ("hardfail", 550, "5.1.1")
    assert (attempt.classification, attempt.classification_code) == ("invalid_recipient", 10)
    assert attempt.output == "550 5.1.1 no such user"
    where = f"127.0.0.1:{door.mx.port} (mx.rcpt.test)"
    assert attempt.details == f"550 invalid recipient: Delivery to {nobody} failed at {where}"
    waits = await door.settled(api, (await api("emails.send", **fields(busy))).data.id, "softfail")
    state = waits.data.retry_state
    assert (state.attempt, state.max_attempts, state.attempts_remaining) == (1, 18, 17)
    assert (state.manual, state.processing) == (False, False)
    assert same(state.next_retry_at_iso, state.next_retry_at)
    (attempt,) = waits.data.deliveries
    assert (attempt.status, attempt.code, attempt.remote_host) == ("softfail", 451, "mx.rcpt.test")


@scene("emails.retry")
async def retry(api: Api, door: ArkDoor) -> None:
    address = await door.suppressed(api, "again")
    id_ = (await api("emails.send", **fields(address))).data.id
    await door.settled(api, id_, "held")
    answer = (await api("emails.retry", id_)).data
    assert (answer.id, answer.tenantId) == (id_, "acme")
    assert answer.message
    await door.settled(api, id_, "sent")
    assert (await door.letter(address)).recipients == [address]
