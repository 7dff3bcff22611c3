"""How many connections one site may have, and when after a failure it may have the next.

A site is what answers for a destination: the MX host names of a domain, or a smarthost. Domains that share
their MX share its site, so a large provider is one site however many domains it hosts.
"""

from dataclasses import dataclass

FIRST_REST_S = 60.0
LONGEST_REST_S = 900.0
JITTER = 0.1  # share by which a rest is shorter or longer, so that sites which failed together do not come back so
MAX_SITES = 10_000  # remembered failures; about 2 MB


@dataclass(slots=True)
class _Site:
    open: int = 0
    failures: int = 0  # rests in a row without a success
    rest_until: float = 0.0


class Pace:
    """The sites that have connections or failed lately; any other may connect.

    ``limit`` is the number of connections to one site, 0 for no limit, and may be changed at any time. Memory
    is one entry for each site with an open connection, and at most ``MAX_SITES`` for sites that only failed.
    """

    __slots__ = ("_busy", "_sites", "limit", "max_sites")

    def __init__(self, limit: int, max_sites: int = MAX_SITES) -> None:
        self.limit = limit
        self.max_sites = max_sites
        self._busy = 0  # sites with open connections
        self._sites: dict[str, _Site] = {}  # those that only failed stand in the order of their last failure

    def __len__(self) -> int:
        return len(self._sites)

    def may_connect(self, site: str, now: float) -> bool:
        """Return whether one more connection may be opened to ``site`` now.

        After a rest a single connection tries; the others wait until it succeeded.
        """
        state = self._sites.get(site)
        if state is None:
            return True
        if _rest_until(state, now) > now:
            return False
        limit = 1 if state.failures else self.limit
        return not limit or state.open < limit

    def next_connect_at(self, site: str, now: float) -> float:
        """Return when the site's rest ends, or ``now`` when it has none and only a connection is missing."""
        state = self._sites.get(site)
        return now if state is None else max(now, _rest_until(state, now))

    def connected(self, site: str) -> None:
        """Count a connection, from the moment it is attempted; each wants one ``closed``."""
        state = self._sites.setdefault(site, _Site())
        self._busy += not state.open
        state.open += 1

    def closed(self, site: str) -> None:
        """Take back one connection; one too many does nothing."""
        state = self._sites.get(site)
        if state is None or not state.open:
            return
        state.open -= 1
        self._busy -= not state.open
        if not state.open and not state.failures:
            del self._sites[site]
        self._forget_oldest()

    def failed(self, site: str, now: float, dice: float) -> float:
        """Let the site rest, twice as long as last time, and return until when (Unix seconds).

        ``dice`` in [-1, 1] is drawn by the caller. Connections that fail together are one failure: while the
        site rests, another changes nothing.
        """
        state = self._sites.setdefault(site, _Site())
        until = _rest_until(state, now)
        if until > now:
            return until
        rest_s = min(FIRST_REST_S * 2 ** min(state.failures, 10), LONGEST_REST_S)
        state.failures += 1
        state.rest_until = now + rest_s * (1 + JITTER * dice)
        self._sites[site] = self._sites.pop(site)  # to the end: the front failed longest ago
        self._forget_oldest()
        return state.rest_until

    def succeeded(self, site: str) -> None:
        """Forget the site's failures: it answers."""
        state = self._sites.get(site)
        if state is None or not state.failures:
            return
        state.failures, state.rest_until = 0, 0.0
        if not state.open:
            del self._sites[site]

    def _forget_oldest(self) -> None:
        while len(self._sites) - self._busy > self.max_sites:
            del self._sites[next(name for name, state in self._sites.items() if not state.open)]


def _rest_until(state: _Site, now: float) -> float:
    """Return the end of the rest; one that is longer than any we order was left by a clock set back, and is over."""
    return 0.0 if state.rest_until - now > LONGEST_REST_S * (1 + JITTER) else state.rest_until
