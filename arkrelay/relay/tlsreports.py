"""The daily TLS reports (RFC 8460): what we saw of a domain's TLS yesterday, to the domains that ask for it.

One domain after the other, and what was done is written down after each: after a crash the rest follows, and at most
one report comes twice, with the same id. A report that cannot be delivered is mail that cannot be delivered, or for
https a line in the log; nothing is tried again the next day (RFC 8460 §5.5 would allow a day of trying).
"""

import asyncio
import gzip
import random
import time
from collections.abc import Callable
from functools import partial

import structlog

from arkrelay.config.live import Live
from arkrelay.mail.tlsreport import render_mail
from arkrelay.model.address import Address, parse_mailbox
from arkrelay.model.errors import ArkrelayError
from arkrelay.model.message import Door, RecipientRequest, Submission
from arkrelay.model.reply import Failure
from arkrelay.model.tlsreport import DAY_S, Report, Session
from arkrelay.policy.route import parse_networks
from arkrelay.policy.tlsrpt import parse_record, render
from arkrelay.relay.submit import Submitter
from arkrelay.relay.tlscounts import TlsCounts
from arkrelay.store import lists
from arkrelay.store import peertls as rows
from arkrelay.store.database import Store
from arkrelay.wire.dns import Resolver
from arkrelay.wire.https import Poster

log = structlog.get_logger()

LOOK_S = 300.0  # between looks whether a day has ended
SPREAD_S = 4 * 3600  # RFC 8460 §4.1: reports start up to four hours after midnight, so that not all come at once
POST_S = 60.0  # for one report by https
NOTE = "tls_reports"  # "<day> <last domain>": what was reported
CONTENT_TYPE = "application/tlsrpt+gzip"  # RFC 8460 §6.4


class TlsReports:
    """Sends the reports of each day that has ended, when ``[tls_reports]`` says so."""

    def __init__(
        self,
        store: Store,
        live: Live,
        resolver: Resolver,
        submitter: Submitter,
        poster: Poster,
        counts: TlsCounts,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._live = live
        self._resolver = resolver
        self._submitter = submitter
        self._poster = poster
        self._counts = counts
        self._clock = clock
        self._delay_s = random.uniform(0, SPREAD_S)  # noqa: S311 -- spreads load, hides nothing

    async def run(self) -> None:
        """Report each day when it has ended, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._live.snapshot.settings.tls_reports.send:
                try:
                    await self.report(self._clock() - self._delay_s)
                except ArkrelayError as error:
                    log.warning("tls_reports_failed", error=str(error))

    async def report(self, now: float) -> int:
        """Report the day before ``now`` as far as that was not done; return how many domains got a report."""
        day = int(now // DAY_S) * DAY_S - DAY_S
        await self._counts.write()
        noted = (await self._store.read(lambda db: lists.get_note(db, NOTE)) or "0 ").partition(" ")
        if int(noted[0]) > day:
            return 0
        after = noted[2] if int(noted[0]) == day else ""
        sent = 0
        for domain in await self._store.read(lambda db: rows.domains(db, day, after)):
            sent += await self._report_domain(domain, day)
            await self._store.write(partial(lists.set_note, name=NOTE, value=f"{day} {domain}"))
        return sent

    async def _report_domain(self, domain: str, day: int) -> bool:
        texts = await self._resolver.txt(f"_smtp._tls.{domain}")
        receivers = () if isinstance(texts, Failure) else parse_record(texts)
        if not receivers:
            return False
        settings = self._live.snapshot.settings
        organisation = settings.tls_reports.organisation or settings.hostname
        report = Report(domain, day, organisation, settings.tls_reports.contact, settings.hostname)
        found = await self._store.read(lambda db: rows.results(db, day, day, domain))
        sessions = [Session(one.policy, one.said, one.host, one.address, one.result, n) for one, n in found]
        packed = gzip.compress(render(report, sessions), mtime=0)
        sent = False
        for url in (one for one in receivers if "://" in one):
            answer = await self._poster.post(
                url,
                packed,
                {"Content-Type": CONTENT_TYPE},
                timeout_s=POST_S,
                allow=parse_networks(settings.delivery.allow_destinations),
            )
            sent |= answer.success
            log.info("tls_report_posted", domain=domain, status=answer.status, error=answer.error)
        if mail := [parse_mailbox(one) for one in receivers if "://" not in one]:
            sent |= await self._mail(report, packed, mail)
        return sent

    async def _mail(self, report: Report, packed: bytes, recipients: list[Address]) -> bool:
        author = parse_mailbox(report.contact)
        owner = self._live.snapshot.index.domains.get(author.domain)
        if owner is None:
            log.warning("tls_report_not_sent", domain=report.domain, reason=f"{author.domain} is no sender domain")
            return False
        submission = Submission(
            door=Door.REST,
            tenant_id=owner[0].id,
            credential=None,
            return_path=author,
            recipients=tuple(RecipientRequest(one) for one in recipients),
            content=render_mail(report, packed, author, recipients),
            received_at=time.time(),
            protocol="HTTP",
        )
        try:
            accepted = await self._submitter.submit(submission)
        except ArkrelayError as error:
            log.warning("tls_report_not_sent", domain=report.domain, reason=str(error))
            return False
        log.info("tls_report_sent", domain=report.domain, id=accepted.tokens[0])
        return True
