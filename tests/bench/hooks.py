"""Post 10 000 events to 20 webhooks, and say how many a minute that were and what one costs.

    python tests/bench/hooks.py [--events 10000] [--webhooks 20] [--plain] [--dead 0] [--down 0] [--json]

The events are in the log when the daemon starts, so that posting is measured and nothing else. Each webhook is of a
tenant of its own, over TLS unless ``--plain``; ``--dead`` more hang and never answer, and may cost the others
nothing, and with ``--down S`` all answer 503 for S seconds first. The receivers are another process, on the same
cores; the CPU time is the relay's alone. Exit status 0 when every event came exactly once, whatever the speed.
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
GIVE_UP_S = 120.0
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
TENANT = 'name = "{name}"\n[[webhooks]]\nname = "hook"\nid = "1"\nurl = "{url}"\n'


def main() -> int:
    """Measure once and print the result."""
    parser = argparse.ArgumentParser(description="Post events to webhooks, and say how fast and at what cost.")
    parser.add_argument("--events", type=int, default=GOAL_PER_MINUTE)
    parser.add_argument("--webhooks", type=int, default=20)
    parser.add_argument("--dead", type=int, default=0)
    parser.add_argument("--down", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arkrelay-hooks-") as folder:
        found = measure(Path(folder), given.events, given.webhooks, given.dead, given.down, tls=not given.plain)
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>22}  {value:g}")
    return 0 if found["distinct"] == found["came"] == found["events"] else 1


def measure(folder: Path, events: int, webhooks: int, dead: int, down_s: float, *, tls: bool) -> dict[str, float]:
    """Return what one run measured."""
    certificates.valid(HOST)  # made before the fork, so that both sides know the same
    ours, theirs = multiprocessing.Pipe()
    receivers = multiprocessing.Process(target=serve_receivers, args=(theirs, tls, down_s), daemon=True)
    receivers.start()
    url = ours.recv()
    urls = [f"{url}/t{number}" for number in range(webhooks)] + [f"{url}/hang"] * dead
    asyncio.run(_fill(folder, urls, events, webhooks))
    environment = {**os.environ, "SSL_CERT_FILE": str(certificates.authority().ca_file)}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "arkrelay", "serve", "-c", str(folder / "arkrelay.toml")]
        daemon = Daemon(subprocess.Popen(command, stderr=log, env=environment), 0, 0, 0.0)
    try:
        first, last, cpu_s = _watch(ours, daemon, events)
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
        "came": came,
        "distinct": distinct,
        "events_per_minute": 60 * came / took_s,
        "goal_per_minute": GOAL_PER_MINUTE,
        "seconds": took_s,
        "cpu_ms_per_event": 1000 * cpu_s / max(came, 1),
        "rss_mb": rss_mb,
    }


def _watch(ours: Connection, daemon: Daemon, events: int) -> tuple[float, float, float]:
    """Return when the first and the last event came, and the CPU time of the relay until then."""
    give_up_at = time.monotonic() + GIVE_UP_S
    first = last = 0.0
    while time.monotonic() < give_up_at and daemon.process.poll() is None:
        ours.send("count")
        count, first, last = ours.recv()
        if count >= events:
            break
        time.sleep(0.05)
    return first, last, daemon.cpu_s()


async def _fill(folder: Path, urls: list[str], events: int, webhooks: int) -> None:
    """Write a configuration with these webhooks, and a log that tells each of the first ones its share of events."""
    (folder / "tenants").mkdir()
    (folder / "arkrelay.toml").write_text(MAIN)
    for number, url in enumerate(urls):
        file = folder / "tenants" / f"t{number}.toml"
        file.write_text(TENANT.format(name=f"Tenant {number}", url=url))
        file.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    store = Store.open(folder / "state")
    await store.write(start_cursor)
    now = time.time()
    made = [_insertion(store, f"t{number % len(urls[:webhooks])}", number, now) for number in range(events)]
    made += [_insertion(store, f"t{webhooks + number}", number, now) for number in range(len(urls) - webhooks)]
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
