"""What was said in attempts: kept beside them, found again, and forgotten before them."""

from dataclasses import replace

from unit.store.build import NOW, accept, attempt, count, outcome

from arkrelay.model.message import Recipient, Status
from arkrelay.model.settings import Retention
from arkrelay.model.transcript import Spoken, Who
from arkrelay.store import history, prune
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply

DAY = 86400.0


async def settle(store: Store, said: list[tuple[Recipient, str]], at: float = NOW) -> None:
    """Write an attempt with its transcript for each of them, in one job."""
    outcomes = [
        outcome(one, Status.SOFTFAIL, at=at, attempt=replace(attempt(one, 450, at=at), transcript=text), due_at=at)
        for one, text in said
    ]
    await store.write(lambda db: apply(db, outcomes))


async def kept(store: Store, of: Recipient) -> list[tuple[Spoken, ...] | None]:
    found = await store.read(lambda db: history.list_attempts(db, of.id))
    return [one.transcript for one in found]


async def test_each_attempt_has_its_own_and_one_without_has_none(store: Store) -> None:
    recipients = [await accept(store) for _ in range(40)]
    await settle(store, [(one, f"0*{one.id}" if one.id % 3 else "") for one in recipients])
    await settle(store, [(recipients[1], "5>again")], NOW + 9)
    for one in recipients:
        first = (Spoken(0, Who.NOTE, str(one.id)),) if one.id % 3 else None
        more = [(Spoken(5, Who.WE, "again"),)] if one is recipients[1] else []
        assert await kept(store, one) == [first, *more]


async def test_they_are_forgotten_after_their_retention_in_small_steps_and_the_attempt_stays(
    store: Store,
) -> None:
    old = [(await accept(store), "0*old") for _ in range(5)]
    young = [(await accept(store), "0*young") for _ in range(5)]
    await settle(store, old, NOW)
    await settle(store, young, NOW + 2 * DAY)
    now = NOW + 15 * DAY
    assert not await store.write(lambda db: prune.prune_step(db, now, Retention()))
    for one, _ in old:
        assert await kept(store, one) == [None]
    for one, _ in young:
        assert await kept(store, one) == [(Spoken(0, Who.NOTE, "young"),)]
    assert await store.read(lambda db: count(db, "attempts")) == 10
    await store.write(lambda db: prune.prune_step(db, now, Retention(transcripts_s=0)))
    assert await store.read(lambda db: count(db, "transcripts")) == 0


async def test_they_go_with_their_message_and_never_come_back_under_another(store: Store) -> None:
    gone = await accept(store)
    await settle(store, [(gone, "0*gone")])
    await store.write(lambda db: apply(db, [outcome(gone, Status.HARDFAIL, attempt=attempt(gone, 550))]))
    await store.write(lambda db: prune.prune_step(db, NOW + 61 * DAY, Retention(transcripts_s=1000 * DAY)))
    assert await store.read(lambda db: count(db, "transcripts")) == 0
    fresh = await accept(store, at=NOW + 61 * DAY)
    await settle(store, [(fresh, "")])
    assert await kept(store, fresh) == [None]
