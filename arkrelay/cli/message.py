"""Messages and what became of them, one recipient each."""

import base64
import binascii
import sys
from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.queue import STATUSES
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, usage

MARKS = {"we": ">", "peer": "<"}


@click.group("message")
@config_option
def message_command() -> None:
    """Messages and what became of them."""


@message_command.command("list")
@config_option
@json_option
@click.option("-t", "--tenant", metavar="ID", help="Of this tenant.")
@click.option("--from", "author", metavar="ADDRESS", help="From exactly this address.")
@click.option("--to", metavar="ADDRESS", help="To exactly this address.")
@click.option("--status", type=click.Choice(STATUSES), help="In this state.")
@click.option("--tag", help="With this tag.")
@click.option("--after", metavar="TIME", help="Accepted after: ISO 8601 or Unix seconds.")
@click.option("--before", metavar="TIME", help="Accepted before.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--per-page", type=click.IntRange(1, 100), default=30, show_default=True)
@pass_state
def list_messages(
    state: State,
    as_json: bool,
    tenant: str | None,
    author: str | None,
    to: str | None,
    status: str | None,
    tag: str | None,
    after: str | None,
    before: str | None,
    page: int,
    per_page: int,
) -> None:
    """List messages, the newest first."""
    query: dict[str, Any] = {"from": author, "to": to, "status": status, "tag": tag, "after": after, "before": before}
    answer = Daemon(state.config).body("GET", "/v1/emails", tenantId=tenant, page=page, perPage=per_page, **query)
    if as_json:
        output.print_json({name: answer.get(name) for name in ("data", "page", "perPage", "total", "totalPages")})
        return
    output.print_table(
        ("ID", "ACCEPTED", "STATUS", "FROM", "TO", "SUBJECT"),
        [
            (
                row.get("id"),
                output.when(row.get("timestamp")),
                row.get("status"),
                row.get("from"),
                row.get("to"),
                row.get("subject"),
            )
            for row in answer.get("data", [])
        ],
        empty="no message matches",
    )
    output.print_page(answer, "messages")


@message_command.command("show")
@config_option
@json_option
@click.option("--raw", is_flag=True, help="Print the message as it is sent, byte for byte.")
@click.option("--headers", is_flag=True, help="Print its header.")
@click.option("--transcript", is_flag=True, help="Print what was said in each attempt, and when.")
@click.argument("id_", metavar="ID")
@pass_state
def show_message(state: State, as_json: bool, raw: bool, headers: bool, transcript: bool, id_: str) -> None:
    """Show one message: its state, every attempt, and its text."""
    if raw + headers + transcript + as_json > 1:
        usage("Use one of --raw, --headers, --transcript and --json.")
    daemon = Daemon(state.config)
    if raw or headers:
        content = _content(email(daemon, id_, "raw"))
        sys.stdout.flush()
        sys.stdout.buffer.write(content if raw else _header(content))
        sys.stdout.buffer.flush()
        return
    if transcript:
        print_transcripts(email(daemon, id_, "deliveries").get("deliveries") or [])
        return
    detail = email(daemon, id_, "full")
    if as_json:
        output.print_json(detail)
        return
    output.print_fields(
        [
            ("id", detail.get("id")),
            ("message id", detail.get("messageId")),
            ("tenant", detail.get("tenantId")),
            ("status", detail.get("status")),
            ("accepted", output.when(detail.get("timestamp"))),
            ("from", detail.get("from")),
            ("to", detail.get("to")),
            ("subject", detail.get("subject")),
            *([("tag", detail["tag"])] if detail.get("tag") else []),
            *([("files", _files(detail["attachments"]))] if detail.get("attachments") else []),
        ]
    )
    print_attempts(detail.get("deliveries") or [])
    print_reports(daemon, id_)
    if text := detail.get("plainBody"):
        output.say("")
        for line in str(text).splitlines():
            output.say(output.clean_line(line))


def email(daemon: Daemon, id_: str, expand: str) -> dict[str, Any]:
    """Return the detail of one message with the parts named by ``expand`` (Ark contract §8.1)."""
    detail = daemon.data("GET", f"/v1/emails/{quote(id_, safe='')}", expand=expand)
    return detail if isinstance(detail, dict) else {}


def print_attempts(deliveries: list[dict[str, Any]]) -> None:
    """Print every attempt at one recipient, the oldest first."""
    if not deliveries:
        return
    output.say("")
    output.print_table(
        ("TRIED", "RESULT", "CODE", "HOST", "TLS", "WHAT IT SAID"),
        [
            (
                output.when(one.get("timestamp")),
                one.get("status"),
                one.get("code"),
                one.get("remoteHost"),
                _tls(one.get("tls")),
                one.get("output") or one.get("details"),
            )
            for one in deliveries
        ],
    )


def print_transcripts(deliveries: list[dict[str, Any]]) -> None:
    """Print the conversation of every attempt, the oldest first: milliseconds since its start, and of each step."""
    for number, one in enumerate(deliveries):
        if number:
            output.say("")
        parts = (output.when(one.get("timestamp")), one.get("status"), one.get("code"), one.get("remoteHost"))
        output.say(output.GAP.join(output.clean(part) for part in parts if part is not None))
        said = one.get("transcript")
        if not said:
            output.say("    what was said is not kept ([delivery] transcripts, [retention] transcripts)")
            continue
        output.say(f"{'MS':>9}{'TOOK':>9}")
        before = 0
        for line in said:
            ms = line.get("ms", 0)
            mark = MARKS.get(line.get("who"), " ")
            output.say(output.clean_line(f"{ms:>9}{ms - before:>9}  {mark} {line.get('line')}"))
            before = ms
    if not deliveries:
        output.note("it was not tried yet")


def print_reports(daemon: Daemon, id_: str) -> None:
    """Print what came back about one recipient: bounces, automatic replies, and what nobody understood."""
    found = daemon.data("GET", f"/v1/emails/{quote(id_, safe='')}/reports")
    if not isinstance(found, dict) or not found.get("reports"):
        return
    output.say("")
    output.print_table(
        ("CAME BACK", "KIND", "STATUS", "FROM", "SUBJECT", "WHAT IT SAID"),
        [
            tuple(one.get(name) for name in ("at", "kind", "smtpEnhancedCode", "sender", "subject", "said"))
            for one in found["reports"]
        ],
    )


def _tls(tls: dict[str, Any] | None) -> str:
    """Return how an attempt was encrypted: version, whether the host was proved, and on whose word."""
    if not tls:
        return "no"
    proved = " verified" if tls.get("verified") else ""
    policy = tls.get("policy")
    return f"{tls.get('version')}{proved}" + (f" ({policy})" if policy and policy != "none" else "")


def _content(detail: dict[str, Any]) -> bytes:
    try:
        content = base64.b64decode(detail.get("rawMessage") or "", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise Failed("its content is no longer kept", "[retention] content in arkrelay.toml says for how long it is")
    return content


def _header(content: bytes) -> bytes:
    head, found, _ = content.partition(b"\r\n\r\n")
    return head + b"\r\n" if found else content


def _files(attachments: list[dict[str, Any]]) -> list[str]:
    return [f"{one.get('filename')} ({output.size(one.get('size'))})" for one in attachments]
