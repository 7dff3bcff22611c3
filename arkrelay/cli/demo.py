"""The whole main job on this machine: a relay, a world of loopback around it, two messages and their fate."""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from arkrelay.cli import output
from arkrelay.cli.demo_relay import DemoRelay
from arkrelay.cli.demo_story import Story
from arkrelay.cli.state import config_option, json_option


@click.command("demo")
@config_option
@json_option
@click.option("--keep", is_flag=True, help="Leave it running until ^C, and print how to reach it.")
def demo_command(as_json: bool, keep: bool) -> None:
    """Run a temporary relay with a DNS server and a recipient's mail server beside it, all on loopback.

    One message goes in by SMTP and one by REST; each must arrive there over TLS, with a DKIM signature that
    verifies. Ends with 0 only if so. Nothing is left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix="arkrelay-demo-"))
    try:
        held = asyncio.run(_demo(folder, as_json=as_json, keep=keep))
    except asyncio.CancelledError:  # SIGTERM; everything was stopped in order
        held = False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not held:
        click.get_current_context().exit(1)


async def _demo(folder: Path, *, as_json: bool, keep: bool) -> bool:
    """Return whether everything held."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    relay = DemoRelay(folder)
    try:
        await relay.start()
        stories = [await relay.tell(how) for how in ("SMTP", "REST")]
        held = all(story.held for story in stories)
        if as_json:
            output.print_json({"ok": held, "messages": [{**asdict(story), "ok": story.held} for story in stories]})
        else:
            _print_stories(stories)
        if not held:
            _print_log(relay)
        if keep and held:
            await _keep(relay, as_json=as_json)
    except Exception:
        _print_log(relay)
        raise
    else:
        return held
    finally:
        await relay.stop()


async def _keep(relay: DemoRelay, *, as_json: bool) -> None:
    """Wait for ^C or SIGTERM."""
    if as_json:
        output.print_json(relay.addresses)
    else:
        output.say("")
        output.print_fields(relay.addresses.items())
        url, key = relay.addresses["rest"], relay.addresses["rest key"]
        output.say(f"\nIt runs until ^C. Try: arkrelay status -c {relay.config}")
        output.say(f"For the README's curl lines: export ARKRELAY_URL={url} ARKRELAY_KEY={key}")
    sys.stdout.flush()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with contextlib.suppress(asyncio.CancelledError):
        await stopped.wait()


def _print_stories(stories: list[Story]) -> None:
    for story in stories:
        output.say(click.style(f"a message by {story.how}", bold=True))
        output.print_fields(
            [
                ("  accepted", f"id {story.id}"),
                ("  from, to", f"{story.author} -> {story.recipient}"),
                ("  delivered", f"to {story.host}" if story.delivered else "no"),
                ("  TLS", story.tls or "none"),
                ("  DKIM", story.dkim_text),
                ("  why", story.why),
                ("  took", f"{story.took_s * 1000:.0f} ms from hand-over to arrival" if story.delivered else "-"),
            ]
        )
    if all(story.held for story in stories):
        output.say(click.style("\nBoth arrived, over TLS, with a DKIM signature that verifies.", fg="green"))
    else:
        output.say(click.style("\nNot everything held.", fg="red"))


def _print_log(relay: DemoRelay) -> None:
    for line in relay.log_tail():
        output.note(f"relay: {output.clean(line)}")
