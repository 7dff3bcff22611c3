"""The truth about what happened: messages, recipients, attempts, events, in SQLite under ``state_dir``.

One database file, one writer thread, a few reading threads. A hot write is a *job*: a plain function of a
connection, short, without I/O or await, which may be run twice. Many coroutines' jobs share one transaction and
one fsync (``writer``), so "250 means on disk" costs little: WAL with ``synchronous=FULL``, because NORMAL may
roll back committed transactions at a power cut. Checkpoints have a thread of their own (``checkpoint``).

Keys inside are integers in order of acceptance, public ids are ordered by time: both append to their B-trees
instead of scattering over them. Bodies live apart from the rows that lists and queue read; above 256 KB they are
files. Numbers that people ask for are kept as counters in the same transaction and never counted on request.

What has to survive the process but not the machine (which recipient is past its final dot) is not worth an
fsync each: the ``journal`` keeps it in a mapped file, which the page cache carries over a ``kill -9``. After
a power cut the journal proves nothing, and every recipient that was in hand is treated as uncertain.

A full disk is foreseen (``place.Reserve``): SQLite needs room even to record that mail was delivered, and mail
whose delivery cannot be recorded would be delivered again. The reserve is that room.
"""
