from arkrelay.policy.turns import MAX_LANES, MAX_TENANTS, Turns


def test_the_tenant_who_was_served_longest_ago_is_next() -> None:
    turns = Turns()
    for number in range(1000):
        turns.wait(f"d{number}.test", ["google"], ["flood"])
    turns.wait("single.test", ["google"], ["small"])
    order = []
    for tenant_id in ("flood", "small", "flood"):
        order.append(turns.next("google"))
        turns.served("google", tenant_id)
    assert order == ["d0.test", "single.test", "d1.test"]
    assert turns.next("other") is None


def test_a_destination_of_two_tenants_counts_by_the_one_who_waits_longer() -> None:
    turns = Turns()
    turns.served("mx", "a")
    turns.served("mx", "b")
    turns.wait("b.test", ["mx"], ["b"])
    turns.wait("both.test", ["mx"], ["a", "b"])
    assert [turns.next("mx"), turns.next("mx"), turns.next("mx")] == ["both.test", "b.test", None]


def test_who_waits_for_several_lanes_takes_the_first_and_leaves_the_others() -> None:
    turns = Turns()
    turns.wait("a.test", ["mx@one", "mx@two"], ["t"])
    turns.wait("b.test", ["mx@two"], ["t"])
    assert turns.places("a.test") == ("mx@one", "mx@two")
    assert turns.next("mx@one") == "a.test"
    assert not turns.wanted("mx@one")
    assert turns.next("mx@two") == "b.test"
    assert turns.lanes() == []
    turns.wait("a.test", ["mx@one"], ["t"])
    turns.wait("a.test", ["mx@two"], ["t"])  # it has thought better of it
    assert turns.lanes() == ["mx@two"]
    turns.leave("a.test")
    assert turns.places("a.test") == ()
    assert turns.next("mx@two") is None


def test_memory_is_bounded() -> None:
    turns = Turns()
    for number in range(2 * MAX_TENANTS):
        turns.served("mx", f"t{number}")
    for number in range(2 * MAX_LANES):
        turns.served(f"mx{number}", "t")
    assert len(turns._served) == MAX_LANES
    assert all(len(tenants) <= MAX_TENANTS for tenants in turns._served.values())
