"""What of another service's settings is taken, held against ours: one line for each thing, and the tables to write.

Nothing that is here is changed. What is here already and the same is "present"; what is here and otherwise "differs"
and stays ours; what our files could not hold is "left", with the reason, so that one odd thing there does not keep
back the rest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from arkrelay.cli import foreign
from arkrelay.config.checktenants import CREDENTIAL_NAME, TENANT_NAME_CHARS, TRACK_LABEL
from arkrelay.config.domains import sender_domain
from arkrelay.config.load import TENANT_ID
from arkrelay.config.snapshot import Snapshot, digest
from arkrelay.config.takeover import Addition
from arkrelay.mail.dkim import load_key
from arkrelay.model import tenant as ours
from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.settings import Webhooks
from arkrelay.policy.metadata import faults
from arkrelay.policy.targets import settled_refusal

GOOD_RSA_BITS = 2048  # RFC 8301 §3.2: signers should use at least this


class Fate(StrEnum):
    """What becomes of one thing."""

    TAKE = "take"
    PRESENT = "present"
    DIFFERS = "differs"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report; ``tenant`` is empty for what belongs to the whole organisation."""

    tenant: str
    what: str
    name: str
    fate: Fate
    note: str = ""


@dataclass(slots=True)
class Plan:
    """The lines of the report, and what is written for those that are taken."""

    lines: list[Line] = field(default_factory=list)
    additions: dict[str, Addition] = field(default_factory=dict)
    platform_webhooks: list[dict[str, Any]] = field(default_factory=list)
    suppressions: dict[str, foreign.Suppressions] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether files would change."""
        return bool(self.additions or self.platform_webhooks)


def make_plan(found: foreign.Foreign, snapshot: Snapshot) -> Plan:
    """Return what is to be done with ``found``, given what is here."""
    plan = Plan()
    planner = _Planner(snapshot, plan)
    planner.platform(found.webhooks)
    for tenant in found.tenants:
        planner.tenant(tenant)
    plan.lines += [Line("", one.what, one.name, Fate.LEFT, one.note) for one in found.left]
    return plan


class _Planner:
    """Knows what is taken so far, so that two tenants do not get the same domain or key."""

    def __init__(self, snapshot: Snapshot, plan: Plan) -> None:
        self.snapshot, self.plan = snapshot, plan
        self.hooks = snapshot.settings.webhooks
        self.domains = {name: owner.id for name, (owner, _) in snapshot.index.domains.items()}
        self.keys = {key: f"tenant {owner.id}" for key, (owner, _) in snapshot.index.credentials.items()}
        self.keys |= dict.fromkeys(snapshot.index.keys, "the organisation")

    def platform(self, webhooks: Iterable[foreign.Webhook]) -> None:
        here = self.snapshot.platform.webhooks
        say = _Say(self.plan, "")
        self.plan.platform_webhooks = [_hook(one) for one in self._webhooks(say, webhooks, here)]

    def tenant(self, one: foreign.Tenant) -> None:
        say = _Say(self.plan, one.id)
        here = self.snapshot.tenants.get(one.id)
        reason = self._unusable(one) if here is None else self._closed(here)
        if reason:
            say("tenant", one.name, Fate.LEFT, f"{reason}; nothing of it is taken")
            return
        addition = Addition()
        if here is None:
            addition.new = {"name": one.name, "status": one.status, "metadata": dict(one.metadata or {}) or None}
            addition.new["limits"] = {"hourly": one.hourly} if one.hourly else None
            say("tenant", one.name, Fate.TAKE, one.note)
            here = ours.Tenant(id=one.id, name=one.name)
        else:
            differs = _differences(
                ("name", here.name, one.name),
                ("status", here.status, one.status),
                ("metadata", dict(here.metadata), _or_ours(one.metadata, here.metadata)),
                ("hourly limit", here.limits.hourly, _or_ours(one.hourly, here.limits.hourly)),
            )
            say("tenant", one.name, Fate.DIFFERS if differs else Fate.PRESENT, differs)
        addition.domains = {domain.name: domain.key for domain in self._domains(say, one, here)}
        addition.credentials = [
            {"name": item.name, "type": item.type, "secret": item.key, "hold": item.hold or None}
            for item in self._credentials(say, one, here)
        ]
        addition.webhooks = [_hook(item) for item in self._webhooks(say, one.webhooks, here.webhooks)]
        own = {domain.name for domain in here.domains} | set(addition.domains)
        addition.track_domains = [_track(item) for item in self._tracks(say, one, here, own)]
        for left in one.left:
            say(left.what, left.name, Fate.LEFT, left.note)
        if one.suppressions is not None and one.suppressions.count:
            self.plan.suppressions[one.id] = one.suppressions
            say("suppressions", str(one.suppressions.count), Fate.TAKE, "those that are here stay as they are")
        if addition:
            self.plan.additions[one.id] = addition

    def _unusable(self, one: foreign.Tenant) -> str:
        if not TENANT_ID.fullmatch(one.id):
            return "its id cannot be the name of a file: expected [a-z0-9][a-z0-9_-]{0,62}"
        if not 0 < len(one.name) <= TENANT_NAME_CHARS:
            return f"its name must have 1 to {TENANT_NAME_CHARS} characters"
        if one.status not in ours.STATUSES:
            return f'its status "{one.status}" is not known here'
        return next((f"metadata {key}: {reason}" for key, reason in faults(one.metadata or {})), "")

    @staticmethod
    def _closed(here: ours.Tenant) -> str:
        return 'its file has managed = "file" and is changed by hand' if here.managed == "file" else ""

    def _domains(self, say: "_Say", one: foreign.Tenant, here: ours.Tenant) -> Iterator[foreign.Domain]:
        for domain in one.domains:
            try:
                name, note = sender_domain(domain.name), domain.note
                bits = _bits(domain)
            except (AddressError, ValueError) as error:
                say("domain", domain.name, Fate.LEFT, str(error))
                continue
            owner = self.domains.get(name)
            if owner == one.id:
                known = here.domain(name)
                missing = known and domain.key and domain.key.selector not in {key.selector for key in known.dkim}
                if known is None:
                    say("domain", name, Fate.LEFT, "it stands there twice")
                elif domain.key and missing:
                    say("domain", name, Fate.DIFFERS, f"its key {domain.key.selector} is not one of those here")
                else:
                    say("domain", name, Fate.PRESENT)
            elif owner is not None:
                say("domain", name, Fate.LEFT, f"it is a domain of tenant {owner} here, and can have one owner")
            else:
                self.domains[name] = one.id
                if not domain.key:
                    note = note or "with a new DKIM key: its records are to be published"
                elif bits < GOOD_RSA_BITS:
                    note = (
                        f"its DKIM key has {bits} bits, RFC 8301 wants {GOOD_RSA_BITS}: arkrelay domain rotate {name}"
                    )
                say("domain", name, Fate.TAKE, note)
                yield foreign.Domain(name, domain.key)

    def _credentials(self, say: "_Say", one: foreign.Tenant, here: ours.Tenant) -> Iterator[foreign.Credential]:
        names = {item.name for item in here.credentials}
        for item in one.credentials:
            known = here.credential(item.name)
            if item.key is None:
                if known is None:
                    say("credential", item.name, Fate.LEFT, item.note or "its key is not shown there")
                else:
                    say("credential", item.name, Fate.PRESENT, "its key is not shown there, so it is not compared")
                continue
            owner, same = self.keys.get(digest(item.key)), self._holder(here, item.key)
            if same is not None:
                differs = _differences(("type", same.type, item.type), ("hold", same.hold, item.hold))
                renamed = f"it is called {same.name} here" if same.name != item.name else ""
                say("credential", item.name, Fate.DIFFERS if differs else Fate.PRESENT, differs or renamed)
            elif owner is not None:
                say("credential", item.name, Fate.LEFT, f"its key is one of {owner} already, and opens one door only")
            elif item.name in names:
                say("credential", item.name, Fate.DIFFERS, "there is one of this name here, with another key")
            elif not CREDENTIAL_NAME.fullmatch(item.name):
                say(
                    "credential", item.name, Fate.LEFT, "its name is not 1 to 50 letters, digits, dashes, underscores"
                )
            elif item.type not in {"smtp", "api"} or not item.key:
                say("credential", item.name, Fate.LEFT, f'its type "{item.type}" is not known here')
            else:
                names.add(item.name)
                self.keys[digest(item.key)] = f"tenant {one.id}"
                say("credential", item.name, Fate.TAKE, item.note or ("it is on hold" if item.hold else ""))
                yield item

    def _holder(self, here: ours.Tenant, key: str) -> ours.Credential | None:
        found = self.snapshot.find_credential(key)
        return found[1] if found and found[0].id == here.id else None

    def _webhooks(
        self, say: "_Say", webhooks: Iterable[foreign.Webhook], here: Iterable[ours.Webhook]
    ) -> Iterator[foreign.Webhook]:
        named = {(item.name, item.url): item for item in here}
        by_url = {item.url: item for item in here}
        for one in webhooks:
            label = f"{one.name} {one.url}"
            known = named.get((one.name, one.url)) or by_url.get(one.url)
            if known is not None:
                differs = _differences(
                    ("name", known.name, one.name),
                    ("events", _events(known.takes_all, known.events), _events(one.all_events, one.events)),
                    ("enabled", known.enabled, one.enabled),
                )
                say("webhook", label, Fate.DIFFERS if differs else Fate.PRESENT, differs)
                continue
            reason = _hook_fault(one, self.hooks)
            say("webhook", label, Fate.LEFT if reason else Fate.TAKE, reason or one.note)
            if not reason:
                yield one

    @staticmethod
    def _tracks(say: "_Say", one: foreign.Tenant, here: ours.Tenant, own: set[str]) -> Iterator[foreign.TrackDomain]:
        known = {item.domain: item for item in here.track_domains}
        taken: set[str] = set()
        for item in one.track_domains:
            label, ours_ = f"{item.name}.{item.domain}", known.get(item.domain)
            if ours_ is not None:
                differs = _differences(
                    ("name", ours_.full_name, label),
                    ("https", ours_.ssl, item.ssl),
                    ("clicks", ours_.clicks, item.clicks),
                    ("opens", ours_.opens, item.opens),
                    ("excluded", sorted(ours_.excluded), sorted(item.excluded)),
                )
                say("track domain", label, Fate.DIFFERS if differs else Fate.PRESENT, differs)
            elif item.domain not in own:
                say("track domain", label, Fate.LEFT, f"{item.domain} is not a domain of this tenant here")
            elif item.domain in taken:
                say("track domain", label, Fate.LEFT, "a sender domain has one track domain")
            elif not TRACK_LABEL.fullmatch(item.name):
                say(
                    "track domain", label, Fate.LEFT, "its name is not one label of small letters, digits and hyphens"
                )
            else:
                taken.add(item.domain)
                say("track domain", label, Fate.TAKE, "its CNAME is to be published")
                yield item


@dataclass(frozen=True, slots=True)
class _Say:
    plan: Plan
    tenant: str

    def __call__(self, what: str, name: str, fate: Fate, note: str = "") -> None:
        self.plan.lines.append(Line(self.tenant, what, name, fate, note))


def _differences(*pairs: tuple[str, object, object]) -> str:
    """Return what is otherwise there, in words; nothing when nothing is."""
    return "; ".join(
        f"{what} is {_shown(here)} here, {_shown(there)} there" for what, here, there in pairs if here != there
    )


def _or_ours(theirs: Any, ours_: Any) -> Any:
    """Return what is compared: without a value of theirs, ours."""
    found = ours_ if theirs is None else theirs
    return dict(found) if isinstance(found, Mapping) else found


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(one) for one in value) or "none"
        case Mapping():
            return ", ".join(f"{key}={one}" for key, one in value.items()) or "none"
    return str(value) or "none"


def _events(takes_all: bool, events: Iterable[str]) -> list[str]:
    return ["all"] if takes_all else sorted(events)


def _bits(domain: foreign.Domain) -> int:
    """Return the size of the domain's key; raise ValueError when we could not sign with it."""
    if domain.key is None:
        return 0
    key = load_key(domain.key.pem, "rsa-sha256")
    return int(getattr(key, "key_size", 0))


def _hook_fault(one: foreign.Webhook, settings: Webhooks) -> str:
    if not one.name:
        return "it has no name"
    unknown = [name for name in one.events if name not in ours.WEBHOOK_EVENTS]
    if unknown:
        return f"its event {unknown[0]} is not known here"
    return settled_refusal(one.url, settings) or ""


def _hook(one: foreign.Webhook) -> dict[str, Any]:
    events: dict[str, Any] = {"events": None if one.all_events else list(one.events) or None}
    if not one.all_events and not one.events:
        events["all_events"] = False
    return {"name": one.name, "url": one.url, **events, "enabled": None if one.enabled else False}


def _track(one: foreign.TrackDomain) -> dict[str, Any]:
    defaults = {name: None if getattr(one, name) else False for name in ("ssl", "clicks", "opens")}
    return {"name": one.name, "domain": one.domain, **defaults, "excluded": list(one.excluded) or None}


def excluded_hosts(text: str | None) -> tuple[str, ...]:
    """Return the hosts of a list as Ark (commas) and Postal (lines) write it, without those that are none."""
    found = []
    for word in (text or "").replace(",", "\n").split():
        try:
            found.append(parse_domain(word, utf8=True))
        except AddressError:
            continue
    return tuple(dict.fromkeys(found))
