"""Post events to 20 webhooks, and say how many a minute that were and what one post costs.

    python tests/bench/hooks.py [--events 10000] [--webhooks 20] [--plain] [--dead 0] [--down 0] [--json]
    python tests/bench/hooks.py --to-all [--scale 1.0] [--webhooks 20] [--plain] [--json]

Without ``--to-all`` each webhook is of a tenant of its own and gets its share of the events, so that an event is one
post. With it all webhooks are of one tenant and each gets every event, and there are two runs: 500 events, which are
10 000 posts, and 10 000 events, which are 200 000; ``--scale`` makes both smaller.

The events are in the log when the daemon starts, so that posting is measured and nothing else. Posts are over TLS
unless ``--plain``; ``--dead`` more webhooks hang and never answer, and may cost the others nothing, and with ``--down
S`` all answer 503 for S seconds first. The receivers are another process, on the same cores; the CPU time is the
relay's alone. Exit status 0 when every post came exactly once, whatever the speed.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # a script's own folder was first; `bench` and `peers` are seen from here

from aiohttp import web  # noqa: E402 -- it needs the line above
from bench.daemon import Daemon  # noqa: E402 -- likewise
from peers import certificates  # noqa: E402 -- likewise

from arkrelay.model.event import Event, EventKind  # noqa: E402 -- likewise
from arkrelay.model.message import Door, Message, Recipient, Status  # noqa: E402 -- likewise
from arkrelay.store.accept import Insertion, insert_messages  # noqa: E402 -- likewise
from arkrelay.store.database import Store  # noqa: E402 -- likewise
from arkrelay.store.hookjobs import start_cursor  # noqa: E402 -- likewise

HOST = "127.0.0.2"
GOAL_PER_MINUTE = 10_000
GIVE_UP_S = 120.0  # and as long again for as many posts as the goal is a minute
BATCH = 500
MAIN = f"""
hostname = "relay.test"
state_dir = "state"
[[listen]]
service = "http"
address = "127.0.0.1:0"
[limits]
min_free_disk = "1MB"
[log]
level = "warning"
[webhooks]
allow_http = true
allow_destinations = ["{HOST}/32"]
"""
TENANT = 'name = "{name}"\n'
HOOK = '[[webhooks]]\nname = "hook"\nid = "{id}"\nurl = "{url}"\n'


def main() -> int:
    """Measure once, or with --to-all twice, and print the results."""
    parser = argparse.ArgumentParser(description="Post events to webhooks, and say how fast and at what cost.")
    parser.add_argument("--to-all", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--events", type=int, default=GOAL_PER_MINUTE)
    parser.add_argument("--webhooks", type=int, default=20)
    parser.add_argument("--dead", type=int, default=0)
    parser.add_argument("--down", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    runs = {"each event to one webhook": given.events}
    if given.to_all:
        events = [round(given.scale * count) for count in (GOAL_PER_MINUTE // given.webhooks, GOAL_PER_MINUTE)]
        runs = {f"{count} events to each of {given.webhooks} webhooks": count for count in events}
    results = {}
    for title, events_ in runs.items():
        with tempfile.TemporaryDirectory(prefix="arkrelay-hooks-") as folder:
            results[title] = found = measure(
                Path(folder),
                events_,
                given.webhooks,
                given.dead,
                given.down,
                tls=not given.plain,
                to_all=given.to_all,
            )
        if not given.json:
            print(title)
            for name, value in found.items():
                print(f"{name:>22}  {value:g}")
    if given.json:
        print(json.dumps(results))
    return 0 if all(found["distinct"] == found["came"] == found["posts"] for found in results.values()) else 1


def measure(
    folder: Path, events: int, webhooks: int, dead: int, down_s: float, *, tls: bool, to_all: bool
) -> dict[str, float]:
    """Return what one run measured."""
    posts = events * webhooks if to_all else events
    certificates.valid(HOST)  # made before the fork, so that both sides know the same
    ours, theirs = multiprocessing.Pipe()
    receivers = multiprocessing.Process(target=serve_receivers, args=(theirs, tls, down_s), daemon=True)
    receivers.start()
    url = ours.recv()
    urls = [f"{url}/t{number}" for number in range(webhooks)] + [f"{url}/hang"] * dead
    tenants = [urls[:webhooks]] if to_all else [[url] for url in urls[:webhooks]]
    asyncio.run(_fill(folder, tenants, urls[webhooks:], events))
    environment = {**os.environ, "SSL_CERT_FILE": str(certificates.authority().ca_file)}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "arkrelay", "serve", "-c", str(folder / "arkrelay.toml")]
        daemon = Daemon(subprocess.Popen(command, stderr=log, env=environment), 0, 0, 0.0)
    try:
        first, last, cpu_s = _watch(ours, daemon, posts)
        ours.send("done")
        came, distinct = ours.recv()
        rss_mb = daemon.rss_mb()
    finally:
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(60)
        receivers.terminate()
    took_s = max(last - first, 0.001)
    return {
        "events": events,
        "posts": posts,
        "came": came,
        "distinct": distinct,
        "posts_per_minute": 60 * came / took_s,
        "events_per_minute": 60 * came / took_s * events / posts,
        "goal_per_minute": GOAL_PER_MINUTE,
        "seconds": took_s,
        "cpu_ms_per_post": 1000 * cpu_s / max(came, 1),
        "rss_mb": rss_mb,
    }


def _watch(ours: Connection, daemon: Daemon, posts: int) -> tuple[float, float, float]:
    """Return when the first and the last post came, and the CPU time of the relay until then."""
    give_up_at = time.monotonic() + GIVE_UP_S * max(1.0, posts / GOAL_PER_MINUTE)
    first = last = 0.0
    while time.monotonic() < give_up_at and daemon.process.poll() is None:
        ours.send("count")
        count, first, last = ours.recv()
        if count >= posts:
            break
        time.sleep(0.05)
    return first, last, daemon.cpu_s()


async def _fill(folder: Path, tenants: list[list[str]], dead: list[str], events: int) -> None:
    """Write tenants with webhooks at these URLs, and a log that tells each of them its share of the events.

    Each dead URL is of one more tenant, with one event.
    """
    (folder / "tenants").mkdir()
    (folder / "arkrelay.toml").write_text(MAIN)
    for number, urls in enumerate([*tenants, *([url] for url in dead)]):
        file = folder / "tenants" / f"t{number}.toml"
        hooks = [HOOK.format(id=id_, url=url) for id_, url in enumerate(urls, 1)]
        file.write_text(TENANT.format(name=f"Tenant {number}") + "".join(hooks))
        file.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    store = Store.open(folder / "state")
    await store.write(start_cursor)
    now = time.time()
    made = [_insertion(store, f"t{number % len(tenants)}", number, now) for number in range(events)]
    made += [_insertion(store, f"t{len(tenants) + number}", number, now) for number in range(len(dead))]
    for start in range(0, len(made), BATCH):
        some = made[start : start + BATCH]
        await store.write(lambda db, some=some: insert_messages(db, some, store.epoch))  # type: ignore[misc]
    await asyncio.to_thread(store.close)


def _insertion(store: Store, tenant_id: str, number: int, now: float) -> Insertion:
    message = Message(
        id=store.new_message_id(),
        tenant_id=tenant_id,
        door=Door.REST,
        credential="app",
        accepted_at=now,
        message_id=f"<{number}@sender.test>",
        author="shop@sender.test",
        author_domain="sender.test",
        return_path="shop@sender.test",
        subject="Your parcel is on its way",
        tag="parcel",
        metadata={"order": str(number)},
    )
    address = f"u{number}@rcpt.test"
    recipient = Recipient(
        store.new_recipient_id(), message, store.new_token(now), address, "rcpt.test", "rcpt.test", Status.SENT
    )
    details = f"Message for {address} accepted by 192.0.2.1:25 (mx.rcpt.test)"
    data = {"details": details, "output": "250 2.0.0 OK queued", "sent_with_ssl": True, "time": 0.412}
    event = Event(EventKind.SENT, now, tenant_id, message.id, recipient.id, data)
    return Insertion(message, [recipient], b"x", [event])


def serve_receivers(pipe: Connection, tls: bool, down_s: float) -> None:
    """Be all receivers: answer 200 and remember uuids, until this process is ended.

    The pipe gives the URL, then a pair for each word: of "done" how many events came and how many different ones,
    of any other how many, when the first and when the last.
    """
    up_at: list[float] = []  # decided by the first request
    uuids: list[str] = []
    times: list[float] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/hang":
            await asyncio.sleep(3600)
        assert request.headers["X-Ark-Signature"]
        up_at[:] = up_at or [time.monotonic() + down_s]
        if time.monotonic() < up_at[0]:
            return web.Response(status=503)
        uuids.append(json.loads(body)["uuid"])
        times.append(time.monotonic())
        return web.Response(text="ok")

    def asked() -> None:
        word = pipe.recv()
        answer: Any = (len(uuids), times[0] if times else 0.0, times[-1] if times else 0.0)
        pipe.send((len(uuids), len(set(uuids))) if word == "done" else answer)

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/{name}", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        context: ssl.SSLContext | None = certificates.valid(HOST).server_context() if tls else None
        site = web.TCPSite(runner, HOST, 0, ssl_context=context)
        await site.start()
        asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
        pipe.send(f"http{'s' if tls else ''}://{HOST}:{runner.addresses[0][1]}")
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
