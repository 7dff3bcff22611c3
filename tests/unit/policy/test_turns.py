from arkrelay.policy.turns import MAX_SITES, MAX_TENANTS, Turns


def test_the_tenant_who_was_served_longest_ago_is_next() -> None:
    turns = Turns()
    waiting = [(f"d{n}.test", {"flood": None}) for n in range(1000)] + [("single.test", {"small": None})]
    assert turns.next("google", waiting) == "d0.test"
    turns.served("google", "flood")
    assert turns.next("google", waiting) == "single.test"
    turns.served("google", "small")
    assert turns.next("google", waiting) == "d0.test"
    assert turns.next("other", waiting) == "d0.test"
    assert turns.next("google", []) is None


def test_a_destination_of_two_tenants_counts_by_the_one_who_waits_longer() -> None:
    turns = Turns()
    turns.served("mx", "a")
    turns.served("mx", "b")
    assert turns.next("mx", [("b.test", {"b": None}), ("both.test", {"a": None, "b": None})]) == "both.test"


def test_memory_is_bounded() -> None:
    turns = Turns()
    for number in range(2 * MAX_TENANTS):
        turns.served("mx", f"t{number}")
    for number in range(2 * MAX_SITES):
        turns.served(f"mx{number}", "t")
    assert len(turns._served) == MAX_SITES
    assert all(len(tenants) <= MAX_TENANTS for tenants in turns._served.values())
