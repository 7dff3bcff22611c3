"""The DNS records of a sender domain as the files want them, and as DNS has them, without the daemon."""

import asyncio
from collections.abc import Sequence

from arkrelay.cli import output
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.dkim import public_record
from arkrelay.model.tenant import Domain
from arkrelay.policy.records import Record, RecordSet, Verdict, Verdicts, judge_alias, render_rows, wanted
from arkrelay.relay.domains import inspect
from arkrelay.wire.dns import Resolver

COLUMNS = ("TYPE", "NAME", "VALUE", "STATUS")


def records_of(snapshot: Snapshot, domain: Domain, states: Sequence[str] = (), zone: str = "") -> RecordSet:
    """Return the records to publish for ``domain``; with ``states``, of its keys only those in one of them.

    ``zone`` is where they are published, where that is not the registrable domain.
    """
    keys = []
    for key in domain.dkim:
        loaded = snapshot.dkim_keys.get((key.private_key, domain.name, key.selector, key.algorithm))
        if loaded is not None and (not states or key.state in states):
            keys.append((key.selector, public_record(loaded.signer.key)))
    settings = snapshot.settings
    return wanted(domain.name, keys, settings.spf_host, settings.return_path_host, zone)


def look_up(snapshot: Snapshot, records: RecordSet) -> Verdicts:
    """Return how the records stand in DNS now, asked afresh."""
    return asyncio.run(_look_up(snapshot, records))


async def _look_up(snapshot: Snapshot, records: RecordSet) -> Verdicts:
    resolver = Resolver(snapshot.settings.dns.nameservers, snapshot.settings.dns.timeout_s)
    try:
        return await inspect(resolver, records)
    finally:
        await resolver.close()


def look_up_alias(snapshot: Snapshot, record: Record) -> Verdict:
    """Return how the record of a track domain stands in DNS now, asked afresh."""
    return asyncio.run(_look_up_alias(snapshot, record))


async def _look_up_alias(snapshot: Snapshot, record: Record) -> Verdict:
    resolver = Resolver(snapshot.settings.dns.nameservers, snapshot.settings.dns.timeout_s)
    try:
        return judge_alias(record, await resolver.cname(record.full_name, fresh=True))
    finally:
        await resolver.close()


def print_records(records: RecordSet, verdicts: Verdicts | None = None) -> None:
    """Print the records as a table, below it what is wrong with each."""
    rows = render_rows(records, verdicts)
    shown = [
        (kind, f"{name}  ({records.zone})" if name == "@" else name, value, status)
        for kind, name, value, status, _ in rows
    ]
    if verdicts is None:
        output.print_table(COLUMNS[:3], [row[:3] for row in shown])
        return
    output.print_table(COLUMNS, [(*row[:3], row[3] or "not known") for row in shown])
    for *_, error in rows:
        if error:
            output.say(output.clean(error))
