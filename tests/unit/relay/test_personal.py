"""A surprise while a message is made its recipient's own never keeps the message."""

import re

import pytest
from structlog.testing import capture_logs

from arkrelay.mail.header import HEADER_LIMIT
from arkrelay.mail.tracking import LinkTokens, Wishes
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.model.tenant import TrackDomain
from arkrelay.relay import personal
from arkrelay.relay.personal import Personal, Plan

SECRET = b"0123456789abcdef"
TRACK = TrackDomain(name="track", domain="x.test")
BODY = b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<a href='http://y.test/'>y</a>"
CONTENT = b"From: a@x.test\r\n" + BODY


def made() -> Personal:
    return Personal(None, None, LinkTokens(SECRET), UnsubscribeTokens(SECRET))  # type: ignore[arg-type]  # copies() asks neither


def plan(stream: str | None = "news", wishes: Wishes | None = None) -> Plan:
    wanted = Wishes(opens=True, html_links=True) if wishes is None else wishes
    return Plan("acme", wanted, TRACK, stream, "https://relay.test/u/", "rp.test")


async def test_each_recipient_has_its_own_links_pixel_and_way_out() -> None:
    copies = await made().copies(plan(), CONTENT, [(1, "A" * 16), (2, "B" * 16)])
    assert copies is not None
    one, two = (content.decode() for content in copies.contents)
    for pattern in (
        r"https://track\.x\.test/[\w-]{8}/([\w-]{16})'",
        r"/img/[\w-]{8}/(\w{16})",
        r"/u/(u[0-9a-f]{42})>",
    ):
        left, right = re.search(pattern, one), re.search(pattern, two)
        assert left is not None
        assert right is not None
        assert left[1] != right[1]
    assert copies.links is not None
    assert (copies.links.first_id, copies.links.last_id) == (1, 2)
    assert one.endswith(BODY.decode().rpartition("'")[2]) or "</div>" in one


async def test_what_neither_links_nor_leads_out_goes_to_all_at_once() -> None:
    assert await made().copies(plan(None, Wishes()), CONTENT, [(1, "A" * 16), (2, "B" * 16)]) is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"From: a@x.test\r\nX: " + b"x" * 900 + b"\r\n" * 1 + b"Y: y\r\n" * 999 + BODY, id="fields"),
        pytest.param(
            b"From: a@x.test\r\n"
            + (b"X: " + b"x" * 900 + b"\r\n") * (HEADER_LIMIT // 905)
            + b"Y: "
            + b"y" * 400
            + b"\r\n"
            + BODY,
            id="header-full",
        ),
    ],
)
async def test_a_message_beyond_what_we_look_at_goes_as_it_came(content: bytes) -> None:
    with capture_logs() as logs:
        assert await made().copies(plan(), content, [(1, "A" * 16)]) is None
    assert [line["event"] for line in logs] == ["message_not_personal"]


async def test_copies_without_end_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "COPIES_BYTES", 1000)
    with capture_logs() as logs:
        assert await made().copies(plan(), CONTENT, [(number, "A" * 16) for number in range(99)]) is None
    assert "room" in logs[0]["reason"]


async def test_a_bug_of_ours_costs_the_links_and_not_the_mail() -> None:
    with capture_logs() as logs:  # a number that no token has room for
        assert await made().copies(plan(), CONTENT, [(2**63, "A" * 16)]) is None
    assert logs[0]["event"] == "message_not_personal"
    assert logs[0]["log_level"] == "error"


PARTS = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 1100


@pytest.mark.parametrize(("content", "time_s"), [(PARTS, 2.0), (CONTENT, -1.0)], ids=["parts", "time"])
async def test_a_message_that_takes_too_much_goes_as_it_came_but_can_be_unsubscribed(
    monkeypatch: pytest.MonkeyPatch, content: bytes, time_s: float
) -> None:
    monkeypatch.setattr(personal, "TIME_S", time_s)
    with capture_logs() as logs:
        assert await made().copies(plan(None), content, [(1, "A" * 16)]) is None
        left = await made().copies(plan("news"), content, [(1, "A" * 16)])
    assert [line["event"] for line in logs] == ["message_not_personal", "text_not_personal"]
    assert left is not None
    assert left.contents[0].startswith(b"List-Unsubscribe: <https://relay.test/u/u")
    assert left.contents[0].endswith(b"=One-Click\r\n" + content)


async def test_without_a_track_domain_a_placeholder_is_filled_in_and_links_stay() -> None:
    content = CONTENT.replace(b"y</a>", b"{{unsubscribe_url}}</a>")
    wanted = Plan("acme", Wishes(leave=True), None, "news", "https://relay.test/u/", "rp.test")
    one, two = (await made().copies(wanted, content, [(1, "A" * 16), (2, "B" * 16)])).contents  # type: ignore[union-attr]  # None fails
    addresses = [re.search(rb"List-Unsubscribe: <([^>]+)>", each)[1] for each in (one, two)]  # type: ignore[index]  # None fails
    assert addresses[0] != addresses[1]
    for written, address in zip((one, two), addresses, strict=True):
        assert written.endswith(content.replace(b"{{unsubscribe_url}}", address))
