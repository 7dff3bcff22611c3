"""One attempt at one webhook as who has events to tell will make it: numbered, recorded, with the body's own uuid."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from peers.configuration import Folder
from peers.receiver import Receiver
from unit.relay.rig import Rig

from arkrelay.base.metrics import Metrics
from arkrelay.config.hookkeys import HookKeys
from arkrelay.config.live import Live
from arkrelay.model.errors import Conflict
from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import HookDelivery, HookJob
from arkrelay.model.tenant import Webhook
from arkrelay.policy.payloads import body_of, payload_of
from arkrelay.relay.hooks import Hook, Hooks, Told, server_of
from arkrelay.store.hooks import Filters, list_deliveries
from arkrelay.wire.dns import Resolver
from arkrelay.wire.https import Poster

HOST = "127.0.0.2"
SETTINGS = f"""
[webhooks]
allow_http = true
allow_destinations = ["{HOST}/32"]
timeout = "2s"
"""


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


class Post:
    """A hook whose posts arrive at a receiver on loopback."""

    def __init__(self, rig: Rig, hooks: Hooks, receiver: Receiver) -> None:
        self.rig, self.hooks, self.receiver = rig, hooks, receiver

    def hook(self, path: str = "", owner: str | None = "acme", **more: Any) -> Hook:
        url = f"http://{HOST}:{self.receiver.port}/{path}"
        return Hook(owner, Webhook(name="w", url=url, id="1" if owner else "pwh_1", uuid="u", **more))

    async def rows(self, owner: str = "acme") -> list[HookDelivery]:
        found, _ = await self.rig.store.read(lambda db: list_deliveries(db, Filters(owner=owner)))
        return found


@pytest.fixture
async def post(rig: Rig, folder: Folder) -> AsyncIterator[Post]:
    resolver = Resolver(["127.0.0.1:9"], 0.1)
    poster = Poster(resolver, frozenset())
    async with Receiver(HOST) as receiver:
        hooks = Hooks(rig.store, rig.live, poster, HookKeys(folder.state), Metrics(), clock=Clock())
        yield Post(rig, hooks, receiver)
    await poster.close()
    await resolver.close()


@pytest.fixture
def folder(rig: Rig) -> Folder:
    rig.folder.main(SETTINGS)
    rig.live.reload()
    return rig.folder


async def told(rig: Rig, live: Live, *, uuid: str, at: float) -> Told:
    """Return what a consumer of the event log would tell about a message that was sent."""
    recipient = rig.recipient()
    event = Event(EventKind.SENT, at - 60, "acme", recipient.message.id, recipient.id, {"details": "taken"})
    payload = payload_of(event, recipient, server_of(live.snapshot, "acme"))
    assert payload is not None
    body = body_of(event.kind, payload, form=live.snapshot.settings.webhooks.body, uuid=uuid, at=at)
    return Told(event.kind, "acme", body)


async def test_attempts_at_one_event_are_numbered_fresh_and_keep_its_uuid(rig: Rig, post: Post) -> None:
    made = []
    for number, path in ((1, "503"), (2, "close"), (3, "")):
        what = await told(rig, rig.live, uuid="of the event", at=1000.0 + number)
        made.append(await post.hooks.attempt(post.hook(path), what, number=number, last=number == 10))
    assert [(one.attempt, one.will_retry, one.answer.status) for one in made] == [
        (1, True, 503), (2, True, None), (3, False, 200),
    ]  # fmt: skip
    assert await post.rows() == made[::-1]
    bodies = [json.loads(request.body) for request in post.receiver.requests]
    assert {body["uuid"] for body in bodies} == {"of the event"}
    assert [body["timestamp"] for body in bodies] == [1001.0, 1002.0, 1003.0]
    assert bodies[0]["payload"]["message"]["from"] == "app@sender.test"
    assert bodies[0]["payload"]["timestamp"] == 941.0
    assert len({request.headers["x-ark-signature"] for request in post.receiver.requests}) == 3
    assert [request.body.decode() for request in post.receiver.requests] == [one.body for one in made]


@pytest.mark.parametrize(
    ("path", "last", "will_retry"), [("500", True, False), ("500", False, True), ("", False, False)]
)
async def test_a_failure_is_tried_again_unless_it_was_the_last(
    rig: Rig, post: Post, path: str, last: bool, will_retry: bool
) -> None:
    what = await told(rig, rig.live, uuid="u", at=1.0)
    assert (await post.hooks.attempt(post.hook(path), what, last=last)).will_retry is will_retry


async def test_text_that_is_no_text_is_sent_as_json_that_anybody_reads(post: Post) -> None:
    body = {"subject": "Grüße \u2028 \udcff", "nested": {"ü": None}}
    await post.hooks.attempt(post.hook(), Told("MessageSent", "acme", body))
    (request,) = post.receiver.requests
    assert request.body.isascii()
    assert json.loads(request.body) == body


async def test_the_platforms_posts_are_recorded_as_its_own(post: Post) -> None:
    one = await post.hooks.test(post.hook(owner=None), "MessageHeld")
    assert (one.owner, one.tenant_id, one.public_id[:4]) == ("", "acme", "pwd_")
    assert await post.rows() == []
    assert await post.rows("") == [one]


@pytest.mark.parametrize("form", ["wrapped", "bare", "merged"])
async def test_a_job_is_told_in_the_form_of_the_settings_and_the_platforms_always_wrapped(
    rig: Rig, post: Post, form: str
) -> None:
    rig.folder.main(f'{SETTINGS}body = "{form}"\n')
    rig.live.reload()
    recipient = rig.recipient()
    event = Event(EventKind.SENT, 1.0, "acme", recipient.message.id, recipient.id, {"details": "taken"})
    job = HookJob(1, 1, "of the event", 0, recipient.id, event, recipient)
    mine, central = post.hooks.tell(post.hook(), job), post.hooks.tell(post.hook(owner=None), job)
    assert mine is not None
    assert central is not None
    assert ("payload" in mine.body, "details" in mine.body) == (form != "bare", form != "wrapped")
    assert list(central.body) == ["event", "tenant_id", "timestamp", "uuid", "payload"]
    assert central.body["uuid"] == "of the event"
    for gone in (replace(job, event=None), replace(job, recipient=None)):  # retention took it
        assert post.hooks.tell(post.hook(), gone) is None


async def test_a_disabled_webhook_is_tested_and_gets_nothing_again(post: Post) -> None:
    hook = post.hook(enabled=False, events=("MessageHeld",))
    one = await post.hooks.test(hook, "MessageSent")
    assert one.answer.success
    with pytest.raises(Conflict, match="disabled"):
        await post.hooks.replay(hook, one)
    assert len(post.receiver.requests) == 1
    with pytest.raises(ValueError, match="told"):
        await post.hooks.test(hook, "MessageAccepted")


async def test_a_change_of_the_settings_is_in_force_at_the_next_post(rig: Rig, post: Post) -> None:
    assert (await post.hooks.test(post.hook(), "MessageSent")).answer.success
    assert post.hooks.refusal(post.hook().webhook.url) is None
    rig.folder.main(SETTINGS.replace("allow_http = true", "allow_http = false"))
    rig.live.reload()
    refused = await post.hooks.test(post.hook(), "MessageSent")
    assert (refused.answer.status, "allow_http" in (refused.answer.error or "")) == (None, True)
    rig.folder.main("[webhooks]\nallow_http = true\n")
    rig.live.reload()
    assert "loopback" in ((await post.hooks.test(post.hook(), "MessageSent")).answer.error or "")
    assert "loopback" in (post.hooks.refusal(post.hook().webhook.url) or "")
    assert len(post.receiver.requests) == 1


def test_a_tenant_that_is_gone_is_still_named(rig: Rig) -> None:
    shown = server_of(rig.live.snapshot, "gone")
    assert set(shown) == set(server_of(rig.live.snapshot, "acme")) == {"uuid", "name", "permalink", "organization"}
    assert (shown["name"], shown["permalink"]) == ("gone", "gone")
