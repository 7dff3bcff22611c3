"""What makes a message one recipient's own: links that lead over us, a pixel, a way to unsubscribe.

Each of these names the recipient, so where one of them is wanted a submission becomes one message for each recipient,
with the same Message-ID and in the same write: REST shows whose activity it was, and nobody can unsubscribe another.
It is read once and written for each. What that costs (a body and a signature for each recipient) is paid only where a
track domain or unsubscription is set up; other mail pays for one look at its tenant.

A surprise here never keeps mail: it goes out as it came, and the log says why.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.header import HeaderError, scan, split
from arkrelay.mail.intake import Intake
from arkrelay.mail.tracking import LinkTokens, Rewriting, TooMuch, Wishes, find
from arkrelay.mail.unsubscribe import UnsubscribeTokens, render_fields
from arkrelay.model.message import Submission
from arkrelay.model.tenant import Tenant, TrackDomain
from arkrelay.policy.engage import stream_of, tracks_clicks, tracks_opens
from arkrelay.relay.track_domains import TrackChecker
from arkrelay.store.engagement import LinkSet, pack

log = structlog.get_logger()

INLINE_BYTES = 16_000  # written in all; what is more is done in a thread: CPU work over ~1 ms leaves the event loop
COPIES_BYTES = 32_000_000  # of all copies of one submission, in memory twice; a larger one goes out as it came
THREADS = 2  # at once: the interpreter lock goes round, and the event loop needs its turn
TIME_S = 2.0  # for reading one message: what takes longer is made to hurt


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to a submission: ``track`` None is no tracking, ``stream`` None no unsubscription."""

    tenant_id: str
    wishes: Wishes
    track: TrackDomain | None
    stream: str | None
    unsubscribe_url: str = ""  # before the token
    unsubscribe_host: str = ""  # of the mailto; empty: none


@dataclass(frozen=True, slots=True)
class Copies:
    """A submission, written for each of its recipients in their order, and its links."""

    contents: Sequence[bytes]
    stream: str | None
    links: LinkSet | None
    left: str = ""  # why its text was left as it came, where that was not to be


class Personal:
    """Decides what a message gets, and writes it."""

    def __init__(self, live: Live, tracks: TrackChecker, links: LinkTokens, unsubscribes: UnsubscribeTokens) -> None:
        self._live = live
        self._tracks = tracks
        self._links = links
        self._unsubscribes = unsubscribes
        self._threads = asyncio.Semaphore(THREADS)

    def plan(self, submission: Submission, intake: Intake, tenant: Tenant, snapshot: Snapshot) -> Plan | None:
        """Return what is wanted of this message, or None: nothing, as for most mail.

        A null return path stands for notices and auto-replies (RFC 5321 §4.5.5), which are nobody's campaign.
        """
        unsubscribe = tenant.unsubscribe
        named = intake.unsubscribe if submission.unsubscribe is None else submission.unsubscribe
        if not (tenant.track_domains or unsubscribe.enabled or unsubscribe.tags or named):
            return None
        if submission.return_path is None:
            return None
        stream = None
        public = snapshot.settings.public.url
        if not intake.unsubscribes and public.startswith("https://"):
            tag = intake.tag if submission.tag is None else submission.tag
            stream = stream_of(tenant, tag, named)
        track = next((one for one in tenant.track_domains if one.domain == intake.author.domain), None)
        if track is None and stream is None:
            return None
        takes_mail = any(listen.service == "bounces" for listen in snapshot.listeners)
        return Plan(
            tenant.id,
            self._wishes(submission, intake, tenant, track, public, leave=stream is not None),
            track,
            stream,
            f"{public.rstrip('/')}/u/",
            snapshot.settings.return_path_host if takes_mail else "",
        )

    async def copies(self, plan: Plan, content: bytes, recipients: Sequence[tuple[int, str]]) -> Copies | None:
        """Return the message for each recipient (number, public id), or None: it goes out as it is."""
        if len(content) * len(recipients) > COPIES_BYTES:
            log.warning("message_not_personal", id=recipients[0][1], reason="its copies would take too much room")
            return None
        try:
            if len(content) * len(recipients) <= INLINE_BYTES:
                written = self._write(plan, content, recipients)
            else:
                async with self._threads:
                    written = await asyncio.to_thread(self._write, plan, content, recipients)
        except (TooMuch, HeaderError) as error:
            log.warning("message_not_personal", id=recipients[0][1], reason=str(error))
            return None
        except Exception:  # a bug of ours costs the tracking and not the mail
            log.exception("message_not_personal", id=recipients[0][1])
            return None
        if written is not None and written.left:
            log.warning("text_not_personal", id=recipients[0][1], reason=written.left)
        return written

    def _wishes(
        self,
        submission: Submission,
        intake: Intake,
        tenant: Tenant,
        track: TrackDomain | None,
        public: str,
        *,
        leave: bool,
    ) -> Wishes:
        """Return what is tracked; without a record that leads to us links would lead nowhere."""
        state = None if track is None else self._tracks.states.get((tenant.id, track.full_name))
        if track is None or intake.untracked or state is None or not state.ok:
            return Wishes(leave=leave)
        in_html, in_text = tracks_clicks(track, said=submission.track_clicks, header=intake.track_links)
        ours = {track.full_name, urlsplit(public).hostname or ""}
        return Wishes(
            tracks_opens(track, said=submission.track_opens, header=intake.track_opens),
            in_html,
            in_text,
            frozenset(track.excluded) | ours,
            leave,
        )

    def _write(self, plan: Plan, content: bytes, recipients: Sequence[tuple[int, str]]) -> Copies | None:
        ends_at = time.monotonic() + TIME_S
        rewriting: Rewriting | None = None
        left = ""
        try:
            rewriting = find(content, plan.wishes, lambda: time.monotonic() > ends_at)
        except TooMuch as error:
            if plan.stream is None:
                raise
            left = str(error)  # the fields by which it can be unsubscribed do not depend on its text
        if rewriting is None and plan.stream is None:
            return None
        contents = [self._copy(plan, rewriting, content, *one) for one in recipients]
        scan(split(contents[0])[0])  # raises HeaderError where our fields were too much for a header
        links = None
        if rewriting is not None and rewriting.urls:
            first_id, last_id = recipients[0][0], recipients[-1][0]
            links = LinkSet(first_id, last_id, time.time(), pack(rewriting.urls))
        return Copies(contents, plan.stream, links, left)

    def _copy(self, plan: Plan, rewriting: Rewriting | None, content: bytes, recipient_id: int, token: str) -> bytes:
        tenant_id, leave = plan.tenant_id, ""
        if plan.stream is not None:
            leave = self._unsubscribes.make(tenant_id, recipient_id, plan.stream)
        if rewriting is not None:
            track, tenant = plan.track, self._links.tenant(tenant_id)
            host = "" if track is None else f"{'https' if track.ssl else 'http'}://{track.full_name}"
            content = rewriting.render(
                f"{host}/{tenant}/",
                f"{host}/img/{tenant}/{token}",
                lambda place: self._links.link(tenant_id, recipient_id, place),
                plan.unsubscribe_url + leave,
            )
        if plan.stream is None:
            return content
        address = f"{leave}@{plan.unsubscribe_host}" if plan.unsubscribe_host else ""
        return render_fields(f"{plan.unsubscribe_url}{leave}", address) + content
