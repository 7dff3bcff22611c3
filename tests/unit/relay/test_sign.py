"""Signatures off the event loop: in batches, each message by itself."""

import asyncio
import threading
from typing import Any

import pytest

from arkrelay.mail.dkim import Signer, generate_key, load_key, sign
from arkrelay.relay import sign as signing
from arkrelay.relay.sign import BATCH, THREADS, Signing

CONTENT = b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n"
AT = 1_800_000_000.0


@pytest.fixture
def signer() -> Signer:
    key = load_key(generate_key("ed25519-sha256"), "ed25519-sha256")
    return Signer("sender.test", "s1", "ed25519-sha256", key)


async def test_every_message_gets_its_own_signature(signer: Signer) -> None:
    desk = Signing()
    messages = [CONTENT + b"%d\r\n" % number for number in range(5 * BATCH)]
    fields = await asyncio.gather(*(desk.sign(one, [signer], AT) for one in messages))
    assert len(set(fields)) == len(messages)
    assert all(field.startswith(b"DKIM-Signature: ") and field.endswith(b"\r\n") for field in fields)
    desk.close()


async def test_without_a_signer_there_is_no_signature_and_no_thread() -> None:
    desk = Signing()
    assert await desk.sign(CONTENT, [], AT) == b""
    desk.close()


async def test_an_error_is_raised_where_it_belongs_and_leaves_the_others_alone(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(content: bytes, signers: Any, at: float) -> bytes:
        if b"poison" in content:
            raise ValueError("a bug")
        return sign(content, signers, at)

    monkeypatch.setattr(signing, "sign", sometimes)
    desk = Signing()
    results = await asyncio.gather(
        *(desk.sign(CONTENT + (b"poison" if n % 3 == 0 else b""), [signer], AT) for n in range(12)),
        return_exceptions=True,
    )
    assert [isinstance(one, ValueError) for one in results] == [n % 3 == 0 for n in range(12)]
    desk.close()


async def test_a_caller_that_went_away_costs_the_others_nothing(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(content: bytes, signers: Any, at: float) -> bytes:
        assert gate.wait(10)
        return sign(content, signers, at)

    monkeypatch.setattr(signing, "sign", slow)
    desk = Signing()
    gone = asyncio.create_task(desk.sign(CONTENT, [signer], AT))
    others = [asyncio.create_task(desk.sign(CONTENT, [signer], AT)) for _ in range(3 * THREADS * BATCH)]
    await asyncio.sleep(0)
    gone.cancel()
    gate.set()
    assert all(await asyncio.gather(*others))
    assert gone.cancelled()
    desk.close()


async def test_closing_signs_what_waits_and_ends_the_threads(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(signing, "sign", lambda *_: gate.wait(10) and b"x")
    before = threading.active_count()
    desk = Signing()
    tasks = [asyncio.create_task(desk.sign(CONTENT, [signer], AT)) for _ in range((THREADS + 1) * BATCH)]
    await asyncio.sleep(0)
    gate.set()
    desk.close()
    assert await asyncio.gather(*tasks) == [b"x"] * len(tasks)
    assert threading.active_count() == before
