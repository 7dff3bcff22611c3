"""One connection's life in the service of one destination.

Plan, choose a way (``ways``: one of our addresses, or a route that has a cause), connect, then keep up to two
transactions going: the second one's commands are written right behind the first one's final dot (RFC 2920 §3.1), so a
kept connection costs no round trip per message. When nothing is left the connection stays for
``delivery.idle_connection`` and then says QUIT. A host that cannot be reached is one failed attempt for everything
that is due, and the destination rests a while. A peer that does not want our address gets no more from it; what it
refused goes by another way where there is one.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial

import structlog

from arkrelay.config.live import Live
from arkrelay.model.attempt import Attempt
from arkrelay.model.errors import ArkrelayError, StoreError
from arkrelay.model.message import SIMULATOR, Recipient
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.policy.providers import site_of_lane
from arkrelay.policy.route import TEST_DESTINATION, split
from arkrelay.policy.schedule import Lane
from arkrelay.policy.ways import PATIENCE_S, Wait, Way
from arkrelay.relay.capture import Capture
from arkrelay.relay.deliver import Courier, NotConnected, requires_tls
from arkrelay.relay.plan import Plan
from arkrelay.relay.queue import Queue
from arkrelay.relay.settle import Settler
from arkrelay.relay.simulator import Simulator
from arkrelay.relay.sources import family_of
from arkrelay.relay.ways import Ways, for_source
from arkrelay.store.journal import Journal
from arkrelay.wire.smtp import Session

log = structlog.get_logger()

TURN = 10  # messages after which a connection makes room for another lane of its site
OUTSTANDING = 2  # transactions in flight on one connection
PERMANENT = frozenset(
    {
        FailureKind.NO_DOMAIN,
        FailureKind.NULL_MX,
        FailureKind.NO_ADDRESS,
        FailureKind.LOOP,
        FailureKind.NO_REQUIRETLS,
        FailureKind.ENCRYPTION_NEEDED,
    }
)


class Connection:
    """A task's worth of delivery: made by the queue, run once."""

    def __init__(
        self,
        queue: Queue,
        lane: Lane,
        live: Live,
        courier: Courier,
        settler: Settler,
        journal: Journal,
        capture: Capture,
        ways: Ways,
        simulator: Simulator,
    ) -> None:
        self._queue = queue
        self._lane = lane
        self._ways = ways
        self._live = live
        self._courier = courier
        self._settler = settler
        self._journal = journal
        self._capture = capture
        self._simulator = simulator
        self._awake = asyncio.Event()
        self._outstanding = 0
        self._ended = 0
        self._answered = False  # the peer has judged a message on this connection
        self._unwelcome = False  # the peer has refused our address
        self._site = ""  # the lane of ``pace`` by which this connection is counted
        self._plan: Plan | None = None
        self._direct: Plan | None = None  # to the site itself, while a route that has a cause is taken instead
        self._way: Way | None = None
        self._put_back: set[int] = set()
        self.hungry = False
        self.leaving = False

    def wake(self) -> None:
        """There may be something to do: mail, a full house, the end."""
        self._awake.set()

    async def run(self) -> None:
        """Serve the lane until it is empty or its destination does not want to be served."""
        if self._live.snapshot.settings.delivery.mode == "capture":
            await self._run_capture()
            return
        if self._lane.destination == TEST_DESTINATION:
            await self._run_test()
            return
        if self._lane.destination == SIMULATOR:
            await self._run_simulator()
            return
        missing = self._ways.missing(split(self._lane.destination)[1], time.time())
        if missing is not None:
            self._wait(missing)
            return
        plan = await self._courier.plan(self._lane.destination)
        if isinstance(plan, Failure):
            await self._fail(NotConnected(plan, None, 0.0))
            return
        await self._go(plan)

    async def _go(self, plan: Plan) -> None:
        """Connect by the way that is open now; an address family that does not connect leaves the other a try."""
        failed: NotConnected | None = None
        families: frozenset[int] = frozenset()
        while True:
            way = self._ways.choose(plan, time.time(), but=families)
            if failed is not None and not isinstance(way, Way):
                await self._fail(failed)
                return
            if not isinstance(way, Way):
                if way is not None:
                    self._wait(way)
                return
            self._site = self._lane.site = way.lane
            self._way, self._plan = way, plan
            self._queue.pace.connected(way.lane)
            try:
                session = await self._connect(plan, way)
                if not isinstance(session, NotConnected):
                    await self._serve(session, way)
                    return
            finally:
                self._queue.closed(way.lane)
            failed = session
            if way.source is None:
                await self._fail(failed)
                return
            families |= {family_of(way.source.address)}

    async def _connect(self, plan: Plan, way: Way) -> Session | NotConnected:
        if way.route is None or plan.route is not None:
            return await self._courier.connect(for_source(plan, way.source), way.source)
        detour = await self._courier.plan_route(way.route, requiretls=requires_tls(self._lane.destination))
        if isinstance(detour, Failure):
            return NotConnected(detour, None, 0.0)
        self._plan, self._direct = detour, plan
        return await self._courier.connect(detour)

    async def _serve(self, session: Session, way: Way) -> None:
        started, queue = 0, self._queue
        limit = way.messages or queue.pace.capacity(way.lane, time.time()).messages
        self._lane.sessions += 1
        try:
            while True:
                self._awake.clear()
                begun, pause_s = await self._fill(session, way, started, limit)
                started += begun
                fit = session.open and (started < limit or not limit) and not self._gives_way(started)
                self.hungry = fit and self._outstanding < OUTSTANDING and not pause_s
                if not self.hungry and self._lane.ready and not pause_s:
                    queue.kick(self._lane)  # more waits than this connection can take now
                if self._outstanding:
                    await self._awake.wait()
                elif pause_s and fit and not queue.stopping:
                    if pause_s > PATIENCE_S:
                        break  # there may be another way
                    with contextlib.suppress(TimeoutError):  # a stop does not wait for it
                        async with asyncio.timeout(pause_s):
                            await self._awake.wait()
                elif not self.hungry or not await self._idle():
                    break
            self.hungry, self.leaving = False, True  # who comes now does not wait for the peer's answer to QUIT
            await session.quit()
        finally:
            self._lane.sessions -= 1
            self.hungry = False
            session.abort()  # nothing after a QUIT; on cancelling, it ends what is in flight

    async def _fill(self, session: Session, way: Way, started: int, limit: int) -> tuple[int, float]:
        """Start what the session takes now; return how much that was, and the pause that the lane's rate wants."""
        queue, begun = self._queue, 0
        while session.open and self._outstanding < OUTSTANDING and (started + begun < limit or not limit):
            now = time.time()
            if (pause_s := queue.pace.wait_s(way.lane, now)) or self._gives_way(started + begun):
                return begun, pause_s
            recipient = await queue.next(self._lane)
            if recipient is None:
                break
            if queue.captures:  # since this moment: a claim takes a while
                queue.put_back(self._lane, recipient)
                break
            queue.pace.started(way.lane, now)
            self._ways.started(way, now)
            queue.served(way.lane, recipient.message.tenant_id)
            begun += await self._start(session, recipient)
        return begun, 0.0

    async def _idle(self) -> bool:
        """Return True when there is work again; False when it was idle too long or is wanted elsewhere."""
        try:
            async with asyncio.timeout(self._queue.pace.capacity(self._site, time.time()).idle_s):
                while not self._queue.offers(self._lane):
                    if self._queue.stopping or self._queue.wanted(self._site):
                        return False
                    await self._awake.wait()
                    self._awake.clear()
        except TimeoutError:
            return False
        return not self._queue.stopping

    async def _start(self, session: Session, recipient: Recipient) -> int:
        """Start one transaction; return 1, or 0 when it ended before it began."""
        expires_at = recipient.message.expires_at
        if expires_at is not None and expires_at <= time.time():
            self._settle(recipient, Failure(FailureKind.EXPIRED, Stage.MAIL, "expired before it could be sent"))
            return 0
        try:
            content = await self._courier.fit(recipient, await self._queue.content(recipient), session)
        except StoreError as error:
            self._queue.finished(recipient)
            self._settle(recipient, Failure(FailureKind.STOPPED, Stage.MAIL, str(error)), finished=True)
            return 0
        except Exception as error:
            log.exception("message_cannot_be_sent", id=recipient.token)
            self._settle(recipient, Failure(FailureKind.INTERNAL, Stage.MAIL, f"{type(error).__name__}: {error}"))
            return 0
        self._outstanding += 1
        try:
            self._courier.send(session, recipient, content, self._when_ended(session, recipient))
        except Exception as error:  # no room in the journal, or a bug: nothing was said to the peer
            self._outstanding -= 1
            log.exception("message_cannot_be_sent", id=recipient.token)
            self._settle(recipient, Failure(FailureKind.INTERNAL, Stage.MAIL, f"{type(error).__name__}: {error}"))
            return 0
        return 1

    def _when_ended(self, session: Session, recipient: Recipient) -> Callable[[Attempt, int, bool], None]:
        def ended(attempt: Attempt, slot: int, untried: bool) -> None:  # noqa: FBT001 -- the courier's three facts
            self._outstanding -= 1
            self._awake.set()
            if self._not_its_turn(recipient, attempt, untried=untried):
                self._journal.end(slot)
                self._put_back.add(recipient.id)
                if self._way is not None:
                    self._ways.put_back(self._way, time.time())
                self._queue.put_back(self._lane, recipient)
                return
            self._ended += 1
            outcome = self._settler.attempted(
                recipient, attempt, lambda: self._journal.end(slot), another_way=self._another_way
            )
            self._judge_site(attempt, session, outcome.lane)
            self._heed(outcome.lane, str(attempt.result))
            self._queue.finished(recipient)

        return ended

    def _not_its_turn(self, recipient: Recipient, attempt: Attempt, *, untried: bool) -> bool:
        """Return whether a kept connection ended before the peer looked at this message.

        A peer may close after as many messages as it likes, by FIN or by 421: that says nothing of the next
        message, which is sent again at once on a new connection, one time.
        """
        if attempt.past_dot or recipient.id in self._put_back:
            return False
        if self._queue.stopping:
            return isinstance(attempt.result, Failure)
        said_so = isinstance(attempt.result, Reply) and attempt.result.code == 421
        return self._ended > 0 and (untried or said_so)

    def _another_way(self) -> bool:
        """Return whether mail that the peer does not take from our address may go by another one, or by a route."""
        if self._plan is None or self._way is None:
            return False
        return self._ways.another(self._plan, self._way, time.time())

    def _judge_site(self, attempt: Attempt, session: Session, advice: str) -> None:
        """Let the site rest when it says 421, or ends a connection that has brought nothing at all.

        A site that says what it thinks of our address has answered, and nothing is earned by that.
        """
        result = attempt.result
        if self._way is not None and (advice or (isinstance(result, Reply) and result.code == 421)):
            self._ways.deferred(self._way, time.time())
        if isinstance(result, Reply) and result.code != 421:
            if not advice:
                self._queue.pace.succeeded(self._site, time.time())
            self._answered = True
        elif not session.open and not (isinstance(result, Failure) and self._answered):
            self._rest(str(result))

    async def _fail(self, failed: NotConnected) -> None:
        """Give everything that is due here the same failed attempt, and let the lane rest."""
        if self._queue.schedule.refused_another(self._lane, time.time()):
            return
        candidate, result, failed_at = failed.candidate, failed.result, time.time()
        site = site_of_lane(self._site)
        if isinstance(result, Failure) and result.kind is FailureKind.TLS:
            self._site = ""  # what one destination demands of its hosts says nothing to others at the same site
        if not (isinstance(result, Failure) and result.kind in PERMANENT):
            self._rest(str(result))
        while recipients := await self._queue.all_due(self._lane, failed_at):
            for recipient in recipients:
                attempt = Attempt(
                    recipient.id,
                    time.time() - failed.seconds,
                    failed.seconds,
                    failed.result,
                    host=candidate.host if candidate else None,
                    address=candidate.address if candidate else None,
                    port=candidate.port if candidate else None,
                    policy=failed.policy,
                    site=site,
                    transcript=failed.transcript,
                )
                outcome = self._settler.attempted(recipient, attempt, another_way=self._another_way)
                self._heed(outcome.lane, str(result))
                self._queue.finished(recipient)
            await asyncio.sleep(0)

    def _heed(self, advice: str, said: str) -> None:
        """Let the lane follow what its peer said of us: less of everything, or no more for hours."""
        site = self._site
        if not advice or not site:
            return
        now = time.time()
        if advice == "slow":
            self._queue.pace.slow(site, now, said)
            log.warning("lane_slowed", lane=site, reply=said)
            return
        dice = random.uniform(-1, 1)  # noqa: S311 -- spreads retries, hides nothing
        until = self._queue.pace.block(site, now, dice, said)
        self._unwelcome = True
        if self._another_way():
            self._lane.rest_until = 0.0  # it is this address that rests
        else:
            self._lane.rest_site = site
            self._queue.schedule.rest(self._lane, until, said)
        log.warning("lane_blocked", lane=site, until=until, reply=said)

    def _gives_way(self, started: int) -> bool:
        """Return whether this connection ends: it has had its turn and another waits, its address may carry no more
        or is not wanted, its detour is over, a person said so, or a reload that nothing may leave any more."""
        if self._unwelcome or self._queue.captures or self._queue.pace.ordered_to_rest(self._site):
            return True
        if self._way is not None and self._ways.spent(self._way, time.time()):
            return True
        if self._direct is not None and self._ways.is_open(self._direct, time.time()):
            return True
        return started >= TURN and self._queue.wanted(self._site)

    def _rest(self, reason: str) -> None:
        now = time.time()
        dice = random.uniform(-1, 1)  # noqa: S311 -- spreads retries, hides nothing
        site = self._lane.rest_site = self._site or self._lane.destination
        until = self._queue.pace.failed(site, now, dice, reason)
        self._queue.schedule.rest(self._lane, until, reason)

    def _wait(self, wait: Wait) -> None:
        """Come back when there is a way again."""
        self._lane.site = wait.lanes[0] if wait.lanes else self._lane.site
        if wait.until is None:
            self._queue.wait_for(self._lane, wait.lanes)
            return
        now = time.time()
        resting = [name for name in wait.lanes if self._queue.pace.next_connect_at(name, now) > now]
        self._lane.rest_site = resting[0] if resting else ""
        self._queue.schedule.rest(self._lane, wait.until, wait.reason, failed=False)

    def _settle(self, recipient: Recipient, failure: Failure, *, finished: bool = False) -> None:
        self._settler.attempted(recipient, Attempt(recipient.id, time.time(), 0.0, failure))
        if not finished:
            self._queue.finished(recipient)

    async def _run_test(self) -> None:
        """Mail of a test key ends here, as if its peer had taken it (Ark contract §16)."""
        while (recipient := await self._queue.next(self._lane)) is not None:
            result = Reply(250, "2.0.0", "test key: nothing was sent", Stage.DOT)
            self._settler.attempted(recipient, Attempt(recipient.id, time.time(), 0.0, result, host="test"))
            self._queue.finished(recipient)

    async def _run_simulator(self) -> None:
        """Recipients that are played answer by themselves."""
        while (recipient := await self._queue.next(self._lane)) is not None:
            self._simulator.play(recipient, partial(self._queue.finished, recipient))

    async def _run_capture(self) -> None:
        while self._queue.captures and (recipient := await self._queue.next(self._lane)) is not None:
            try:
                content = await self._queue.content(recipient)
                envelope = self._courier.envelope(recipient, len(content))
                path = await asyncio.to_thread(self._capture.keep, recipient, envelope, content)
                result: Reply | Failure = Reply(250, "2.0.0", f"captured in {path}", Stage.DOT)
            except (OSError, ArkrelayError) as error:
                result = Failure(FailureKind.INTERNAL, Stage.DATA, f"the capture box failed: {error}")
            attempt = Attempt(recipient.id, time.time(), 0.0, result, host="capture")
            self._settler.attempted(recipient, attempt)
            self._queue.finished(recipient)
