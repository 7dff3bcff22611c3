"""Notices are written with what they tell of, once, and by whom the host's mail is signed."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from unit.relay.rig import NOW, Rig

from arkrelay.model.attempt import Attempt
from arkrelay.model.message import Door, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Reply, Stage
from arkrelay.policy.notify import Action
from arkrelay.relay import notices
from arkrelay.relay.notices import Notices, signers_of
from arkrelay.store import bodies
from arkrelay.store.find import Filters, page
from arkrelay.store.outcomes import apply

NO = Reply(550, "5.1.1", "who is that?", Stage.RCPT)
LATER = Reply(451, "4.2.0", "come back", Stage.RCPT)


async def written(rig: Rig) -> list[Recipient]:
    found = await rig.store.read(lambda db: page(db, Filters(tenant_id="acme"), 1, 100))
    return [one for one in found if one.message.door is Door.DSN]


async def test_a_notice_is_on_disk_when_the_failure_is(rig: Rig) -> None:
    one = rig.recipient("bob@rcpt.test", notify="FAILURE")
    await rig.accept(one, leased=True)
    told: list[str] = []
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, NO), lambda: told.append("done"))
    assert rig.settler.unwritten == 1
    assert await rig.settler.drained(10)
    assert told == ["done"]
    (notice,) = await written(rig)
    assert (notice.address, notice.message.return_path, notice.notify) == ("app@sender.test", None, "NEVER")
    assert notice.destination == "sender.test"
    lane = rig.queue.lane("sender.test")
    assert lane is not None
    content = await rig.store.read(lambda db: bodies.load(db, notice.message.id))
    assert b"Final-Recipient: rfc822; bob@rcpt.test\r\n" in content


async def test_a_notice_of_mail_that_requires_tls_requires_it_too_and_has_no_body(rig: Rig) -> None:
    message = rig.message(ret="FULL")
    one = rig.recipient("bob@rcpt.test", message, notify="FAILURE", destination="requiretls:rcpt.test")
    await rig.accept(one, leased=True)
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, NO))
    assert await rig.settler.drained(10)
    (notice,) = await written(rig)
    assert notice.destination == "requiretls:sender.test"
    content = await rig.store.read(lambda db: bodies.load(db, notice.message.id))
    assert b"message/rfc822" not in content


async def test_a_late_outcome_tells_nobody(rig: Rig) -> None:
    one = rig.recipient(notify="FAILURE")
    await rig.accept(one, leased=True)
    rig.settler.settle(Outcome(one, NOW, Status.SENT, "taken", 1))
    assert await rig.settler.drained(10)
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, NO))
    assert await rig.settler.drained(10)
    assert await written(rig) == []
    assert (await rig.load(one)).status is Status.SENT


async def test_a_delay_is_told_once_though_two_attempts_fail_beyond_it(rig: Rig) -> None:
    one = rig.recipient(notify="DELAY", delay_at=NOW - 1)
    await rig.accept(one, leased=True)
    for _ in range(2):
        rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, LATER))
        assert await rig.settler.drained(10)
    assert len(await written(rig)) == 1


async def test_a_notice_that_cannot_be_made_costs_no_outcome(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stumble(*_: Any) -> None:
        raise ArithmeticError("a bug")

    monkeypatch.setattr(Notices, "make", stumble)
    one = rig.recipient(notify="FAILURE")
    await rig.accept(one, leased=True)
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, NO))
    assert await rig.settler.drained(10)
    assert (await rig.load(one)).status is Status.HARDFAIL
    assert await written(rig) == []


async def test_a_message_whose_content_is_gone_is_told_of_without_it(rig: Rig) -> None:
    one = rig.recipient(notify="FAILURE")
    await rig.accept(one, leased=True)
    await rig.store.write(lambda db: bodies.drop(db, [one.message.id]))
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, NO))
    assert await rig.settler.drained(10)
    (notice,) = await written(rig)
    assert b"rfc822-headers" not in await rig.store.read(lambda db: bodies.load(db, notice.message.id))


async def test_nobody_is_told_of_mail_whose_tenant_is_gone(rig: Rig) -> None:
    rig.live.snapshot = replace(rig.live.snapshot, tenants={})
    made = Notices(rig.store, rig.live, rig.signing)
    one = rig.recipient(notify="FAILURE")
    assert made.wanted(Outcome(one, NOW, Status.HARDFAIL, "gone", 1)) is None


async def test_a_job_that_runs_twice_writes_the_same_notice(rig: Rig) -> None:
    """The writer may run a job again after its transaction was undone."""
    one = rig.recipient(notify="FAILURE")
    await rig.accept(one, leased=True)
    outcome = Outcome(one, NOW, Status.HARDFAIL, "no", 1, attempt=Attempt(one.id, NOW, 0.1, NO), details="no")
    async with asyncio.timeout(10):
        notice = await Notices(rig.store, rig.live, rig.signing).make(Action.FAILED, outcome)

    def job(db: Any) -> None:
        db.execute("SAVEPOINT first")
        for _ in range(2):
            apply(db, [outcome])
            notices.insert(db, [notice], rig.store.epoch)
            db.execute("ROLLBACK TO first") if _ == 0 else None

    await rig.store.write(job)
    assert len(await written(rig)) == 1


def test_the_hosts_own_domain_signs_or_one_above_it(rig: Rig) -> None:
    class Owners:
        def __init__(self, hostname: str, signing: dict[str, str]) -> None:
            self.settings = replace(rig.live.snapshot.settings, hostname=hostname)
            self._signing = signing

        def owner_of(self, domain: str) -> Any:
            tenants = rig.live.snapshot.tenants
            return (tenants["acme"], None) if domain in self._signing else None

        def signers(self, _tenant_id: str, domain: str) -> tuple[str, ...]:
            return (self._signing[domain],) if self._signing[domain] else ()

    def signed(hostname: str, **domains: str) -> Any:
        return signers_of(Owners(hostname, {name.replace("_", "."): key for name, key in domains.items()}))  # type: ignore[arg-type]  # as much of a snapshot as it asks

    assert signed("relay.example.test", example_test="above") == ("above",)
    assert signed("relay.example.test", relay_example_test="own", example_test="above") == ("own",)
    assert signed("relay.example.test", relay_example_test="", example_test="above") == ("above",)
    assert signed("relay.example.test", test="top") == ()
    assert signed("relay.example.test") == ()
