"""DATA against the running doors: smuggling, line ends, sizes, commits."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from protocol.smtpd_rig import BOUND, WAIT_S, contents, running

SECOND = b"MAIL FROM:<ceo@acme.test>\r\nRCPT TO:<victim@dest.test>\r\nDATA\r\nFrom: ceo\r\n\r\nsmuggled\r\n.\r\n"
ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\n. \r\n",
    b"\r\n .\r\n",
    b"\r\n.\x0b\r\n",
    b"\r\n.\x85\r\n",
    b"\xe2\x80\xa8.\xe2\x80\xa8",
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("bare_newline", ["normalize", "reject"])
async def test_no_other_sequence_ends_a_message(tmp_path: Path, end: bytes, bare_newline: str) -> None:
    async with running(tmp_path, smtp=f'bare_newline = "{bare_newline}"\n') as rig:
        client = await rig.connect()
        await client.to_data()
        client.send(b"From: app\r\n\r\nfirst" + end + SECOND)
        reply = await client.reply()
        odd = end.replace(b"\r\n", b"")
        bad = b"\r" in odd or b"\0" in odd or (b"\n" in odd and bare_newline == "reject")
        assert reply.code == (550 if bad else 250)
        assert reply.text.startswith("5.6.0 " if bad else "2.0.0 ")
        await client.expect("NOOP", 250)
        assert len(rig.notebook.submissions) == (0 if bad else 1)
        for content in contents(rig.notebook):
            assert b"smuggled" in content
            assert b"\n" not in content.replace(b"\r\n", b"")
            assert b"\r" not in content.replace(b"\r\n", b"")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
async def test_content_arrives_byte_for_byte_however_it_is_cut(tmp_path: Path, size: int) -> None:
    text = (
        b"Subject: \xc3\xa9\r\n\r\n" + b"..\r\n.x\r\n" + bytes(range(32, 256)) + b"\r\n" + b"y" * 3000 + b"\r\n\r\n"
    )
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_data()
        wire = text.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        for start in range(0, len(wire), size):
            client.send(wire[start : start + size])
            if start % (size * 200) == 0:
                await client.writer.drain()
        assert (await client.reply()).code == 250
        assert contents(rig.notebook) == [text]


async def test_the_size_limit_holds_to_the_byte(tmp_path: Path) -> None:
    async with running(tmp_path, smtp='max_message = "1000B"\n') as rig:
        client = await rig.connect()
        for length, code in ((998, 250), (999, 552), (1200, 552)):
            await client.to_rcpt()
            await client.expect("DATA", 354)
            reply = await client.expect(b"x" * length + b"\r\n.", code)
            assert reply.text.startswith("2.0.0" if code == 250 else "5.3.4")
        await client.to_data()
        # stuffed dots do not count (RFC 1870 §6.3); bare LF counts as the two bytes that it becomes
        await client.expect(b"..\r\n" * 333 + b".", 250)
        assert len(contents(rig.notebook)[1]) == 999
        await client.to_data()
        await client.expect(b"\n" * 990 + b"\r\n.", 552)
        await client.expect("MAIL FROM:<app@acme.test> SIZE=1000", 250)
        await client.expect("RSET", 250)
        await client.expect("MAIL FROM:<app@acme.test> SIZE=1001", 552)


async def test_too_large_a_message_is_drained_and_the_session_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, smtp='max_message = "100KB"\n') as rig:
        client = await rig.connect()
        await client.to_data()
        client.send((b"x" * 998 + b"\r\n") * 3000 + b".\r\n")
        reply = await client.reply()
        assert (reply.code, reply.text[:5]) == (552, "5.3.4")
        await client.to_data()
        await client.expect("x\r\n.", 250)
        assert contents(rig.notebook) == [b"x\r\n"]


async def test_an_endless_line_is_ended_with_552_and_its_memory_is_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, smtp='max_message = "1MB"\n') as rig:
        client = await rig.connect()
        await client.to_data()
        session = next(iter(rig.doors._shared.sessions))
        sent, most = 0, 0
        replying = asyncio.create_task(client.reply())
        with contextlib.suppress(ConnectionError):
            while sent < 64_000_000 and not replying.done():
                client.send(b"x" * 100_000)
                sent += 100_000
                await client.writer.drain()
                most = max(most, len(session.input.buffer))
        reply = await replying
        assert (reply.code, reply.text[:5]) == (552, "5.3.4")
        assert 16_000_000 < sent < 64_000_000
        assert most <= 400_000
        assert rig.notebook.submissions == []


async def test_long_lines_are_common_and_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_data()
        await client.expect(b"x" * 1_000_000 + b"\r\n.", 250)
        assert len(contents(rig.notebook)[0]) == 1_000_002


async def test_data_behind_data_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_rcpt()
        client.send(b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        reply = await client.reply()
        assert (reply.code, reply.text[:5]) == (554, "5.5.0")
        assert await client.ended() == b""
        assert rig.notebook.submissions == []


async def test_the_commit_finishes_when_its_client_has_gone(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND) as rig:
        for leave in ("close", "reset", "half-close"):
            rig.notebook.gate, rig.notebook.finished = asyncio.Event(), asyncio.Event()
            rig.notebook.entered.clear()
            client = await rig.connect()
            await client.to_data()
            client.send(b"x\r\n.\r\n")
            async with asyncio.timeout(WAIT_S):
                await rig.notebook.entered.wait()
                if leave == "reset":
                    client.reset()
                elif leave == "close":
                    client.writer.close()
                else:
                    client.writer.write_eof()
                if leave == "reset":
                    await rig.until_idle()
                rig.notebook.gate.set()
                await rig.notebook.finished.wait()
                if leave == "half-close":
                    assert (await client.reply()).code == 250
                await rig.until_idle()
        assert len(rig.notebook.submissions) == 3


async def test_no_timer_runs_while_we_commit(tmp_path: Path) -> None:
    async with running(tmp_path, smtp='idle_timeout = "200ms"\n') as rig:
        rig.notebook.gate = asyncio.Event()
        client = await rig.connect()
        await client.to_data()
        client.send(b"x\r\n.\r\n")
        session = next(iter(rig.doors._shared.sessions))
        async with asyncio.timeout(WAIT_S):
            await rig.notebook.entered.wait()
            fired, look = asyncio.Event(), session._timeout_cb

            def looked() -> None:
                look()
                fired.set()

            session._timeout_cb = looked  # type: ignore[method-assign]  # to learn that the timer came and went
            assert session._timeout_handle is not None
            session._timeout_handle.cancel()
            session.loop.call_soon(session._timeout_cb)
            await fired.wait()
            fired.clear()
            await fired.wait()
        rig.notebook.gate.set()
        assert (await client.reply()).code == 250
        await client.expect("NOOP", 250)


async def test_a_whole_session_in_one_segment_is_refused_for_its_haste(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        client.send(b"EHLO x\r\nMAIL FROM:<a@acme.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
        client.writer.write_eof()
        codes = [(await client.reply()).code for _ in range(4)]
        assert codes == [250, 250, 250, 554]
        assert rig.notebook.submissions == []


async def test_after_a_half_close_what_came_is_still_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_data()
        client.send(b"x\r\n.\r\nNOOP\r\n")
        client.writer.write_eof()
        assert [(await client.reply()).code for _ in range(2)] == [250, 250]
        assert await client.ended() == b""
        assert len(rig.notebook.submissions) == 1


SESSION = (
    b"EHLO x\r\nMAIL FROM:<a@acme.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
)


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_session_cut_at_any_byte_is_a_message_or_none(tmp_path: Path, leave: str) -> None:
    data_at = SESSION.index(b"DATA\r\n") + 6
    whole_at = SESSION.index(b"\r\n.\r\n") + 5
    async with running(tmp_path, limits="tarpit = '0s'\nconnections_per_minute = 0\n") as rig:
        for cut in range(len(SESSION)):
            client = await rig.connect()
            before = len(rig.notebook.submissions)
            client.send(SESSION[: min(cut, data_at)])
            if cut >= data_at:
                while (await client.reply()).code != 354:
                    pass
                client.send(SESSION[data_at:cut])
            if cut >= whole_at:
                assert (await client.reply()).code == 250
            await client.writer.drain()
            if leave == "reset":
                client.reset()
            else:
                client.writer.close()
            await rig.until_idle()
            assert len(rig.notebook.submissions) - before == (cut >= whole_at)
        assert set(contents(rig.notebook)) == {b"Subject: x\r\n\r\nx\r\n"}
