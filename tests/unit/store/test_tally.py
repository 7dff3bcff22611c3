"""How attempts came out, counted with them: by site, class and tenant, for a day."""

from dataclasses import replace

from unit.store.build import NOW, accept, attempt, count, outcome

from arkrelay.model.attempt import BounceClass
from arkrelay.model.message import Recipient, Status
from arkrelay.model.settings import Retention
from arkrelay.store import prune, tally
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply

HOUR = 3600.0


async def tried(
    store: Store, of: Recipient, site: str, bounce_class: BounceClass | None = None, at: float = NOW
) -> None:
    status = Status.SENT if bounce_class is None else Status.HARDFAIL
    one = outcome(of, status, at=at, attempt=replace(attempt(of, at=at), site=site), bounce_class=bounce_class)
    await store.write(lambda db: apply(db, [one]))


async def day(
    store: Store, now: float = NOW, tenant_id: str | None = None, site: str | None = None
) -> dict[str, int]:
    return dict(await store.read(lambda db: tally.last_day(db, now, tenant_id, site)))


async def test_attempts_are_counted_by_site_class_and_tenant(store: Store) -> None:
    for _ in range(3):
        await tried(store, await accept(store), "google")
    await tried(store, await accept(store), "google", BounceClass.POLICY)
    await tried(store, await accept(store), "smarthost.test:587", BounceClass.POLICY)
    await tried(store, await accept(store, tenant_id="other"), "google", BounceClass.TRY_LATER)
    await tried(store, await accept(store), "", BounceClass.NO_DOMAIN)
    await tried(store, await accept(store), "")  # the capture box, a test key
    assert await day(store) == {"taken": 3, "policy": 2, "try_later": 1, "no_domain": 1}
    assert await day(store, site="google") == {"taken": 3, "policy": 1, "try_later": 1}
    assert await day(store, site="google", tenant_id="acme") == {"taken": 3, "policy": 1}
    assert await day(store, site="smarthost.test:587") == {"policy": 1}
    assert await day(store, site="nobody.test") == {}


async def test_a_day_is_looked_back_and_two_are_kept(store: Store) -> None:
    for hours in range(50):
        await tried(store, await accept(store), "google", BounceClass.POLICY, at=NOW + hours * HOUR)
    now = NOW + 49 * HOUR + 1800
    assert await day(store, now) == {"policy": 25}  # 24 whole hours, and the one that has begun
    while await store.write(lambda db: prune.prune_step(db, now, Retention())):
        pass
    assert await day(store, now) == {"policy": 25}
    kept = await store.read(
        lambda db: db.execute("SELECT min(start) FROM counters WHERE name = ?", (tally.ATTEMPTS,)).fetchone()
    )
    assert kept == (int(NOW + HOUR) // 3600 * 3600,)
    assert await store.read(lambda db: count(db, "attempts")) == 50
