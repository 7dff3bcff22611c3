"""Who answers for a domain, and what that site takes from one address: a shipped table, and the settings.

Operators whose customers' domains share one front count connections per sender and not per domain; so do we. They are
known by the suffix of their MX host names, so a hosted domain counts in. Everybody else is known by the zone of the
best MX host and gets what ``[delivery]`` says; a smarthost is somebody's own and has no rate.
"""

import tomllib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

from arkrelay.model.delivery import Delivery, Provider
from arkrelay.model.dns import MxHost
from arkrelay.policy.pace import Capacity
from arkrelay.policy.zones import zone_of


class Providers:
    """The providers in force: the settings' own first, then the shipped ones that they do not replace."""

    def __init__(self, delivery: Delivery, own: Sequence[Provider] = ()) -> None:
        self._delivery = delivery
        named = {one.name for one in own}
        self.all: tuple[Provider, ...] = (*own, *(one for one in shipped() if one.name not in named))
        self._capacities = {
            one.name: Capacity(one.connections, one.messages_per_connection, one.messages_per_second, one.idle_s)
            for one in self.all
        }
        self._smarthost, self._site = self._plain(0.0), self._plain(delivery.messages_per_second)

    def site_of(self, hosts: Sequence[MxHost]) -> str:
        """Return the key by which connections to these hosts are counted: a provider, or the best host's zone."""
        best = min(hosts, key=lambda host: (host.preference, host.host)).host  # the same, however equals are shuffled
        provider = self._of(best)
        return zone_of(best) if provider is None else provider.name

    def capacity(self, lane: str) -> Capacity:
        """Return what a site takes from one address, by a lane's name, when all is well; 0 is no limit."""
        site = site_of_lane(lane)
        if (found := self._capacities.get(site)) is not None:
            return found
        return self._smarthost if ":" in site else self._site  # host:port is a smarthost

    def _plain(self, rate: float) -> Capacity:
        delivery = self._delivery
        return Capacity(
            delivery.connections_per_site, delivery.messages_per_connection, rate, delivery.idle_connection_s
        )

    def demands_tls(self, host: str) -> bool:
        """Return whether mail is never sent to this MX host in clear text."""
        provider = self._of(host)
        return provider is not None and provider.tls == "required"

    def _of(self, host: str) -> Provider | None:
        return next((one for one in self.all if any(f".{host}".endswith(suffix) for suffix in one.mx)), None)


def lane_name(site: str, address: str | None) -> str:
    """Return the name of the lane from an address of ours to a site: SITE@ADDRESS, or SITE if the system chooses."""
    return site if address is None else f"{site}@{address}"


def site_of_lane(lane: str) -> str:
    """Return the site that a lane leads to."""
    return lane.partition("@")[0]


@lru_cache(maxsize=1)
def shipped() -> tuple[Provider, ...]:
    """Return the providers of ``providers.toml`` beside this file."""
    text = resources.files("arkrelay.policy").joinpath("providers.toml").read_text(encoding="utf-8")
    return tuple(
        Provider(
            name=row["name"],
            mx=tuple(row["mx"]),
            connections=row["connections"],
            messages_per_connection=row["messages"],
            tls=row.get("tls", "optional"),
        )
        for row in tomllib.loads(text)["providers"]
    )
