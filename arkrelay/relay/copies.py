"""A submission written for each of its recipients: read once, written as often as there are recipients.

All copies at once would take the memory of a thousand messages. So ``drafts`` asks for some at a time, ``at_once`` of
them, and where that is not all it has each signed and on the disk before it asks for the next.

Reading and writing of what is not small is done in threads. A tenant has one of their places at a time, so that one
who sends large newsletters does not keep others waiting.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from arkrelay.mail.header import HeaderError, scan, split
from arkrelay.mail.tracking import LinkTokens, Rewriting, TooMuch, Wishes, find
from arkrelay.mail.unsubscribe import UnsubscribeTokens, render_fields
from arkrelay.model.tenant import TrackDomain
from arkrelay.store.engagement import LinkSet, pack

log = structlog.get_logger()

INLINE_BYTES = 16_000  # written in all; what is more is done in a thread: CPU work over ~1 ms leaves the event loop
AT_ONCE_BYTES = 8_000_000  # of copies, in memory twice until they are signed
TIME_S = 2.0  # for reading one message: what takes longer is made to hurt
ENCODED = b"Content-Transfer-Encoding: quoted-printable\r\n"  # what rewriting may add to a header

T = TypeVar("T")
Numbers = Sequence[tuple[int, str]]  # of recipients, with their public ids


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to a submission: ``track`` None is no tracking, ``stream`` None no unsubscription."""

    tenant_id: str
    wishes: Wishes
    track: TrackDomain | None
    stream: str | None
    unsubscribe_url: str = ""  # before the token
    unsubscribe_host: str = ""  # of the mailto; empty: none
    one_click: bool = True  # RFC 8058 §4: only where a signature covers the fields


class NotPersonal(Exception):
    """The message goes to all its recipients as it came; the log says why."""


class Places:
    """Places for work in threads, of which nobody has more than one."""

    def __init__(self, places: int) -> None:
        self._all = asyncio.Semaphore(places)
        self._own: defaultdict[str, asyncio.Lock] = defaultdict(
            asyncio.Lock
        )  # one for each tenant that ever needed it

    @asynccontextmanager
    async def of(self, tenant_id: str) -> AsyncIterator[None]:
        """Hold a place."""
        async with self._own[tenant_id], self._all:
            yield


class Writer:
    """Writes one message for one recipient."""

    def __init__(self, links: LinkTokens, unsubscribes: UnsubscribeTokens) -> None:
        self._links = links
        self._unsubscribes = unsubscribes

    def write(self, plan: Plan, rewriting: Rewriting | None, content: bytes, recipient_id: int, token: str) -> bytes:
        """Return the message of the recipient with this number and public id; ``rewriting`` None: its text stays."""
        leave = self._leave(plan, recipient_id)
        if rewriting is not None:
            track, tenant = plan.track, self._links.tenant(plan.tenant_id)
            host = "" if track is None else f"{'https' if track.ssl else 'http'}://{track.full_name}"
            content = rewriting.render(
                f"{host}/{tenant}/",
                f"{host}/img/{tenant}/{token}",
                lambda place: self._links.link(plan.tenant_id, recipient_id, place),
                plan.unsubscribe_url + leave,
            )
        return self._fields(plan, leave) + content

    def fields(self, plan: Plan, recipient_id: int) -> bytes:
        """Return the header fields by which this recipient can unsubscribe; none where nobody can."""
        return self._fields(plan, self._leave(plan, recipient_id))

    def _leave(self, plan: Plan, recipient_id: int) -> str:
        return "" if plan.stream is None else self._unsubscribes.make(plan.tenant_id, recipient_id, plan.stream)

    @staticmethod
    def _fields(plan: Plan, leave: str) -> bytes:
        if not leave:
            return b""
        address = f"{leave}@{plan.unsubscribe_host}" if plan.unsubscribe_host else ""
        return render_fields(plan.unsubscribe_url + leave, address, one_click=plan.one_click)


class Copies:
    """A submission that is written for each of its recipients, ``at_once`` of them at a time."""

    def __init__(self, writer: Writer, places: Places, plan: Plan, content: bytes, recipients: Numbers) -> None:
        self._writer, self._places = writer, places
        self._plan, self._content, self._recipients = plan, content, recipients
        self._rewriting: Rewriting | None = None
        self.at_once = max(1, AT_ONCE_BYTES // max(1, len(content)))  # recipients
        self.links: LinkSet | None = None

    async def read(self) -> bool:
        """Find what is to be written; return whether there is anything to write. Raises NotPersonal."""
        wanted, left = await self._do(self._read, len(self._content))
        if left:
            log.warning("text_not_personal", id=self._recipients[0][1], reason=left)
        return wanted

    async def write(self, start: int, end: int) -> list[bytes]:
        """Return the messages of recipients, from ``start`` to before ``end``. Raises NotPersonal."""
        return await self._do(lambda: self._write(start, end), len(self._content) * (end - start))

    async def _do(self, work: Callable[[], T], size_bytes: int) -> T:
        token = self._recipients[0][1]
        try:
            if size_bytes <= INLINE_BYTES:
                return work()
            async with self._places.of(self._plan.tenant_id):
                return await asyncio.to_thread(work)
        except (TooMuch, HeaderError) as error:
            log.warning("message_not_personal", id=token, reason=str(error))
        except Exception:  # a bug of ours costs the tracking and not the mail
            log.exception("message_not_personal", id=token)
        raise NotPersonal

    def _read(self) -> tuple[bool, str]:
        plan, ends_at = self._plan, time.monotonic() + TIME_S
        left = ""
        try:
            self._rewriting = find(self._content, plan.wishes, lambda: time.monotonic() > ends_at)
        except TooMuch as error:
            if plan.stream is None:
                raise
            left = str(error)  # the fields by which it can be unsubscribed do not depend on its text
        if self._rewriting is None and plan.stream is None:
            return False, left
        ours = self._writer.fields(plan, self._recipients[0][0]) + ENCODED
        scan(ours + split(self._content)[0])  # raises HeaderError where our fields are too much for a header
        if self._rewriting is not None and self._rewriting.urls:
            first_id, last_id = self._recipients[0][0], self._recipients[-1][0]
            self.links = LinkSet(first_id, last_id, time.time(), pack(self._rewriting.urls))
        return True, left

    def _write(self, start: int, end: int) -> list[bytes]:
        some = self._recipients[start:end]
        return [self._writer.write(self._plan, self._rewriting, self._content, *one) for one in some]
