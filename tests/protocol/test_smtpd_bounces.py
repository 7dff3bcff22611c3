"""Port 25: our return paths, feedback and postmaster, and nobody else; what comes there touches one recipient."""

import asyncio
import errno
import sqlite3
import time
from pathlib import Path

import pytest
from protocol.smtpd_rig import BOUNCES, Client, Rig, running
from unit.mail.test_report import load, mute_failures

from arkrelay.mail.verp import LIFETIME_S
from arkrelay.model.attempt import BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.report import ReportKind
from arkrelay.model.suppression import Cause
from arkrelay.policy.payloads import payload_of
from arkrelay.relay import inbound
from arkrelay.smtpd import bounces
from arkrelay.store import history, queue, reports, suppressions
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.outcomes import apply

NOW = time.time()


async def sent(rig: Rig, address: str = "bob@dest.test", **changes: object) -> Recipient:
    """Return a recipient that its server took a moment ago."""
    fields = {"tag": changes.pop("tag", None)}
    message = Message(
        rig.store.new_message_id(),
        "acme",
        Door.REST,
        None,
        NOW,
        "<order-17@acme.test>",
        "app@acme.test",
        "acme.test",
        "app@acme.test",
        "Your order A-17",
        **fields,  # type: ignore[arg-type]  # the tag
    )
    values = {"status": Status.SENT, "attempts": 1, **changes}
    recipient = Recipient(
        rig.store.new_recipient_id(), message, rig.store.new_token(NOW), address, "dest.test", "dest.test",
        **values,  # type: ignore[arg-type]  # as a test says
    )  # fmt: skip

    await rig.store.write(lambda db: insert_messages(db, [Insertion(message, [recipient], b"x", ())], 0))
    return recipient


def mark_of(rig: Rig, recipient: Recipient, at: float = NOW) -> str:
    return rig.return_paths.local_part(recipient.id, at)


async def report(rig: Rig, name: str, to: str, mark: str = "", sender: str = "", code: int = 250) -> None:
    """Send one of tests/data/bounces to this address."""
    content = load(name)
    if mark:
        content = content.replace(load_mark(), mark.encode())
    client = await rig.connect()
    await client.expect("EHLO mx.dest.test", 250)
    await client.expect(f"MAIL FROM:<{sender}>", 250)
    await client.expect(f"RCPT TO:<{to}>", 250)
    await client.expect("DATA", 354)
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    await client.expect((stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n") + b".", code)


def load_mark() -> bytes:
    from unit.mail.test_report import MARK  # noqa: PLC0415 -- the one that the files are given

    return MARK.encode()


async def state(rig: Rig, recipient: Recipient) -> Recipient:
    return await rig.store.read(lambda db: queue.load_recipient(db, recipient.id))


async def events(rig: Rig, *kinds: EventKind) -> list[Event]:
    found = await rig.store.read(lambda db: history.list_events(db, limit=1000, kinds=kinds))
    return [one.event for one in found]


async def mail_postmaster(client: Client, content: bytes = b"Subject: help\r\n\r\nhelp\r\n", code: int = 250) -> str:
    await client.expect("EHLO stranger.test", 250)
    await client.expect("MAIL FROM:<ann@stranger.test>", 250)
    await client.expect("RCPT TO:<postmaster@relay.test>", 250)
    await client.expect("DATA", 354)
    return (await client.expect(content + b".", code)).text


async def test_it_announces_no_auth_and_no_dsn(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        lines = set((await client.expect("EHLO stranger.test", 250)).lines[1:])
        assert lines == {
            "PIPELINING",
            "SIZE 14262144",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "LIMITS RCPTMAX=1000",
            "STARTTLS",
        }
        await client.expect("AUTH PLAIN", 502)
        await client.expect("MAIL FROM:<a@b.test> RET=FULL", 555)


@pytest.mark.parametrize(
    "recipient",
    [
        "postmaster",
        "Postmaster@relay.test",
        "POSTMASTER@rp.relay.test",
        "postmaster@psrp.acme.test",
        "abuse@relay.test",
        "FBL@rp.relay.test",
        "fbl@psrp.acme.test",
    ],
)
async def test_postmaster_is_taken(tmp_path: Path, recipient: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<>", 250)
        await client.expect(f"RCPT TO:<{recipient}>", 250)


@pytest.mark.parametrize(
    "recipient",
    [
        "ann@relay.test",
        "postmaster@elsewhere.test",
        "postmaster@psrp.elsewhere.test",
        "postmaster@acme.test",
        "postmaster%elsewhere.test@relay.test",
        "elsewhere.test!postmaster@relay.test",
        '"postmaster@elsewhere.test"@relay.test',
        "postmaster+x@relay.test",
        "babcdef@rp.relay.test",
        "root@localhost.test",
        "fbl@acme.test",
        "abuse@psrp.elsewhere.test",
        "fbl+x@relay.test",
    ],
)
async def test_everything_else_is_unknown_and_never_relayed(tmp_path: Path, recipient: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        assert (await client.expect(f"RCPT TO:<{recipient}>", 550)).text == "5.1.1 No such address here"
        await client.expect("DATA", 554)
        assert rig.notebook.submissions == []


async def test_postmasters_mail_is_kept_as_a_file(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("STARTTLS", 220)
        await client.start_tls(rig.tls)
        await mail_postmaster(client)
        (path,) = (tmp_path / "state" / "postmaster").iterdir()
        lines = path.read_bytes().split(b"\r\n")
        assert lines[0] == b"Return-Path: <ann@stranger.test>"
        assert lines[1] == b"Received: from stranger.test (127.0.0.1) by relay.test with ESMTPS;"
        assert path.read_bytes().endswith(b"\r\nSubject: help\r\n\r\nhelp\r\n")
        assert path.suffix == ".eml"
        assert rig.notebook.submissions == []


async def test_a_large_message_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await mail_postmaster(client, b"x" * 999_999 + b"\r\n", 552)
        await client.expect("MAIL FROM:<> SIZE=14262145", 552)
        assert not (tmp_path / "state" / "postmaster").exists()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 452), (errno.EIO, 451)])
async def test_a_disk_in_trouble_is_the_senders_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def broken(_folder: Path, _content: bytes) -> Path:
        raise OSError(number, "trouble at /secret/path")

    monkeypatch.setattr(bounces, "save_postmaster_mail", broken)
    async with running(tmp_path, BOUNCES) as rig:
        text = await mail_postmaster(await rig.connect(), code=code)
        assert "secret" not in text


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\r.\r"])
async def test_nothing_is_smuggled_through_it(tmp_path: Path, end: bytes) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        smuggled = b"x" + end + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\ny\r\n"
        await mail_postmaster(client, smuggled, 550 if b"\r." in end.replace(b"\r\n", b"") else 250)
        await client.expect("NOOP", 250)


@pytest.mark.parametrize("domain", ["rp.relay.test", "RP.relay.test", "psrp.acme.test", "psrp.removed.test"])
async def test_a_return_path_is_taken_at_whatever_name_it_had_and_in_capitals(tmp_path: Path, domain: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<>", 250)
        mark = rig.return_paths.local_part(7, NOW)
        await client.expect(f"RCPT TO:<{mark}@{domain}>", 250)
        await client.expect(f"RCPT TO:<{mark.upper()}@{domain}>", 250)


async def test_forged_altered_and_expired_return_paths_are_unknown(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        mark = rig.return_paths.local_part(7, NOW)
        wrong = [
            f"b{'0' * 50}@rp.relay.test",
            f"{mark[:-1]}{'0' if mark[-1] != '0' else '1'}@rp.relay.test",
            f"{mark[:17]}{int(mark[17], 16) ^ 1:x}{mark[18:]}@rp.relay.test",  # another recipient
            f"{mark[:24]}{int(mark[24], 16) ^ 1:x}{mark[25:]}@rp.relay.test",  # another hour
            f"{mark}0@rp.relay.test",
            f"x{mark}@rp.relay.test",
            f"{mark[:-1]}{'0' if mark[-1] != '0' else '1'}@psrp.removed.test",
            f"{rig.return_paths.local_part(7, NOW - LIFETIME_S - 7200)}@rp.relay.test",
        ]
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<>", 250)
        for one in wrong:
            assert (await client.expect(f"RCPT TO:<{one}>", 550)).text == "5.1.1 No such address here"


async def test_a_bounce_ends_its_recipient_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob, ann = await sent(rig), await sent(rig, "ann@dest.test")
        to = f"{mark_of(rig, bob)}@rp.relay.test"
        await report(rig, "postfix-unknown-user", to)
        found = await state(rig, bob)
        assert (found.status, found.bounce_class) == (Status.BOUNCED, BounceClass.BAD_ADDRESS)
        assert found.reason.startswith(
            "550 invalid recipient: Message for bob@dest.test came back from store.dest.test"
        )
        assert (await state(rig, ann)).status is Status.SENT
        (attempt,) = await rig.store.read(lambda db: history.list_attempts(db, bob.id))
        assert (attempt.status, attempt.code, attempt.enhanced) == (Status.BOUNCED, 550, "5.1.1")
        assert "User unknown in local recipient table" in attempt.output
        (event,) = await events(rig)
        payload = payload_of(event, found, {})
        assert payload is not None
        assert payload["original_message"]["token"] == bob.token
        assert payload["bounce"] | {"timestamp": 0} == {
            "id": 1,
            "token": "report-1",
            "direction": "incoming",
            "message_id": "ndr-1@mx.dest.test",
            "to": to,
            "from": "MAILER-DAEMON@mx.dest.test (Mail Delivery System)",
            "subject": "Undelivered Mail Returned to Sender",
            "timestamp": 0,
            "spam_status": "NotChecked",
            "tag": None,
            "metadata": None,
        }
        # Ark contract §9.3: no suppression for a report after acceptance
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is None


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("<MAILER-DAEMON@mail_gw.dest.test>", 250),
        ("<MAILER-DAEMON>", 250),
        (" <postmaster@[192.0.2.1]> SIZE=1000", 250),
        ("<a@b.test..>", 250),
        ("<MAILER-DAEMON> RET=FULL", 555),
        ("<MAILER-DAEMON>x", 501),
        ("MAILER-DAEMON", 501),
        ("<MAILER\x1bDAEMON>", 500),
    ],
)
async def test_a_bounce_may_come_from_what_is_no_address(tmp_path: Path, path: str, code: int) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        client = await rig.connect()
        await client.expect("EHLO mx.dest.test", 250)
        await client.expect(f"MAIL FROM:{path}", code)
        if code != 250:
            return
        await client.expect("RCPT TO:<MAILER-DAEMON>", 501)  # of recipients there are none but ours
        await client.expect(f"RCPT TO:<{mark_of(rig, bob)}@rp.relay.test>", 250)
        await client.expect("DATA", 354)
        await client.expect(load("exim-text") + b"\r\n.", 250)
        assert (await state(rig, bob)).status is Status.BOUNCED


async def test_a_copy_of_a_report_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        for name in ("qmail-qsbmf", "qmail-qsbmf", "vacation-german", "vacation-german", "arf-abuse", "arf-abuse"):
            await report(rig, name, f"{mark_of(rig, bob)}@rp.relay.test", sender="x@dest.test")
        kinds = [event.kind for event in await events(rig)]
        assert kinds == [
            EventKind.BOUNCED,
            EventKind.AUTO_REPLIED,
            EventKind.COMPLAINED,
            EventKind.SUPPRESSED,
        ]
        kept = await rig.store.read(lambda db: reports.list_reports(db, bob.id))
        assert [one.kind for one in kept] == [ReportKind.BOUNCE, ReportKind.AUTO_REPLY, ReportKind.COMPLAINT]


@pytest.mark.parametrize(
    ("name", "kind", "event"),
    [
        ("postfix-delay-warning", ReportKind.DELAY, EventKind.REPORTED),
        ("postfix-relayed", ReportKind.RECEIPT, EventKind.REPORTED),
        ("exchange-out-of-office", ReportKind.AUTO_REPLY, EventKind.AUTO_REPLIED),
        ("read-receipt", ReportKind.AUTO_REPLY, EventKind.AUTO_REPLIED),
        ("human-reply", ReportKind.UNKNOWN, EventKind.REPORTED),
    ],
)
async def test_what_is_no_failure_is_noted_and_bounces_nobody(
    tmp_path: Path, name: str, kind: ReportKind, event: EventKind
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        await report(rig, name, f"{mark_of(rig, bob)}@rp.relay.test")
        assert (await state(rig, bob)).status is Status.SENT
        (kept,) = await rig.store.read(lambda db: reports.list_reports(db, bob.id))
        assert kept.kind is kind
        assert kept.content
        (told,) = await events(rig)
        assert (told.kind, told.data["kind"]) == (event, str(kind))
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is None


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"status": Status.SOFTFAIL, "uncertain": 1, "due_at": NOW}, True),
        ({"status": Status.SOFTFAIL, "due_at": NOW}, False),
        ({"status": Status.PENDING, "due_at": NOW}, False),
        ({"status": Status.HARDFAIL}, False),
        ({"status": Status.HELD}, False),
    ],
)
async def test_a_late_bounce_ends_only_what_may_have_arrived(
    tmp_path: Path, changes: dict[str, object], ends: bool
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig, **changes)  # type: ignore[arg-type]  # no address among them
        await report(rig, "exim-text", f"{mark_of(rig, bob)}@rp.relay.test")
        found = await state(rig, bob)
        assert found.status is (Status.BOUNCED if ends else changes["status"])
        assert found.due_at == (None if ends else changes.get("due_at"))


@pytest.mark.parametrize("name", ["arf-abuse", "arf-redacted", "arf-cfbl", "jmrp-legacy"])
@pytest.mark.parametrize("to", ["fbl@rp.relay.test", "abuse@relay.test"])
async def test_a_complaint_suppresses_the_recipient_whose_return_path_it_carries(
    tmp_path: Path, name: str, to: str
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        await report(rig, name, to, mark_of(rig, bob), sender="fbl@provider.test")
        assert (await state(rig, bob)).status is Status.SENT
        found = await rig.store.read(lambda db: suppressions.get(db, "acme", "BOB@dest.test"))
        assert found is not None
        assert (found.reason, found.cause, found.recipient_id) == ("complaint", Cause.COMPLAINT, bob.id)
        assert [one.kind for one in await events(rig)] == [EventKind.COMPLAINED, EventKind.SUPPRESSED]


@pytest.mark.parametrize("name", ["arf-abuse", "human-asks", "arf-not-spam", "arf-virus", "postfix-unknown-user"])
async def test_a_forged_complaint_touches_nobody_and_is_kept_for_a_person(tmp_path: Path, name: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        await report(rig, name, "fbl@rp.relay.test")  # the mark in the file is of another secret
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is None
        assert (await state(rig, bob)).status is Status.SENT
        assert len(list((tmp_path / "state" / "postmaster").iterdir())) == 1
        assert await events(rig) == []


async def test_a_report_about_somebody_else_touches_only_the_one_in_the_return_path(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob, ann = await sent(rig), await sent(rig, "ann@dest.test")
        await report(rig, "arf-abuse", f"{mark_of(rig, ann)}@rp.relay.test", mark_of(rig, bob))
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is None
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "ann@dest.test")) is not None


async def test_a_report_about_a_recipient_that_is_gone_is_taken_and_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        await report(rig, "exim-text", f"{rig.return_paths.local_part(4711, NOW)}@rp.relay.test")
        assert await events(rig) == []
        await report(rig, "human-reply", f"{rig.return_paths.local_part(4711, NOW)}@rp.relay.test")
        assert len(list((tmp_path / "state" / "postmaster").iterdir())) == 1  # unless a person wrote it


@pytest.mark.parametrize(
    ("name", "kind", "filed"),
    [
        ("human-reply", ReportKind.UNKNOWN, 5),
        ("vacation-german", ReportKind.AUTO_REPLY, 0),
        ("postfix-delay-warning", ReportKind.DELAY, 0),
        ("arf-abuse", ReportKind.COMPLAINT, 0),
    ],
)
async def test_who_knows_a_return_path_cannot_fill_the_disk_with_it(
    tmp_path: Path, name: str, kind: ReportKind, filed: int
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        to = f"{mark_of(rig, bob)}@rp.relay.test"
        client = await rig.connect()
        await client.expect("EHLO mx.dest.test", 250)
        for number in range(reports.MOST + 5):
            content = load(name).replace(b"<ndr-1@", b"<ndr-%d@" % number) + b"x" * 40_000
            await client.expect("MAIL FROM:<>", 250)
            await client.expect(f"RCPT TO:<{to}>", 250)
            await client.expect("DATA", 354)
            await client.expect(content + b"\r\n.", 250)
        kept = await rig.store.read(lambda db: reports.list_reports(db, bob.id))
        assert [one.kind for one in kept] == [kind] * reports.MOST
        assert max(len(one.content) for one in kept) == reports.CONTENT_BYTES
        assert len([one for one in await events(rig) if one.kind is not EventKind.SUPPRESSED]) == reports.MOST
        # what nobody understands may be a person's, and is not thrown away
        assert len(list((tmp_path / "state").glob("postmaster/*.eml"))) == filed
        await report(rig, "arf-abuse", to)  # what counts still comes through, as does every other kind
        assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is not None
        await report(rig, "exim-text", to)
        assert (await state(rig, bob)).status is Status.BOUNCED


async def test_reading_a_report_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        client = await rig.connect()
        await client.expect("EHLO mx.dest.test", 250)
        await client.expect("MAIL FROM:<>", 250)
        await client.expect(f"RCPT TO:<{mark_of(rig, bob)}@rp.relay.test>", 250)
        await client.expect("DATA", 354)
        reading = asyncio.create_task(client.expect(mute_failures() + b".", 250))
        longest_s, loop = 0.0, asyncio.get_running_loop()
        while not reading.done():
            before = loop.time()
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, loop.time() - before)
        await reading
        assert (await state(rig, bob)).status is Status.BOUNCED
        assert longest_s < 0.5


@pytest.mark.parametrize(("streams", "stream"), [('["news"]', "news"), ("[]", "")])
async def test_a_complaint_about_a_stream_suppresses_just_that_stream(
    tmp_path: Path, streams: str, stream: str
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        path = tmp_path / "tenants" / "acme.toml"
        path.write_text(path.read_text() + f"[suppression]\nstreams = {streams}\n")
        rig.live.reload()
        bob = await sent(rig, tag="news")
        await report(rig, "arf-abuse", f"{mark_of(rig, bob)}@rp.relay.test")
        found = await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test"))
        assert found is not None
        assert found.stream == stream


@pytest.mark.parametrize(
    ("name", "suppressed"),
    [("postfix-unknown-user", True), ("blocklisted", False), ("postfix-mailbox-full", False)],
)
async def test_a_bounce_suppresses_where_that_is_wanted(tmp_path: Path, name: str, suppressed: bool) -> None:
    async with running(tmp_path, BOUNCES, limits="tarpit = '0s'\n[suppression]\nbounces = true\n") as rig:
        bob = await sent(rig)
        await report(rig, name, f"{mark_of(rig, bob)}@rp.relay.test")
        found = await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test"))
        assert (found is not None) is suppressed
        if found is not None:
            assert (found.reason, found.bounce_class, found.recipient_id) == (
                "bounce", BounceClass.BAD_ADDRESS, bob.id,
            )  # fmt: skip


async def test_the_third_full_mailbox_of_a_week_suppresses(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES, limits="tarpit = '0s'\n[suppression]\nbounces = true\n") as rig:
        for number in range(3):
            assert await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test")) is None, number
            bob = await sent(rig)
            await report(rig, "postfix-mailbox-full", f"{mark_of(rig, bob)}@rp.relay.test")
        found = await rig.store.read(lambda db: suppressions.get(db, "acme", "bob@dest.test"))
        assert found is not None
        assert (found.reason, found.bounce_class) == ("mailbox full", BounceClass.MAILBOX_FULL)


async def test_a_bounce_that_comes_before_its_delivery_is_on_disk_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig, status=Status.PENDING, attempts=0, due_at=NOW)
        (claimed,) = await rig.store.write(lambda db: queue.claim(db, "dest.test", "acme", NOW, 1, 1))
        to = f"{mark_of(rig, bob)}@rp.relay.test"
        with monkeypatch.context() as impatient:
            impatient.setattr(inbound, "PATIENCE_S", 0.0)
            await report(rig, "exim-text", to, code=451)
        assert await rig.store.read(lambda db: reports.list_reports(db, bob.id)) == []
        task = asyncio.create_task(report(rig, "exim-text", to))
        await rig.store.write(lambda db: apply(db, [Outcome(claimed, NOW, Status.SENT, "taken", 1, details="taken")]))
        await task
        assert (await state(rig, bob)).status is Status.BOUNCED


async def test_a_database_in_trouble_is_the_senders_to_wait_for_and_nothing_is_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with running(tmp_path, BOUNCES) as rig:
        bob = await sent(rig)
        to = f"{mark_of(rig, bob)}@rp.relay.test"
        with monkeypatch.context() as trouble:
            trouble.setattr(inbound, "apply", broken)
            await report(rig, "exim-text", to, code=451)
        assert (await state(rig, bob)).status is Status.SENT
        assert await rig.store.read(lambda db: reports.list_reports(db, bob.id)) == []
        await report(rig, "exim-text", to)
        assert (await state(rig, bob)).status is Status.BOUNCED


async def leave(rig: Rig, token: str, host: str) -> None:
    """Send mail to the address by which a recipient leaves a stream."""
    client = await rig.connect()
    await client.expect("EHLO mx.dest.test", 250)
    await client.expect("MAIL FROM:<bob@dest.test>", 250)
    await client.expect(f"RCPT TO:<{token}@{host}>", 250)
    await client.expect("DATA", 354)
    await client.expect("Subject: unsubscribe\r\n\r\n.", 250)


async def test_mail_to_the_address_of_a_stream_leaves_it_once_and_no_other(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        host = rig.live.snapshot.settings.return_path_host
        recipient = await sent(rig)
        # the stream is the message's: what it was sent with
        await rig.store.write(lambda db: db.execute("UPDATE messages SET stream = 'news'"))
        token = rig.unsubscribes.make("acme", recipient.id, "news")
        await leave(rig, token.upper(), host=host)  # a local part may have been through a program that shouts
        await leave(rig, token, host=host)
        entries, _ = await rig.store.read(lambda db: suppressions.list_page(db, "acme", suppressions.Entries()))
        assert [(one.stream, one.reason, one.cause) for one in entries] == [
            ("news", "unsubscribe", Cause.UNSUBSCRIBE)
        ]
        events = await rig.store.read(lambda db: history.list_events(db, kinds=[EventKind.UNSUBSCRIBED]))
        assert len(events) == 1


async def test_an_address_that_only_looks_like_one_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        host = rig.live.snapshot.settings.return_path_host
        recipient = await sent(rig)
        await rig.store.write(lambda db: db.execute("UPDATE messages SET stream = 'news'"))
        token = rig.unsubscribes.make("acme", recipient.id, "news")
        forged = token[:-1] + ("0" if token[-1] != "0" else "1")
        client = await rig.connect()
        await client.expect("EHLO mx.dest.test", 250)
        await client.expect("MAIL FROM:<bob@dest.test>", 250)
        await client.expect(f"RCPT TO:<{forged}@{host}>", 550)
        await client.expect(f"RCPT TO:<{rig.unsubscribes.make('acme', recipient.id + 1, 'news')}@{host}>", 550)
        await client.expect(f"RCPT TO:<{rig.unsubscribes.make('acme', recipient.id, 'other')}@{host}>", 550)
        await client.expect(f"RCPT TO:<{token[:-1]}@{host}>", 550)
        await client.expect(f"RCPT TO:<{token}@elsewhere.test>", 550)
        # and a bounce in the same transaction is taken
        await client.expect(f"RCPT TO:<{mark_of(rig, recipient)}@rp.relay.test>", 250)
        await client.expect("DATA", 354)
        await client.expect(load("exim-text") + b"\r\n.", 250)
        assert (await state(rig, recipient)).status is Status.BOUNCED
        found = await rig.store.read(lambda db: suppressions.list_page(db, "acme", suppressions.Entries()))
        assert found == ([], 0)
