"""The journal: what a killed process leaves is found, and after a reboot it proves nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arkrelay.model.errors import StoreError
from arkrelay.store.journal import SLOTS, Journal, Phase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_phases_survive_and_ended_slots_do_not(path: Path) -> None:
    journal, left, rebooted = Journal.open(path, "boot", 1)
    assert (left, rebooted, journal.busy) == ({}, True, 0)  # a new file proves nothing
    slots = [journal.begin(n) for n in range(1, 6)]
    assert len(set(slots)) == 5
    journal.dot(slots[1])
    journal.dot(slots[2])
    journal.taken(slots[2])
    journal.end(slots[3])
    journal.taken(slots[4])
    journal.end(slots[4])
    journal.end(slots[4])  # harmless twice
    assert journal.busy == 3
    journal.close()
    journal.close()
    expected = {1: Phase.TALKING, 2: Phase.DOT, 3: Phase.TAKEN}
    for _ in range(2):  # a crash before `recovered` finds it again
        journal, left, rebooted = Journal.open(path, "boot", 2)
        assert (left, rebooted, journal.busy) == (expected, False, 0)
        journal.begin(9)
        journal.close()
        expected = expected | {9: Phase.TALKING}
    journal, left, rebooted = Journal.open(path, "boot", 3)
    journal.recovered()
    journal.begin(11)
    journal.close()
    assert Journal.open(path, "boot", 4)[1] == {11: Phase.TALKING}
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_boot_is_noticed_until_it_was_recovered_from(path: Path) -> None:
    Journal.open(path, "boot-1", 1)[0].begin(1)
    for _ in range(2):
        journal, left, rebooted = Journal.open(path, "boot-2", 2)
        assert (left, rebooted) == ({1: Phase.TALKING}, True)
        journal.close()
    journal = Journal.open(path, "boot-2", 3)[0]
    journal.recovered()
    journal.close()
    assert Journal.open(path, "boot-2", 4)[1:] == ({}, False)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda p: p.write_bytes(b""), id="empty"),
        pytest.param(lambda p: p.write_bytes(b"rubbish" * 1000), id="rubbish"),
        pytest.param(lambda p: p.unlink(), id="missing"),
        pytest.param(lambda p: os.truncate(p, 1000), id="torn"),
        pytest.param(lambda p: os.truncate(p, 10), id="less-than-a-header"),
    ],
)
def test_a_damaged_journal_counts_as_a_reboot(path: Path, damage: Callable[[Path], object]) -> None:
    journal = Journal.open(path, "boot", 1)[0]
    journal.begin(1)
    journal.close()
    damage(path)
    journal, left, rebooted = Journal.open(path, "boot", 2)
    assert (left, rebooted) == ({}, True)
    journal.end(journal.begin(5))
    journal.close()


def test_a_half_written_journal_of_a_whole_number_of_slots_is_completed(path: Path) -> None:
    journal = Journal.open(path, "boot", 1)[0]
    slot = journal.begin(1)
    journal.close()
    os.truncate(path, 64 + 16 * 100)
    journal, left, rebooted = Journal.open(path, "boot", 2)
    assert (slot, left, rebooted) == (0, {1: Phase.TALKING}, False)
    for n in range(SLOTS - 1):
        journal.begin(n)
    journal.close()


def test_an_unknown_phase_is_read_as_nobody_knows(path: Path) -> None:
    journal = Journal.open(path, "boot", 1)[0]
    journal.begin(7)
    journal.close()
    with path.open("r+b") as file:
        file.seek(64 + 8)
        file.write(b"\x99")
    assert Journal.open(path, "boot", 2)[1] == {7: Phase.DOT}


def test_it_grows_when_all_slots_are_taken(path: Path) -> None:
    journal = Journal.open(path, "boot", 1)[0]
    slots = [journal.begin(n) for n in range(SLOTS + 10)]
    assert len(set(slots)) == SLOTS + 10
    journal.taken(slots[-1])
    journal.close()
    left = Journal.open(path, "boot", 2)[1]
    assert len(left) == SLOTS + 10
    assert left[SLOTS + 9] is Phase.TAKEN


def test_a_journal_that_cannot_be_opened_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Journal.open(tmp_path / "no" / "journal", "boot", 1)


_CHILD = """
import os, sys
from pathlib import Path
from arkrelay.store.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "boot", 1)[0]
journal.begin(1)
journal.dot(journal.begin(2))
slot = journal.begin(3)
journal.dot(slot)
journal.taken(slot)
journal.end(journal.begin(4))
if sys.argv[2] == "exit":
    os._exit(7)
print("ready", flush=True)
n = 10
while True:
    slot = journal.begin(n)
    journal.dot(slot)
    journal.taken(slot)
    journal.end(slot)
    n += 1
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_process_that_dies_leaves_exact_phases(path: Path, end: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(path), end], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        if end == "kill":
            assert child.stdout.readline() == b"ready\n"
            child.send_signal(signal.SIGKILL)
        assert child.wait() == (7 if end == "exit" else -signal.SIGKILL)
    _, left, rebooted = Journal.open(path, "boot", 2)
    assert not rebooted
    assert {n: phase for n, phase in left.items() if n < 10} == {1: Phase.TALKING, 2: Phase.DOT, 3: Phase.TAKEN}
    assert len(left) <= 4  # the one in hand, at whatever phase
