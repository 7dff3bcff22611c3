"""A process killed while it writes: what it acknowledged is there, and nothing is there by half."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from unit.store.build import count

from arkrelay.model.message import Status
from arkrelay.store import bodies, queue, usage
from arkrelay.store.backup import check
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.journal import Journal, Phase

_CHILD = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from unit.store.build import accept, settle
from arkrelay.store.database import Store
from arkrelay.store.journal import Journal

async def work(store, journal):
    while True:
        one = await accept(store, content=b"x" * 4000, leased=True)
        os.write(1, f"accepted {one.id}\\n".encode())
        slot = journal.begin(one.id)
        journal.dot(slot)
        os.write(1, f"dot {one.id}\\n".encode())
        journal.taken(slot)
        await settle(store, one)
        journal.end(slot)
        os.write(1, f"settled {one.id}\\n".encode())

async def main():
    store = Store.open(Path(sys.argv[1]))
    journal = Journal.open(Path(sys.argv[1]) / "journal", "boot", store.epoch)[0]
    journal.recovered()
    await asyncio.gather(*(work(store, journal) for _ in range(20)))

asyncio.run(main())
"""


def _run_and_kill(state_dir: Path, lines: int, said: dict[str, set[int]]) -> None:
    """Let a child write, kill it after so many lines, and add what it had said by then."""
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", _CHILD, str(state_dir), tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for number, line in enumerate(child.stdout):
            if number == lines:
                child.send_signal(signal.SIGKILL)
            if line.endswith("\n"):
                word, _, id_ = line.partition(" ")
                said[word].add(int(id_))
    assert child.returncode == -signal.SIGKILL


async def _settle_all(store: Store, n: int) -> None:
    """What a daemon would do after its start, in short."""

    def job(db: Connection) -> None:
        db.execute("UPDATE recipients SET status = 'sent', lease = 0, due_at = NULL")
        db.execute("UPDATE counters SET n = CASE item WHEN 'sent' THEN ? ELSE 0 END WHERE name = 'total'", (n,))

    await store.write(job)


async def test_a_killed_process_loses_nothing_that_it_acknowledged(state_dir: Path) -> None:
    said: dict[str, set[int]] = {"accepted": set(), "dot": set(), "settled": set()}
    for round_number in range(5):
        _run_and_kill(state_dir, 100 + 77 * round_number, said)
        store = Store.open(state_dir)
        journal, left, rebooted = Journal.open(state_dir / "journal", "boot", store.epoch)
        assert not rebooted or round_number == 0
        recovery = await store.write(partial(queue.recover, left=left, rebooted=False, epoch=store.epoch, now=0.0))
        rows = await store.read(lambda conn: conn.execute("SELECT id, status FROM recipients").fetchall())
        found = dict(rows)
        assert said["accepted"] <= found.keys()
        assert all(found[id_] == "sent" for id_ in said["settled"])
        unsettled = {id_ for id_, status in rows if status != "sent"}
        taken, uncertain = {one.id for one in recovery.taken}, {one.id for one in recovery.uncertain}
        assert said["dot"] & unsettled <= taken | uncertain  # past the dot is never simply tried again
        assert len(taken | uncertain) <= 20
        assert {left[id_] for id_ in uncertain} <= {Phase.DOT}
        for table in ("messages", "bodies"):
            assert await store.read(partial(count, table=table)) == len(rows)
        totals = await store.read(usage.totals)
        assert totals[Status.SENT] == len(rows) - len(unsettled)
        await _settle_all(store, len(rows))
        journal.recovered()
        journal.close()
        assert await store.read(lambda conn: bodies.load(conn, 1)) == b"x" * 4000
        store.close()
        assert check(state_dir) == []
