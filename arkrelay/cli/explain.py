"""What a server's reply means; without a daemon too, but for how usual it is."""

import sys
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, usage
from arkrelay.config.errors import ConfigErrors
from arkrelay.config.load import load_settings
from arkrelay.model.settings import Settings
from arkrelay.policy.advice import IN_WORDS
from arkrelay.policy.classify import Rules
from arkrelay.policy.explain import explain, site_named
from arkrelay.policy.pasted import parse

LONGEST = 4000  # characters of a reply that are asked about: a request line has its limit


@click.command("explain")
@config_option
@json_option
@click.option("--provider", metavar="NAME", default="", help="Whose reply it is, as `arkrelay lanes` names it.")
@click.option("--host", metavar="HOST", default="", help="Or the MX host, or the domain, that it came from.")
@click.argument("reply", nargs=-1)
@pass_state
def explain_command(state: State, as_json: bool, provider: str, host: str, reply: tuple[str, ...]) -> None:
    """Say what REPLY means: its class, whose fault it is, what we do, what you can do, and where to ask.

    REPLY is as you have it: a reply of one line or several, a status code, its words alone, or a whole log line.
    Without it, or as "-", it is read from standard input.
    """
    if provider and host:
        usage("Use one of --provider and --host.")
    given = " ".join(reply)
    if given in {"", "-"}:
        if sys.stdin.isatty():
            usage("Which reply? Paste it in quotes, or pipe it in.")
        given = sys.stdin.read(LONGEST)
    data = _ask(state, given[:LONGEST].strip(), provider, host)
    if as_json:
        output.print_json(data)
        return
    _show(data)


def _ask(state: State, given: str, provider: str, host: str) -> dict[str, Any]:
    """Return the daemon's answer, or our own without counts where none answers."""
    parse(given)  # what tells of no refusal needs no daemon
    try:
        found: dict[str, Any] = Daemon(state.config).data(
            "GET", "/v1/explain", reply=given, provider=provider, host=host
        )
    except Denied:
        raise
    except Failed as error:
        return _alone(_settings(state), given, provider, host, error.message)
    return found


def _settings(state: State) -> Settings:
    """Return the settings of the file, or the defaults where there is none that can be used."""
    try:
        return load_settings(state.config)
    except (ConfigErrors, OSError):
        return Settings(hostname="the hostname in arkrelay.toml")


def _alone(settings: Settings, given: str, provider: str, host: str, why: str) -> dict[str, Any]:
    """Return what the daemon would say, as it would say it, but for the counts: they are null."""
    found = explain(given, Rules.load(), settings, site_named(provider, host, settings))
    (rest, rest_code), (webhook, webhook_code) = found.rest_class, found.webhook_class
    rule = None if found.rule is None else {"rule": str(found.rule), "source": found.rule.source}
    return {
        "sentence": found.sentence,
        "reply": str(found.result),
        "code": found.code,
        "smtpEnhancedCode": found.enhanced,
        "assumed": found.assumed,
        "class": str(found.bounce_class),
        "restClass": {"name": rest, "code": rest_code},
        "webhookClass": {"name": webhook, "code": webhook_code},
        "permanent": found.permanent,
        "blame": str(found.blame),
        "blameWords": IN_WORDS[found.blame],
        "does": list(found.does),
        "next": found.next,
        "pages": [{"name": page.name, "url": page.url, "next": page.next} for page in found.pages],
        "matched": rule,
        "site": found.site or None,
        "lastDay": None,
        "noCounts": f"counts need the daemon: {why}",
    }


def _show(data: dict[str, Any]) -> None:
    rest, webhook, rule = data["restClass"], data["webhookClass"], data.get("matched")
    output.say(output.clean(data["sentence"]))
    output.say("")
    output.print_fields(
        [
            ("reply", data["reply"]),
            *([("assumed", data["assumed"])] if data.get("assumed") else []),
            ("class", f"{data['class']}, {'final' if data['permanent'] else 'temporary'}"),
            ("in REST", f"{rest['name']} ({rest['code']})"),
            ("in webhooks", f"{webhook['name']} ({webhook['code']})"),
            ("whose fault", data["blameWords"]),
            ("what we do", data["does"]),
            ("what you can do", data["next"]),
            *([("where to ask", [_page(one) for one in data["pages"]])] if data["pages"] else []),
            ("by the rule", "none: by what happened" if rule is None else f"{rule['rule']} (from {rule['source']})"),
            ("last 24 h", _counts(data)),
        ]
    )


def _page(page: dict[str, Any]) -> str:
    return f"{page['name']}: {page['url']} ({page['next']})" if page["url"] else f"{page['name']}: {page['next']}"


def _counts(data: dict[str, Any]) -> str:
    counts = data.get("lastDay")
    if counts is None:
        return str(data["noCounts"])
    where = f"at {counts['site']}" if counts["site"] else "at all sites"
    return f"{counts['attempts']} attempts {where}: {counts['taken']} taken, {counts['ofClass']} of this class"
