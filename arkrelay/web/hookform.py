"""The form of a webhook: what a page offers, what was typed, and what was wrong with it."""

from dataclasses import dataclass, replace
from typing import Self

from arkrelay.model.errors import Conflict
from arkrelay.model.tenant import WEBHOOK_EVENTS, Webhook
from arkrelay.relay.hooksettings import Wish
from arkrelay.relay.settings import ChangeRefused
from arkrelay.web.visit import Visit

LABELS = {"name": "Name", "url": "URL", "events": "Events"}


@dataclass(frozen=True, slots=True)
class HookForm:
    """What stands in the fields; ``problem`` says what is wrong, with ``field`` or, where that is empty, at all."""

    owner: str = ""  # only of a new one: whose it is to be, as its path has it
    name: str = ""
    url: str = ""
    all_events: bool = True
    events: tuple[str, ...] = ()
    enabled: bool = True
    field: str = ""
    problem: str = ""

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Return the form of a webhook as it is in force."""
        one = webhook
        return cls(
            name=one.name, url=one.url, all_events=one.takes_all, events=tuple(one.events), enabled=one.enabled
        )

    @classmethod
    def typed(cls, visit: Visit) -> Self:
        """Return what was posted. As in REST, all events make those that are chosen beside them of no matter."""
        return cls(
            owner=visit.given("owner"),
            name=visit.given("name"),
            url=visit.given("url"),
            all_events=visit.given("which") == "all",
            events=tuple(one for one in WEBHOOK_EVENTS if visit.given(f"event-{one}")),
            enabled=bool(visit.given("enabled")),
        )

    @property
    def named(self) -> str:
        """The problem with the name of its field."""
        return f"{LABELS[self.field]}: {self.problem}" if self.field else self.problem

    def wish(self) -> Wish:
        """Return what a new webhook is to be; raise ChangeRefused where no event is chosen."""
        self._require_events()
        return Wish(events=self.events, all_events=self.all_events, enabled=self.enabled)

    def changes(self, configured: Webhook, in_force: Webhook) -> Wish | None:
        """Return what is to become different, None for nothing, so that one change does not undo another.

        One that its endpoint disabled stays so until a person enables it here, also when its URL changes.
        """
        moved = self.url != in_force.url
        switched = self.enabled != in_force.enabled or (moved and self.enabled != configured.enabled)
        named = set() if self.all_events else set(self.events)
        same_events = self.all_events == in_force.takes_all and named == set(in_force.events)
        if not same_events:
            self._require_events()
        wish = Wish(
            name=self.name if self.name != in_force.name else None,
            url=self.url if moved else None,
            events=None if same_events else self.events,
            all_events=None if same_events else self.all_events,
            enabled=self.enabled if switched else None,
        )
        return None if wish == Wish() else wish

    def _require_events(self) -> None:
        """Refuse none: REST and files know a webhook that takes no event, and on a page it is a slip."""
        if not self.all_events and not self.events:
            raise ChangeRefused("unfit", "events: choose one or more, or all.", "events")

    def refused(self, error: ChangeRefused | Conflict) -> Self:
        """Return the form with what was wrong, at the field that it is about."""
        key = error.key if isinstance(error, ChangeRefused) else ""
        field, said = key.rpartition(".")[2].partition("[")[0], str(error)
        if field not in LABELS:
            return replace(self, problem=said[:1].upper() + said[1:].rstrip(".") + ".")
        return replace(self, field=field, problem=said.removeprefix(f"{key}: "))
