"""The log of events: what happened, in order, once each."""

from collections.abc import Iterator
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import State, config_option, json_option, pass_state

PAGE = 500  # events asked for at once
WAIT_S = 25  # below the 30 s that the daemon waits at most
FIRST_SHOWN = 10  # with --follow, as tail does
Event = dict[str, Any]


@click.command("events")
@config_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next, until ^C.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Only events after this number.")
@click.option("-n", "--last", type=click.IntRange(0), metavar="N", help="Only the last N; 10 with --follow.")
@click.option("-t", "--tenant", metavar="ID", help="Only of this tenant.")
@click.option("--event", "kinds", multiple=True, metavar="NAME", help="Only of this kind; may be repeated.")
@pass_state
def events_command(
    state: State,
    as_json: bool,
    follow: bool,
    after: int | None,
    last: int | None,
    tenant: str | None,
    kinds: tuple[str, ...],
) -> None:
    """Print events, the oldest first; with --json one object a line.

    Every event has a number that only grows: a reader that keeps the last one and asks with --after sees
    each event once, across restarts of either side.
    """
    reader = Reader(Daemon(state.config), tenant, kinds)
    show = output.print_json_line if as_json else _print_event
    if last is None and follow and after is None:
        last = FIRST_SHOWN
    shown = 0
    found = reader.until_now(after or 0) if last is None else reader.last(last, after or 0)
    for event in found:
        show(event)
        shown += 1
    if follow:
        try:
            reader.follow(show)
        except KeyboardInterrupt:
            return  # the way in which it ends
    if not shown and not as_json:
        output.note("no events")


class Reader:
    """Reads the log forwards; ``seen`` is the number up to which everything was read."""

    def __init__(self, daemon: Daemon, tenant: str | None, kinds: tuple[str, ...]) -> None:
        self._daemon, self._tenant, self._kinds = daemon, tenant, kinds
        self.seen = 0

    def until_now(self, after: int) -> Iterator[Event]:
        """Yield what happened after this number until now."""
        self.seen = after
        while True:
            events = self._page()
            if not events:
                return
            yield from filter(self._wanted, events)

    def last(self, count: int, after: int) -> list[Event]:
        """Return the last ``count`` events after this number, from a window that grows until it has them."""
        end = self._end(after)
        window = max(count, PAGE)
        while True:
            start = max(after, end - window)
            found = list(self.until_now(start))
            if len(found) >= count or start == after:
                return found[-count:] if count else []
            window *= 4

    def follow(self, show: Any) -> None:
        """Show what happens, as it happens; never returns."""
        while True:
            for event in filter(self._wanted, self._page(wait=WAIT_S)):
                show(event)

    def _page(self, wait: int | None = None) -> list[Event]:
        data = self._daemon.data("GET", "/v1/events", after=self.seen, limit=PAGE, tenantId=self._tenant, wait=wait)
        self.seen = int(data.get("next", self.seen))
        events: list[Event] = data.get("events", [])
        return events

    def _end(self, after: int) -> int:
        """Return the number of the last event, found by halving: a log of years is not read through for its end."""
        low, step = after, PAGE
        while (seq := self._next(low + step)) is not None:
            low, step = seq, step * 2
        high = low + step
        while low < high:
            middle = (low + high) // 2
            seq = self._next(middle)
            low, high = (low, middle) if seq is None else (seq, high)
        return low

    def _next(self, after: int) -> int | None:
        data = self._daemon.data("GET", "/v1/events", after=after, limit=1)
        events = data.get("events", [])
        return int(events[0]["seq"]) if events else None

    def _wanted(self, event: Event) -> bool:
        return (self._tenant is None or event.get("tenantId") == self._tenant) and (
            not self._kinds or event.get("event") in self._kinds
        )


def _print_event(event: Event) -> None:
    about = [str(event[name]) for name in ("tenantId", "emailId", "to") if event.get(name)]
    for name, value in (event.get("data") or {}).items():
        if isinstance(value, str | int | float) and value:
            about.append(f"{name}={output.when(value) if name.endswith('_at') else value}")
    line = f"{event.get('seq')}  {output.when(event.get('at'))}  {event.get('event')}  {' '.join(about)}"
    output.say(output.clean_line(line.replace("\n", " ")))
