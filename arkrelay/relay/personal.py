"""What makes a message one recipient's own: links that lead over us, a pixel, a way to unsubscribe.

Each of these names the recipient, so where one of them is wanted a submission becomes one message for each recipient,
with the same Message-ID and in the same write: REST shows whose activity it was, and nobody can unsubscribe another.
What that costs (``copies``) is paid only where a track domain or unsubscription is set up; other mail pays for one
look at its tenant.

A surprise here never keeps mail: it goes out as it came, and the log says why.
"""

from urllib.parse import urlsplit

import structlog

from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.intake import Intake
from arkrelay.mail.tracking import LinkTokens, Wishes
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.model.message import Submission
from arkrelay.model.tenant import Tenant, TrackDomain
from arkrelay.policy.engage import tracks_clicks, tracks_opens
from arkrelay.relay.copies import Copies, NotPersonal, Numbers, Places, Plan, Writer
from arkrelay.relay.track_domains import TrackChecker

log = structlog.get_logger()

COPIES_BYTES = 500_000_000  # of all copies of one submission, on the disk; a larger one goes out as it came
THREADS = 2  # at once: the interpreter lock goes round, and the event loop needs its turn


class Personal:
    """Decides what a message gets, and writes it."""

    def __init__(self, live: Live, tracks: TrackChecker, links: LinkTokens, unsubscribes: UnsubscribeTokens) -> None:
        self._live = live
        self._tracks = tracks
        self._places = Places(THREADS)
        self._writer = Writer(links, unsubscribes)

    def plan(
        self, submission: Submission, intake: Intake, tenant: Tenant, snapshot: Snapshot, *, stream: str | None
    ) -> Plan | None:
        """Return what is wanted of this message of a stream, or None: nothing, as for most mail.

        A null return path stands for notices and auto-replies (RFC 5321 §4.5.5), which are nobody's campaign.
        """
        if submission.return_path is None or (stream is None and not tenant.track_domains):
            return None
        public = snapshot.settings.public.url
        offered = None if intake.unsubscribes or not public.startswith("https://") else stream
        if offered is None and not tenant.track_domains:
            return None
        domain = intake.author.domain
        track = next((one for one in tenant.track_domains if one.domain == domain), None)
        takes_mail = any(listen.service == "bounces" for listen in snapshot.listeners)
        return Plan(
            tenant.id,
            self._wishes(submission, intake, tenant, track, public, leave=offered is not None),
            track,
            offered,
            f"{public.rstrip('/')}/u/",
            snapshot.settings.return_path_host if takes_mail else "",
            bool(snapshot.signers(tenant.id, domain)),
        )

    async def copies(self, plan: Plan, content: bytes, recipients: Numbers) -> Copies | None:
        """Return what writes the message for each recipient, or None: it goes out as it is."""
        if len(content) * len(recipients) > COPIES_BYTES:
            log.warning("message_not_personal", id=recipients[0][1], reason="its copies would take too much room")
            return None
        copies = Copies(self._writer, self._places, plan, content, recipients)
        try:
            return copies if await copies.read() else None
        except NotPersonal:
            return None

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
