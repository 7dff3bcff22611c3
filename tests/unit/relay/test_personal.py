"""A surprise while a message is made its recipient's own never keeps the message."""

import asyncio
import re

import pytest
from structlog.testing import capture_logs

from arkrelay.mail.header import HEADER_LIMIT
from arkrelay.mail.tracking import LinkTokens, Wishes
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.model.tenant import TrackDomain
from arkrelay.relay import copies as copying
from arkrelay.relay import personal
from arkrelay.relay.copies import NotPersonal, Numbers, Places, Plan
from arkrelay.relay.personal import Personal

SECRET = b"0123456789abcdef"
TRACK = TrackDomain(name="track", domain="x.test")
BODY = b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<a href='http://y.test/'>y</a>"
CONTENT = b"From: a@x.test\r\n" + BODY


def made() -> Personal:
    return Personal(None, None, LinkTokens(SECRET), UnsubscribeTokens(SECRET))  # type: ignore[arg-type]  # copies() asks neither


async def written(wanted: Plan, content: bytes, recipients: Numbers) -> list[bytes] | None:
    """Return what each recipient gets, or None where that is the message as it came."""
    copies = await made().copies(wanted, content, recipients)
    return None if copies is None else await copies.write(0, len(recipients))


def plan(stream: str | None = "news", wishes: Wishes | None = None) -> Plan:
    wanted = Wishes(opens=True, html_links=True) if wishes is None else wishes
    return Plan("acme", wanted, TRACK, stream, "https://relay.test/u/", "rp.test")


async def test_each_recipient_has_its_own_links_pixel_and_way_out() -> None:
    copies = await made().copies(plan(), CONTENT, [(1, "A" * 16), (2, "B" * 16)])
    assert copies is not None
    one, two = (content.decode() for content in await copies.write(0, 2))
    assert [one, two] == [content.decode() for n in (0, 1) for content in await copies.write(n, n + 1)]
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
    assert one.partition("'>y</a>")[2].startswith("\r\n<div style=")


async def test_what_neither_links_nor_leads_out_goes_to_all_at_once() -> None:
    assert await written(plan(None, Wishes()), CONTENT, [(1, "A" * 16), (2, "B" * 16)]) is None


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
        assert await written(plan(), content, [(1, "A" * 16)]) is None
    assert [line["event"] for line in logs] == ["message_not_personal"]


async def test_copies_without_end_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "COPIES_BYTES", 1000)
    with capture_logs() as logs:
        assert await written(plan(), CONTENT, [(number, "A" * 16) for number in range(99)]) is None
    assert "room" in logs[0]["reason"]


async def test_a_bug_of_ours_costs_the_links_and_not_the_mail() -> None:
    with capture_logs() as logs:  # numbers that no token has room for
        assert await written(plan(), CONTENT, [(2**64, "A" * 16)]) is None
        with pytest.raises(NotPersonal):
            await written(plan(), CONTENT, [(2**63, "A" * 16)])
    assert [(line["event"], line["log_level"]) for line in logs] == [("message_not_personal", "error")] * 2


async def test_one_tenant_has_one_place_of_those_for_work_in_threads() -> None:
    places = Places(2)
    order: list[str] = []

    async def work(tenant_id: str, end: asyncio.Event) -> None:
        async with places.of(tenant_id):
            order.append(tenant_id)
            await end.wait()

    first, others = asyncio.Event(), asyncio.Event()
    others.set()
    tasks = [asyncio.create_task(work("large", first)) for _ in range(5)]
    tasks.append(asyncio.create_task(work("small", others)))
    await asyncio.wait_for(tasks[-1], 10)
    assert order == ["large", "small"], "who came last did not wait for four before it"
    first.set()
    await asyncio.gather(*tasks)
    assert len(order) == 6


PARTS = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 1100


@pytest.mark.parametrize(("content", "time_s"), [(PARTS, 2.0), (CONTENT, -1.0)], ids=["parts", "time"])
async def test_a_message_that_takes_too_much_goes_as_it_came_but_can_be_unsubscribed(
    monkeypatch: pytest.MonkeyPatch, content: bytes, time_s: float
) -> None:
    monkeypatch.setattr(copying, "TIME_S", time_s)
    with capture_logs() as logs:
        assert await written(plan(None), content, [(1, "A" * 16)]) is None
        left = await written(plan("news"), content, [(1, "A" * 16)])
    assert [line["event"] for line in logs] == ["message_not_personal", "text_not_personal"]
    assert left is not None
    assert left[0].startswith(b"List-Unsubscribe: <https://relay.test/u/u")
    assert left[0].endswith(b"=One-Click\r\n" + content)


async def test_without_a_track_domain_a_placeholder_is_filled_in_and_links_stay() -> None:
    content = CONTENT.replace(b"y</a>", b"{{unsubscribe_url}}</a>")
    wanted = Plan("acme", Wishes(leave=True), None, "news", "https://relay.test/u/", "rp.test")
    one, two = await written(wanted, content, [(1, "A" * 16), (2, "B" * 16)]) or [b"", b""]
    addresses = [re.search(rb"List-Unsubscribe: <([^>]+)>", each)[1] for each in (one, two)]  # type: ignore[index]  # None fails
    assert addresses[0] != addresses[1]
    for each, address in zip((one, two), addresses, strict=True):
        assert each.endswith(content.replace(b"{{unsubscribe_url}}", address))
