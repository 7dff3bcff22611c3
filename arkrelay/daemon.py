"""The daemon: builds the parts, starts them from the inside out, and stops them from the outside in.

Start: configuration, store (lock, schema, epoch), what a dead process left, the queue, then the doors; READY
is said when all of it answers. Stop: the doors first, between transactions; then deliveries, which get half a
minute for what is in flight; then outcomes to disk, and the store last. A second SIGINT ends at once, which is
as safe as a crash: see ``relay``.
"""

import asyncio
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
import uvloop

from arkrelay import __version__
from arkrelay.api.app import HttpDoors
from arkrelay.api.idempotency import Idempotency
from arkrelay.api.parts import Parts
from arkrelay.api.requestlog import RequestLog
from arkrelay.base import log as logs
from arkrelay.base import systemd
from arkrelay.base.metrics import Metrics
from arkrelay.base.tasks import Tasks
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.hookkeys import HookKeys
from arkrelay.config.live import Changes, Live
from arkrelay.mail.tracking import LinkTokens
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.dns import MxHost
from arkrelay.model.errors import ArkrelayError, StoreError
from arkrelay.model.message import Status
from arkrelay.model.settings import Tls
from arkrelay.policy.classify import Rules
from arkrelay.policy.schedule import Lane
from arkrelay.relay.bench import Machine
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.callers import Guesses
from arkrelay.relay.capture import Capture
from arkrelay.relay.connection import Connection
from arkrelay.relay.deliver import Courier
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.drafts import Drafts
from arkrelay.relay.hookqueue import HookQueue
from arkrelay.relay.hooks import Hooks
from arkrelay.relay.hooksettings import HookSettings
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.leaks import LeakGuard
from arkrelay.relay.mailboxes import Mailboxes
from arkrelay.relay.meter import Meter
from arkrelay.relay.notices import Notices
from arkrelay.relay.operate import Operator
from arkrelay.relay.peertls import PeerTls
from arkrelay.relay.personal import Personal
from arkrelay.relay.queue import Queue
from arkrelay.relay.rates import RateLimits
from arkrelay.relay.rotation import Rotations
from arkrelay.relay.settings import Editor
from arkrelay.relay.settle import Settler
from arkrelay.relay.sign import Signing
from arkrelay.relay.simulator import Simulator
from arkrelay.relay.sources import Sources
from arkrelay.relay.submit import Submitter
from arkrelay.relay.tlsreports import TlsReports
from arkrelay.relay.track import Tracker
from arkrelay.relay.unsubscribe import Unsubscriber
from arkrelay.relay.upkeep import Upkeep
from arkrelay.relay.watch import EventWatch
from arkrelay.relay.ways import Ways
from arkrelay.smtpd.listener import Doors
from arkrelay.store import lists
from arkrelay.store.database import Store
from arkrelay.store.journal import Journal
from arkrelay.store.place import boot_id
from arkrelay.store.postmaster import FOLDER, sweep_postmaster_mail
from arkrelay.store.usage import totals
from arkrelay.web import visit as web
from arkrelay.web.client import Clients
from arkrelay.web.dashboard import Dashboard
from arkrelay.web.routes import make_dashboard
from arkrelay.web.site import Site
from arkrelay.wire.dns import Resolver
from arkrelay.wire.fetch import Fetcher
from arkrelay.wire.https import Poster
from arkrelay.wire.machine import clock_is_kept, own_addresses, system_ipv4, system_ipv6
from arkrelay.wire.tls import ServerCertificate

log = structlog.get_logger()

GC_THRESHOLDS = (50_000, 20, 100)  # CPython's own are (700, 10, 10), made for scripts
SWITCH_S = 0.001  # CPython's 5 ms is as long as a commit: what a thread has done is not seen for so long
DRAIN_S = 30.0  # in-flight work is done within this after SIGTERM
FILES_S = 5.0  # between looks at certificate and key files
STATUS_S = 10.0  # between STATUS= lines
LOOP_STUCK_S = 20.0  # the delivery loop comes by every 5 s; after this the watchdog is not fed
LAG_S = 0.2  # a loop that was away longer than this is logged


def main(config: Path) -> int:
    """Run until SIGTERM; return the exit status: 0 stopped in order, 1 could not start."""
    try:
        live = Live(config)
    except ConfigErrors as errors:
        for problem in errors.problems:
            print(problem, file=sys.stderr)
        return 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a shell's 1024 is for programs that use select(2)
    logs.setup(live.snapshot.settings.log.format, live.snapshot.settings.log.level)
    try:
        sys.setswitchinterval(SWITCH_S)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(live))
    except ArkrelayError as error:
        print(f"arkrelay: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"arkrelay: cannot start: {error}", file=sys.stderr)
        return 1


async def _run(live: Live) -> int:
    return await Daemon(live).run()


def _resolver(live: Live) -> Resolver:
    dns = live.snapshot.settings.dns
    return Resolver(dns.nameservers, dns.timeout_s, trust_ad=dns.trust_ad)


def _collect_seldom() -> None:
    """Leave what was made so far, lanes of a large queue included, to reference counts: it is no garbage.

    Freezing it and collecting less often saves 8 % of the CPU of a message, of which little is garbage either. A
    collection before would find 0.2 MB that the imports left, and delay the start by 40 ms.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


class Daemon:
    """All parts of one running relay."""

    def __init__(self, live: Live) -> None:
        settings = live.snapshot.settings
        self.live = live
        self.started_at = time.time()
        self.metrics = Metrics()
        self.tasks = Tasks()
        self.store = Store.open(settings.state_dir)
        self.journal, self._left, self._rebooted = Journal.open(
            settings.state_dir / "journal", boot_id(), self.store.epoch
        )
        self.signing = Signing()
        self.resolver = _resolver(live)
        rules, return_paths = Rules.load(), ReturnPaths(live.snapshot.return_path_secret())
        notices, bursts = Notices(self.store, live, self.signing), BurstGuard(self.store, live, self._site_of)
        self.settler = Settler(self.store, live, self.metrics, rules, notices, bursts)
        self.queue = Queue(
            self.store,
            live,
            self.settler,
            self._connection,
            lambda site: self.courier.providers.capacity(site),  # noqa: PLW0108 -- there is no courier yet
        )
        self.domains = DomainChecker(self.resolver, self.store, live)
        own = own_addresses()
        self.sources = Sources(live, self.resolver, own_addresses, system_ipv6)
        self.ways = Ways(live, self.sources, self.queue.pace, self.queue.warmups)
        self.peer_tls = PeerTls(self.store, live, self.resolver, Fetcher(self.resolver, own))
        self.courier = Courier(
            live,
            self.resolver,
            self.signing,
            self.journal,
            return_paths,
            self.domains,
            self.peer_tls,
            own,
            self.sources,
        )
        self.poster = Poster(self.resolver, own)
        self.hooks = Hooks(self.store, live, self.poster, HookKeys(settings.state_dir), self.metrics)
        self.hook_queue = HookQueue(self.store, live, self.hooks)
        self.capture = Capture(settings.state_dir)
        self.meter = Meter(self.store)
        operator = Operator(self.store, self.queue, live, self.meter)
        self.upkeep = Upkeep(self.store, live, self.queue, self.settler, operator)
        self.leaks = LeakGuard(self.store, live)
        self.settler.on_settled = self.leaks.settled
        link_tokens, unsubscribe_tokens = (
            LinkTokens(live.snapshot.link_secret()),
            UnsubscribeTokens(live.snapshot.unsubscribe_secret()),
        )
        drafts = Drafts(
            self.store,
            self.signing,
            self.domains,
            self.meter,
            return_paths,
            Personal(live, self.domains.tracks, link_tokens, unsubscribe_tokens),
        )
        self.submitter = Submitter(self.store, live, drafts, self.queue, self.upkeep, self.metrics, self.leaks)
        self.tracker = Tracker(self.store, live, link_tokens, self.metrics)
        self.unsubscriber = Unsubscriber(self.store, live, unsubscribe_tokens, self.queue.note_suppressed)
        self.inbound = Inbound(
            self.store,
            live,
            Mailboxes(live, return_paths, unsubscribe_tokens),
            rules,
            self.metrics,
            bursts,
            notices,
            self.unsubscriber,
            self._site_of,
            self.queue.note_due,
            self.queue.note_suppressed,
        )
        self.simulator = Simulator(
            live,
            self.settler,
            self.tracker,
            self.unsubscriber,
            link_tokens,
            return_paths,
            self.inbound,
        )
        self.tls_reports = TlsReports(
            self.store, live, self.resolver, self.submitter, self.poster, self.peer_tls.counts
        )
        certificate = self.certificate = None if settings.tls is None else ServerCertificate(*_pairs(settings.tls))
        rates = RateLimits()
        self.requests = RequestLog(self.store, live, live.snapshot.request_log_key(), self.metrics)
        self.doors = Doors(live, self.submitter, self.inbound, certificate, self.metrics, rates)
        self.doctor = Doctor(live, lambda: _resolver(live), self._machine(), return_paths, self.store)
        editing, guesses = asyncio.Lock(), Guesses(self.metrics)
        self.rotations = Rotations(live, self.resolver, self.reload, editing)
        editor = Editor(live, editing, self.reload)
        parts = Parts(
            store=self.store,
            live=live,
            rules=rules,
            queue=self.queue,
            ways=self.ways,
            submitter=self.submitter,
            meter=self.meter,
            operator=operator,
            domains=self.domains,
            doctor=self.doctor,
            hooks=self.hooks,
            hook_queue=self.hook_queue,
            hook_settings=HookSettings(live, editor, self.hooks, self.hook_queue.targets),
            leaks=self.leaks,
            upkeep=self.upkeep,
            metrics=self.metrics,
            started_at=self.started_at,
            listeners=self.listeners,
            unready=self.unready,
            reload=self.reload,
            idempotency=Idempotency(self.store),
            rates=rates,
            requests=self.requests,
            events=EventWatch(self.store),
            editor=editor,
            guesses=guesses,
            composing=asyncio.Lock(),
        )
        site = Site(self.tracker, self.unsubscriber, Clients(live))
        self.http = HttpDoors(parts, certificate, public=site.answer, pages=self._dashboard(parts).answer)
        self._counts: dict[Status, int] = {}  # recipients per state, some seconds old
        self._stop = asyncio.Event()
        self._interrupts = 0

    def _site_of(self, host: str) -> str:
        """Return the site whose MX this is."""
        return self.courier.providers.site_of([MxHost(0, host)])

    def _machine(self) -> Machine:
        """Return what the doctor sees of this machine, asked anew each time."""
        return Machine(
            own=own_addresses,
            ipv4=system_ipv4,
            ipv6=system_ipv6,
            clock_is_kept=clock_is_kept,
            listeners=lambda: self.doors.bound,
        )

    def _dashboard(self, parts: Parts) -> Dashboard:
        """Return the dashboard, which shares with the API what both need."""
        return make_dashboard(
            web.Parts(
                store=parts.store,
                live=parts.live,
                queue=parts.queue,
                ways=parts.ways,
                operator=parts.operator,
                domains=parts.domains,
                doctor=parts.doctor,
                hooks=parts.hooks,
                hook_settings=parts.hook_settings,
                upkeep=parts.upkeep,
                watch=parts.events,
                editor=parts.editor,
                guesses=parts.guesses,
                composing=parts.composing,
                unready=parts.unready,
                requests_flushed=parts.requests.flushed,
                open_request=parts.requests.seal.open,
            )
        )

    async def run(self) -> int:
        """Start everything, serve until a signal, stop everything in order."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            await self._start()
            await self._stop.wait()
            return 0
        finally:
            await self._shut_down()

    async def _start(self) -> None:
        if os.geteuid() == 0:
            log.warning(
                "running_as_root", advice="run as an unprivileged user; systemd's socket unit opens low ports"
            )
        for warning in self.live.snapshot.warnings:
            log.warning("configuration", text=warning)
        await self.leaks.load()
        await self.domains.load()
        await self.doctor.load()
        await self.meter.load(list(self.live.snapshot.tenants))
        self.courier.clear_text_until = await self.store.read(lambda db: lists.clear_text_hosts(db, time.time()))
        await self.peer_tls.load()
        self.courier.on_tls_broken = self._remember_clear_text
        sweep_postmaster_mail(self.live.snapshot.settings.state_dir / FOLDER)
        self.upkeep.look_at_disk()
        await self.queue.recover(self._left, rebooted=self._rebooted)
        await self.hook_queue.start()
        self._counts = await self.store.read(totals)
        self._gauges()
        _collect_seldom()
        self.tasks.spawn("queue", self.queue.run())
        self.tasks.spawn("domains", self.domains.run())
        self.tasks.spawn("sources", self.sources.run())
        self.tasks.spawn("webhooks", self.hook_queue.run())
        self.tasks.spawn("webhook care", self.hook_queue.targets.run())
        self.tasks.spawn("doctor", self.doctor.run())
        self.tasks.spawn("rotations", self.rotations.run())
        self.tasks.spawn("upkeep", self.upkeep.run())
        self.tasks.spawn("request log", self.requests.run())
        self.tasks.spawn("tls results", self.peer_tls.counts.run())
        self.tasks.spawn("tls reports", self.tls_reports.run())
        self.tasks.spawn("files", self._watch_files())
        self.tasks.spawn("status", self._tell_systemd())
        self.tasks.spawn("lag", self._watch_lag())
        self.tasks.spawn("journal", self._forget_old_journal())
        inherited = systemd.inherited()
        await self.doors.start(inherited)
        await self.http.start()
        for service, address in self.http.addresses:
            log.info("listening", service=service, address=address)
        log.info(
            "started", version=__version__, epoch=self.store.epoch, seconds=round(time.time() - self.started_at, 3)
        )
        systemd.notify("READY=1\nSTATUS=accepting and delivering")

    async def _shut_down(self) -> None:
        log.info("stopping")
        systemd.notify("STOPPING=1")
        began = time.monotonic()
        await self.doors.drain(DRAIN_S)
        self.submitter.stopping = True
        await self.simulator.stop()
        await self.queue.stop(max(1.0, DRAIN_S - (time.monotonic() - began)))
        await self.settler.drained(max(1.0, DRAIN_S - (time.monotonic() - began)))
        await self.hook_queue.stop(max(1.0, DRAIN_S - (time.monotonic() - began)))
        await self.http.stop()
        self.tracker.flush()
        await self.requests.stop()
        await self.tasks.cancel()
        await self.poster.close()
        await self.peer_tls.close()
        await self.resolver.close()
        self.signing.close()
        self.journal.close()
        await asyncio.to_thread(self.store.close)
        log.info("stopped", seconds=round(time.monotonic() - began, 3))

    def _connection(self, queue: Queue, lane: Lane) -> Connection:
        return Connection(
            queue, lane, self.live, self.courier, self.settler, self.journal, self.capture, self.ways, self.simulator
        )

    # -- what others ask ---------------------------------------------------------------------------------------

    def listeners(self) -> list[tuple[str, str]]:
        """Return (service, address) of everything that is bound."""
        return [*self.doors.addresses, *self.http.addresses]

    def unready(self) -> str:
        """Return why mail is not accepted or not delivered now, or an empty string."""
        if self._stop.is_set():
            return "stopping"
        if time.monotonic() - self.queue.ticked_at > LOOP_STUCK_S:
            return "the delivery loop does not come by"
        return self.upkeep.disk_low or self.queue.paused

    async def reload(self) -> Changes:
        """Take the configuration files over and return what changed; raises ConfigErrors and changes nothing."""
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await self.hook_queue.catch_up()  # who gets an event is said by the configuration when it happened
        try:
            changes = await asyncio.to_thread(self.live.reload)
        except ConfigErrors as errors:
            for problem in errors.problems:
                log.warning("reload_refused", file=problem.file, key=problem.key, reason=problem.reason)
            raise
        finally:
            systemd.notify("READY=1")
        for line in changes.lines:
            log.info("reloaded", change=line)
        for warning in self.live.snapshot.warnings:
            log.warning("configuration", text=warning)
        self.leaks.changed()
        self.domains.changed()
        self.sources.changed()
        await self.hook_queue.changed()
        tls = self.live.snapshot.settings.tls
        if self.certificate is not None and tls is not None:
            self.certificate.use(*_pairs(tls))
        self.doctor.changed()
        return changes

    # -- signals and watching ------------------------------------------------------------------------------------

    def _interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            os._exit(130)  # as safe as a crash, and the user has asked twice
        self._stop.set()

    def _hang_up(self) -> None:
        self.tasks.spawn("reload", self._reload_quietly())

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except ConfigErrors:
            pass  # logged, and the last good configuration stays in force

    async def _watch_files(self) -> None:
        """DKIM keys are re-read when their files change; the certificate watches itself."""
        while True:
            await asyncio.sleep(FILES_S)
            try:
                if await asyncio.to_thread(self.live.poll):
                    log.info("key_files_reread")
                    self.domains.changed()
            except ConfigErrors as errors:
                for problem in errors.problems:
                    log.warning("key_file_refused", file=problem.file, reason=problem.reason)

    async def _forget_old_journal(self) -> None:
        """What a dead process left is forgotten when all of it is on disk, and not before."""
        while not await self.settler.drained(DRAIN_S):
            log.warning("recovery_not_written", recipients=self.settler.unwritten)
        self.journal.recovered()

    async def _tell_systemd(self) -> None:
        """Feed the watchdog while the delivery loop lives, and show the queue in `systemctl status`."""
        period = min(systemd.watchdog_s() or STATUS_S, STATUS_S)
        while True:
            if time.monotonic() - self.queue.ticked_at < LOOP_STUCK_S:
                systemd.notify("WATCHDOG=1")
            try:
                self._counts = await self.store.read(totals)
            except StoreError as error:  # the watchdog is fed all the same: a restart would not mend the disk
                log.warning("totals_not_read", error=str(error))
            counts, reason = self._counts, self.unready()
            waiting = (
                f"{counts[Status.PENDING]} pending, {counts[Status.SOFTFAIL]} deferred, {counts[Status.HELD]} held"
            )
            systemd.notify(f"STATUS={reason or 'accepting and delivering'}; {waiting}")
            await asyncio.sleep(period)

    async def _watch_lag(self) -> None:
        """Log when something kept the event loop busy: every peer waited that long."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(1.0)
            lag = time.monotonic() - before - 1.0
            if lag > LAG_S:
                log.warning("loop_lag", seconds=round(lag, 3))

    def _remember_clear_text(self, host: str, until: float) -> None:
        self.store.write_later(lambda db: lists.set_clear_text(db, host, until))

    def _gauges(self) -> None:
        show: Callable[..., None] = self.metrics.gauge
        show("arkrelay_connections", "Connections to peers.", (), lambda: {(): float(self.queue.connections)})
        show("arkrelay_sessions", "SMTP sessions of clients.", (), lambda: {(): float(self.doors.sessions)})
        show("arkrelay_http_connections", "HTTP connections.", (), lambda: {(): float(self.http.connections)})
        show(
            "arkrelay_recipients",
            "Recipients kept, by state; up to 10 s old.",
            ("status",),
            lambda: {(str(status),): float(n) for status, n in self._counts.items()},
        )
        show("arkrelay_lanes", "Destinations in memory.", (), lambda: {(): float(len(self.queue.schedule.lanes))})
        show("arkrelay_ready", "Recipients in memory.", (), lambda: {(): float(self.queue.schedule.messages)})
        show(
            "arkrelay_unwritten_outcomes",
            "Outcomes not yet on disk.",
            (),
            lambda: {(): float(self.settler.unwritten)},
        )

        def backlog() -> Mapping[str, float]:
            return self.hook_queue.targets.backlog

        show(
            "arkrelay_webhook_events",
            "Events that wait for webhooks, or whose schedule is over; up to a minute old.",
            ("state",),
            lambda: {(state,): backlog()[state] for state in ("waiting", "parked")},
        )
        show(
            "arkrelay_webhook_oldest_seconds",
            "Since when the oldest event waits for a webhook; up to a minute old.",
            (),
            lambda: {(): backlog()["oldest_s"]},
        )
        show("arkrelay_disk_free_bytes", "Free on the state disk.", (), lambda: {(): float(self.upkeep.free_bytes())})
        show(
            "arkrelay_doctor_findings",
            "Findings of the doctor's last look, by level.",
            ("level",),
            lambda: {(level,): float(n) for level, n in self.doctor.counts().items()},
        )
        show("arkrelay_up", "Accepts and delivers: 1.", (), lambda: {(): float(not self.unready())})


def _pairs(tls: Tls) -> tuple[Path, Path, list[tuple[Path, Path]]]:
    """Return the files of the first certificate, and those of the others."""
    return tls.certificate, tls.private_key, [(one.certificate, one.private_key) for one in tls.extra]
