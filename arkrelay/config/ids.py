"""The ids and uuids that REST shows, for things whose file gives none.

They are derived from names, so a hand-written file needs only names and yet a client sees the same number after
every restart. What REST and the CLI write carries its id, so a rename does not change it.
"""

import dataclasses
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from arkrelay.model.tenant import Platform, Tenant, Webhook

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:arkrelay")
ID_BITS = 31  # positive in every client's int


def stable_uuid(kind: str, owner: str, name: str) -> str:
    """Return the same UUID for the same thing, always."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}/{owner}/{name}"))


class Numbers:
    """Numbers of one kind of thing, each given once; ``taken`` are those that files name."""

    def __init__(self, taken: Iterable[int]) -> None:
        self._taken = {0, *taken}

    def number(self, owner: str, name: str) -> int:
        """Return the thing's number; two that fall on the same one get neighbours, in the order they are asked."""
        made = int.from_bytes(hashlib.sha256(f"{owner}/{name}".encode()).digest()[:4]) >> (32 - ID_BITS)
        while made in self._taken:
            made = (made + 1) % 2**ID_BITS
        self._taken.add(made)
        return made


def with_ids(tenants: Mapping[str, Tenant], platform: Platform) -> tuple[dict[str, Tenant], Platform]:
    """Return the same with every id and uuid filled in; numbers are unique over all tenants."""
    ordered = sorted(tenants.values(), key=lambda tenant: tenant.id)
    credentials = Numbers(item.id for tenant in ordered for item in tenant.credentials)
    domains = Numbers(item.id for tenant in ordered for item in tenant.domains)
    webhooks = Numbers(_numeric(item.id for tenant in ordered for item in tenant.webhooks))
    tracks = Numbers(_numeric(item.id for tenant in ordered for item in tenant.track_domains))
    filled = {}
    for tenant in ordered:
        filled[tenant.id] = dataclasses.replace(
            tenant,
            credentials=tuple(
                dataclasses.replace(item, id=item.id or credentials.number(tenant.id, item.name))
                for item in tenant.credentials
            ),
            domains=tuple(
                dataclasses.replace(
                    item,
                    id=item.id or domains.number(tenant.id, item.name),
                    uuid=item.uuid or stable_uuid("domain", tenant.id, item.name),
                )
                for item in tenant.domains
            ),
            webhooks=tuple(
                dataclasses.replace(
                    item,
                    id=item.id or str(webhooks.number(tenant.id, label)),
                    uuid=item.uuid or stable_uuid("webhook", tenant.id, label),
                )
                for item, label in _labelled(tenant.webhooks)
            ),
            track_domains=tuple(
                dataclasses.replace(item, id=item.id or str(tracks.number(tenant.id, f"{item.name}.{item.domain}")))
                for item in tenant.track_domains
            ),
        )
    keys = Numbers(item.id for item in platform.keys)
    return filled, dataclasses.replace(
        platform,
        keys=tuple(dataclasses.replace(item, id=item.id or keys.number("", item.name)) for item in platform.keys),
        webhooks=tuple(
            dataclasses.replace(
                item,
                id=item.id or f"pwh_{uuid.UUID(stable_uuid('webhook', '', label)).hex}",  # Ark contract §7
                uuid=item.uuid or stable_uuid("webhook", "", label),
            )
            for item, label in _labelled(platform.webhooks)
        ),
    )


def _labelled(webhooks: Iterable[Webhook]) -> Iterator[tuple[Webhook, str]]:
    """Yield each with its name, the second of one name as "name#2": names of webhooks need not be unique."""
    seen: Counter[str] = Counter()
    for item in webhooks:
        seen[item.name] += 1
        yield item, item.name if seen[item.name] == 1 else f"{item.name}#{seen[item.name]}"


def _numeric(ids: Iterable[str]) -> list[int]:
    return [int(text) for text in ids if text.isascii() and text.isdecimal() and len(text) < 20]
