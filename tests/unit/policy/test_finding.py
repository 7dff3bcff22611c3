"""What the doctor remembers from one look to the next, and in which order it speaks."""

from arkrelay.policy.finding import Finding, Level, Report, changes, in_order, levels_after

OK = Finding("ptr", "192.0.2.1", Level.OK, "fine")
BAD = Finding("ptr", "192.0.2.1", Level.FAIL, "no PTR record")
UNKNOWN = Finding("ptr", "192.0.2.1", Level.SKIP, "SERVFAIL")


def test_a_change_is_told_once_and_what_could_not_be_asked_changes_nothing() -> None:
    levels: dict[str, Level] = {}
    told = []
    for one in (OK, BAD, BAD, UNKNOWN, BAD, OK, OK):
        told += [(change.before, change.finding.level) for change in changes(levels, [one])]
        levels = levels_after(levels, [one])
    assert told == [(Level.OK, Level.FAIL), (Level.FAIL, Level.OK)]


def test_what_is_new_and_bad_is_told_and_what_is_gone_is_forgotten() -> None:
    assert [change.before for change in changes({}, [BAD])] == [None]
    assert changes({}, [OK]) == []
    assert levels_after({BAD.key: Level.FAIL}, []) == {}
    assert levels_after({}, [UNKNOWN]) == {}


def test_the_machine_comes_first_then_domain_by_domain() -> None:
    of_domain = Finding("spf", "a.test", Level.OK, "pass", domain="a.test")
    disk = Finding("disk", "/var", Level.OK, "room")
    assert in_order([of_domain, disk, BAD]) == (BAD, disk, of_domain)
    assert Report((OK, BAD), 0.0).counts() == {"ok": 1, "warn": 0, "fail": 1, "skip": 0}
