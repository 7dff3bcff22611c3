"""Look at everything that mail depends on outside of this program, again and again, and tell what changed.

Each look has a resolver of its own, so that it sees DNS as it is now and the cache that mail uses stays mail's.
Checks run side by side, each bounded in time; one that fails by a fault of ours is a line that says so, and no more.
What was known before survives a restart (a note in the database), so that only changes make events.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from arkrelay.config.live import Live
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.policy.blocklists import public_zone
from arkrelay.policy.finding import Change, Finding, Level, Report, changes, in_order, levels_after
from arkrelay.relay import doctordns as dns
from arkrelay.relay import doctorhost as host
from arkrelay.relay import doctormail as mail
from arkrelay.relay.bench import Bench, Machine
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.lists import get_note, set_note
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()

CHECK_S = 60.0  # for one check; a domain whose nameservers are all silent needs as long
AT_ONCE = 8  # checks side by side: an hour is long, and mail goes first (500 domains: 2 s of CPU within 5 s)
JITTER = 0.1
FIRST_S = (30.0, 90.0)  # after the start, which has other things to do
NOTE = "doctor"

Job = Coroutine[Any, Any, list[Finding]]


@dataclass(frozen=True, slots=True)
class _Check:
    """A job with the name of what it says when it does not come to an end."""

    check: str
    subject: str
    job: Job
    domain: str = ""


class Doctor:
    """The last report, and how to get a new one. ``load`` before use with a store, ``run`` until cancelled.

    ``resolver`` makes a resolver with an empty cache. Without ``store`` nothing is kept, and no change is told.
    """

    def __init__(
        self,
        live: Live,
        resolver: Callable[[], Resolver],
        machine: Machine,
        return_paths: ReturnPaths | None,
        store: Store | None = None,
        *,
        clock: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self.report: Report | None = None
        self._live = live
        self._resolver = resolver
        self._machine = machine
        self._return_paths = return_paths
        self._store = store
        self._clock = clock
        self._dice = dice or random.Random()  # noqa: S311 -- spreads work, guards nothing
        self._levels: dict[str, Level] = {}  # of the last look that could tell
        self._looking = asyncio.Lock()
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Take over what a process before this one knew."""
        if self._store is None:
            return
        note = await self._store.read(lambda db: get_note(db, NOTE))
        if note is not None:
            self._levels = {key: Level(level) for key, level in json.loads(note).items()}

    def counts(self) -> dict[str, int]:
        """Return how many findings of each level the last report has; empty before the first."""
        return {} if self.report is None else self.report.counts()

    def changed(self) -> None:
        """Say that the configuration was swapped."""
        self._changed.set()

    async def look(self, domain: str = "") -> Report:
        """Look at everything now, or at one sender domain, and return the whole report.

        Who comes while a look is under way waits for one that begins later. Raises NotFound for a domain of nobody.
        """
        asked_at = self._clock()
        if domain and self._live.snapshot.owner_of(domain) is None:
            raise NotFound(f"{domain} is not a sender domain")
        async with self._looking:
            if not domain and self.report is not None and self.report.at > asked_at:
                return self.report  # others waited too, and the first of them has looked
            began_at = self._clock()
            resolver = self._resolver()
            try:
                findings = await self._look(resolver, domain)
            finally:
                await resolver.close()
            if domain:
                known = self.report or Report((), 0.0)
                kept = [one for one in known.findings if one.domain != domain]
                report = Report(in_order([*kept, *findings]), known.at)
            else:
                report = Report(in_order(findings), began_at)
            if self._store is not None:
                await self._keep(self._store, report, whole=not domain)
            self.report = report
            return report

    async def run(self) -> None:
        """Look at everything every ``[doctor] every``, until cancelled; 0 waits until that is changed."""
        pause_s = self._dice.uniform(*FIRST_S)
        while True:
            every_s = self._live.snapshot.settings.doctor.every_s
            try:
                async with asyncio.timeout(min(pause_s, every_s) if every_s else None):
                    await self._changed.wait()
            except TimeoutError:
                pause_s = every_s * (1 + self._dice.uniform(-JITTER, JITTER))
                await self._look_safely()
            else:
                self._changed.clear()
                pause_s = self._dice.uniform(*FIRST_S)  # new domains and addresses are looked at soon

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except Exception:  # the next look may be better, and the loop must be there for it
            log.exception("doctor_failed", check="all")

    async def _look(self, resolver: Resolver, domain: str) -> list[Finding]:
        snapshot = self._live.snapshot
        heard = await self._one(_Check("resolver", "nameservers", host.resolver(resolver)))
        bench = Bench(
            snapshot=snapshot,
            resolver=resolver,
            machine=self._machine,
            own=self._machine.own(),
            return_paths=self._return_paths,
            addresses=tuple(await dns.find_addresses(snapshot.settings, self._machine, resolver)),
            resolver_ok=any(one.level in {Level.OK, Level.WARN} for one in heard),
            now=self._clock(),
        )
        checks = self._of_domains(bench, domain) if domain else [*self._of_machine(bench), *self._of_domains(bench)]
        slots = asyncio.Semaphore(AT_ONCE)

        async def bounded(one: _Check) -> list[Finding]:
            async with slots:
                return await self._one(one)

        found = await asyncio.gather(*(bounded(one) for one in checks))
        return [*([] if domain else heard), *(finding for each in found for finding in each)]

    def _of_machine(self, bench: Bench) -> list[_Check]:
        settings = bench.snapshot.settings
        rp_host = settings.return_path_host
        return [
            _Check("source", "addresses", dns.sources(bench)),
            _Check("return-path-spf", rp_host, dns.return_path_spf(bench)),
            _Check("return-path-mx", rp_host, mail.return_path(bench)),
            _Check("mta-sts", f"_mta-sts.{rp_host}", mail.sts(bench)),
            _Check("relay", "listeners", mail.relay(bench)),
            _Check("certificate", settings.hostname, host.certificate(bench)),
            _Check("dnssec", "resolver", host.dnssec(bench)),
            _Check("clock", "system", host.clock(bench)),
            _Check("disk", str(settings.state_dir), host.disk(bench)),
            _Check("files", str(settings.state_dir), host.files(bench)),
            *(_Check("ptr", one.address, dns.address(bench, one)) for one in bench.addresses),
            *(_Check("port25", one.address, mail.port25(bench, one)) for one in bench.addresses if one.used),
            *(
                _Check(
                    "blocklist",
                    f"{one.address} {public_zone(zone)[0]}",
                    dns.blocklist(bench, "blocklist", one.address, zone),
                )
                for one in bench.addresses
                for zone in settings.doctor.blocklists
            ),
        ]

    def _of_domains(self, bench: Bench, domain: str = "") -> list[_Check]:
        zones = bench.snapshot.settings.doctor.domain_blocklists
        found = []
        for tenant in bench.snapshot.tenants.values():
            for one in tenant.domains:
                if domain in {"", one.name}:
                    found.append(_Check("spf", one.name, dns.domain(bench, tenant, one), one.name))
                    found += [
                        _Check(
                            "domain-blocklist",
                            f"{one.name} {public_zone(zone)[0]}",
                            dns.blocklist(bench, "domain-blocklist", one.name, zone, one.name),
                            one.name,
                        )
                        for zone in zones
                    ]
        return found

    async def _one(self, one: _Check) -> list[Finding]:
        """Return what a check found, or a line that says why it found nothing."""
        try:
            async with asyncio.timeout(CHECK_S):
                return await one.job
        except TimeoutError:
            said = f"not known: it took longer than {CHECK_S:.0f} s"
        except Exception:  # a fault of ours in one check must not hide what the others found
            log.exception("doctor_failed", check=one.check, subject=one.subject)
            said = "not known: a fault of arkrelay, see its log"
        return [Finding(one.check, one.subject, Level.SKIP, said, domain=one.domain)]

    async def _keep(self, store: Store, report: Report, *, whole: bool) -> None:
        """Log what is better or worse than at the last look, and write it with an event for each.

        Only a look at the ``whole`` shows what there is no more.
        """
        changed = changes(self._levels, report.findings)
        levels = levels_after(self._levels, report.findings)
        if not whole:
            levels = self._levels | levels
        for one in changed:
            tell = log.info if one.finding.level is Level.OK else log.warning
            tell(
                "doctor_changed",
                check=one.finding.check,
                subject=one.finding.subject,
                verdict=str(one.finding.level),
                before=one.before and str(one.before),
                found=one.finding.found,
                advice=one.finding.advice,
            )
        if levels != self._levels:
            events = [_event(one, self._clock()) for one in changed]
            note = json.dumps(levels)

            def job(db: Connection) -> None:
                set_note(db, NOTE, note)
                insert_events(db, events)

            try:
                await store.write(job)
            except StoreError as error:  # told again at the next look
                log.warning("doctor_not_kept", error=str(error))
                return
        self._levels = levels


def _event(change: Change, at: float) -> Event:
    one = change.finding
    data = {
        "check": one.check,
        "subject": one.subject,
        "level": str(one.level),
        "before": change.before and str(change.before),
        "found": one.found,
        "expected": one.expected,
        "advice": one.advice,
    }
    return Event(EventKind.DOCTOR_CHANGED, at, data=data)
