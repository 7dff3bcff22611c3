"""Reports about simulated recipients come to the return path of their own message, as a stranger would send them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from arkrelay.mail.tracking import LinkTokens
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.message import Door, Message, Recipient
from arkrelay.model.settings import Settings
from arkrelay.model.tenant import Tenant
from arkrelay.relay import simulator
from arkrelay.relay.simulator import Simulator

SECRET = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("name", "kind"), [("bounce", b"message/delivery-status"), ("complaint", b"message/feedback-report")]
)
async def test_a_report_comes_to_the_return_path_of_its_recipient(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: bytes
) -> None:
    monkeypatch.setattr(simulator, "AFTER_S", 0.0)
    paths = ReturnPaths(SECRET)
    live: Any = SimpleNamespace(
        snapshot=SimpleNamespace(
            tenants={"acme": Tenant(id="acme", name="Acme")}, settings=Settings(hostname="r.test")
        )
    )
    settler: Any = SimpleNamespace(attempted=lambda _recipient, _attempt, done: done())
    nobody: Any = None
    made = Simulator(live, settler, nobody, nobody, LinkTokens(SECRET), UnsubscribeTokens(SECRET), paths)
    reports: asyncio.Queue[tuple[Recipient, str, bytes]] = asyncio.Queue()

    async def report(recipient: Recipient, local: str, content: bytes) -> None:
        await reports.put((recipient, local, content))

    made.report = report
    message = Message(1, "acme", Door.REST, None, 0.0, "<1@x.test>", "a@x.test", "x.test", "a@x.test")
    finished = asyncio.Event()
    made.play(Recipient(77, message, "t" * 16, f"{name}@sim.test", "sim.test", "simulator:"), finished.set)
    async with asyncio.timeout(5):
        await finished.wait()
        recipient, local, content = await reports.get()
    await made.stop()
    assert recipient.id == 77
    assert paths.parse(local, 0.0) == 77
    assert f"To: <{local}@rp.r.test>".encode() in content
    assert kind in content
    assert f"{name}@sim.test".encode() in content
