"""Lanes for people: what is in trouble comes first, and is what the whole list calls so."""

from unit.relay.rig import NOW, Rig

from arkrelay.policy.pace import Order
from arkrelay.relay.lanes import look, troubled


async def test_the_lanes_in_trouble_are_those_of_the_whole_list_most_at_stake_first(rig: Rig) -> None:
    queue = rig.queue
    for number in range(6):
        await rig.accept(*(rig.recipient(f"a{n}@d{number}.test") for n in range(number + 1)))
        queue.note_due(f"d{number}.test", "acme", NOW)
    for number in (1, 4):
        queue.schedule.rest(queue.schedule.lane(f"d{number}.test"), NOW + 600, "down")
    queue.pace.slow("d2.test", NOW, "too many")
    queue.pace.order("d3.test", Order(rest=True))
    queue.pace.block("d5.test", NOW, 0.0, "listed")
    wanted = {one.lane for one in look(queue, NOW) if one.state in {"slow", "resting"} or one.order.rest}
    views, more = troubled(queue, NOW, 10)
    assert ({one.lane for one in views}, more) == (wanted, 0)
    assert wanted == {"d1.test", "d2.test", "d3.test", "d4.test", "d5.test"}
    assert all(one.reason or one.order.rest for one in views)
    assert [one.lane for one in troubled(queue, NOW, 2)[0]] == [one.lane for one in views[:2]]
    assert troubled(queue, NOW, 2)[1] == 3
