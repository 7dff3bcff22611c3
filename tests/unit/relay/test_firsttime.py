"""The budget of first-time recipients, in the transaction that accepts the mail."""

import time
from collections.abc import Sequence

import pytest
from unit.relay.rig import Rig

from arkrelay.model.event import EventKind
from arkrelay.model.message import HoldReason, Message, Recipient, Status
from arkrelay.relay.keep import Write, insert
from arkrelay.store import known
from arkrelay.store.accept import Insertion
from arkrelay.store.known import FirstTimes

DAY_S = 86400.0
TODAY = time.time() // DAY_S * DAY_S + 60


class Sender:
    """Writes to addresses, as one tenant with a budget of three new ones a day."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def write(
        self, *addresses: str, budget: int = 3, at: float = TODAY, tenant: str = "acme", credential: str = "app"
    ) -> Sequence[Recipient]:
        rig = self.rig
        message: Message = rig.message(accepted_at=at, tenant_id=tenant, credential=credential)
        recipients = [rig.recipient(address, of=message) for address in addresses]
        write = Write((Insertion(message, recipients, b"x", (), new_daily=budget),), None)
        ((kept,),) = await rig.store.write(lambda db: insert(db, [write], epoch=rig.store.epoch))
        return kept

    async def met(self, tenant: str = "acme", at: float = TODAY, credential: str | None = None) -> FirstTimes:
        return await self.rig.store.read(lambda db: known.first_times(db, tenant, at, credential))


@pytest.fixture
def sender(rig: Rig) -> Sender:
    return Sender(rig)


def held(kept: Sequence[Recipient]) -> list[str]:
    return [one.address.partition("@")[0] for one in kept if one.status is Status.HELD]


async def test_new_recipients_over_the_budget_are_held_and_known_ones_go(rig: Rig, sender: Sender) -> None:
    assert held(await sender.write("a@x.test", "b@x.test")) == []
    kept = await sender.write("b@x.test", "c@x.test", "d@x.test", "e@x.test")
    assert held(kept) == ["d", "e"]
    assert {one.hold_reason for one in kept if one.status is Status.HELD} == {HoldReason.NEW_RECIPIENTS}
    assert "budget of 3 such recipients a day" in kept[2].reason
    assert kept[2].due_at is None
    assert held(await sender.write("A@X.test", "c@x.test")) == []  # without regard to case
    assert held(await sender.write("d@x.test")) == ["d"]  # who was held was not written to
    assert await sender.met() == FirstTimes(3, 3)
    events = await rig.events()
    assert events.count(EventKind.NEW_RECIPIENTS_EXCEEDED) == 1
    assert events.count(EventKind.HELD) == 3


async def test_the_budget_begins_anew_at_midnight(rig: Rig, sender: Sender) -> None:
    assert held(await sender.write("a@x.test", "b@x.test", "c@x.test", "d@x.test")) == ["d"]
    assert held(await sender.write("d@x.test", at=TODAY + DAY_S)) == []
    await sender.write("e@x.test", "f@x.test", "g@x.test", at=TODAY + DAY_S)
    assert (await rig.events()).count(EventKind.NEW_RECIPIENTS_EXCEEDED) == 2
    await rig.store.write(lambda db: known.prune(db, TODAY + DAY_S))
    assert await sender.met() == FirstTimes(0, 0)
    assert await sender.met(at=TODAY + DAY_S) == FirstTimes(3, 1)


async def test_tenants_and_credentials_are_counted_apart(sender: Sender) -> None:
    assert held(await sender.write("a@x.test", "b@x.test", credential="one")) == []
    assert held(await sender.write("c@x.test", "d@x.test", credential="two")) == ["d"]
    assert held(await sender.write("a@x.test", "b@x.test", "c@x.test", tenant="other")) == []
    assert await sender.met(credential="one") == FirstTimes(2, 0)
    assert await sender.met(credential="two") == FirstTimes(1, 1)
    assert await sender.met() == FirstTimes(3, 1)


async def test_one_address_twice_in_a_message_is_one(sender: Sender) -> None:
    assert held(await sender.write("a@x.test", "A@x.test", "b@x.test", "c@x.test")) == []
    assert await sender.met() == FirstTimes(3, 0)


async def test_whom_a_tenant_wrote_to_before_it_had_a_budget_is_known(rig: Rig, sender: Sender) -> None:
    old = [await sender.write(f"old{i}@x.test", budget=0) for i in range(2)]
    assert await sender.met() == FirstTimes(0, 0)
    rows = [(one.id,) for (one,) in old[:1]]
    await rig.store.write(
        lambda db: db.executemany("UPDATE recipients SET status = 'sent', attempts = 1 WHERE id = ?", rows)
    )
    assert held(await sender.write("old0@x.test", "n1@x.test", "n2@x.test", "n3@x.test")) == []
    assert held(await sender.write("old0@x.test", "old1@x.test")) == ["old1"]  # which was never tried
    assert held(await sender.write("old0@x.test", tenant="other", budget=1)) == []  # another's history is not ours
    assert await sender.met("other") == FirstTimes(1, 0)


async def test_a_deleted_tenant_knows_nobody_any_more(rig: Rig, sender: Sender) -> None:
    await sender.write("a@x.test", "b@x.test", "c@x.test")
    await sender.write("a@x.test", tenant="other")
    while await rig.store.write(lambda db: known.forget_tenant(db, "acme", 2)):
        pass
    assert await sender.met() == FirstTimes(0, 0)
    assert await rig.store.read(lambda db: known.known(db, "other", "a@x.test"))
    assert not await rig.store.read(lambda db: known.known(db, "acme", "a@x.test"))
