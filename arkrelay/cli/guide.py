"""How to publish the records of a sender domain at one of ten providers, with the domain's own records filled in.

A guide is a file of ``guides``: between "+++" what the provider's form wants (TOML), then the text. ``apex`` is what
stands for the zone itself, ``txt`` is "plain" or "quoted", ``target`` "plain" or "dot" (a name ends with one).
"""

import tomllib
from dataclasses import dataclass
from importlib import resources

import click

from arkrelay.cli import output
from arkrelay.cli.files import domain_in, domain_name, load
from arkrelay.cli.records import records_of
from arkrelay.cli.state import Failed, State, config_option, pass_state
from arkrelay.policy.records import Record
from arkrelay.policy.zoneforms import Entry, Sheet, quoted, sheet_of

PROVIDERS = (
    "cloudflare",
    "digitalocean",
    "godaddy",
    "google-cloud",
    "hetzner",
    "namecheap",
    "netlify",
    "porkbun",
    "route53",
    "vercel",
)
FENCE = "+++\n"


@dataclass(frozen=True, slots=True)
class Guide:
    """One provider: what its form wants, and the text with ``{zone}``, ``{domain}`` and ``{records}`` to fill in."""

    title: str
    apex: str
    txt: str
    target: str
    text: str

    def fill(self, sheet: Sheet, domain: str) -> str:
        """Return the guide for these records."""
        records = "\n\n".join(self._block(entry, sheet.zone) for entry in sheet.entries)
        filled = self.text.replace("{zone}", sheet.zone).replace("{domain}", domain)
        return f"{self.title}: DNS records of {domain}\n\n{filled.replace('{records}', records)}"

    def _block(self, entry: Entry, zone: str) -> str:
        record = entry.record
        name = (self.apex or f"(empty: {zone} itself)") if record.name == "@" else record.name
        note = f"   ({entry.note})" if entry.note else ""
        return f"    Type   {record.type}{note}\n    Name   {name}\n    Value  {self._value(record)}"

    def _value(self, record: Record) -> str:
        if record.type == "TXT":
            return quoted(record.value) if self.txt == "quoted" else record.value
        return f"{record.value}." if self.target == "dot" else record.value


def load_guide(provider: str) -> Guide:
    """Return the guide of one of ``PROVIDERS``."""
    content = resources.files("arkrelay.cli").joinpath("guides", f"{provider}.md").read_text(encoding="utf-8")
    _, head, text = content.split(FENCE, 2)
    form = tomllib.loads(head)
    return Guide(form["title"], form["apex"], form["txt"], form["target"], text)


@click.command("guide")
@config_option
@click.option("--zone", metavar="ZONE", help="The zone they are published in; default the registrable domain.")
@click.argument("provider", type=click.Choice(PROVIDERS))
@click.argument("name", metavar="DOMAIN")
@pass_state
def guide_domain(state: State, zone: str | None, provider: str, name: str) -> None:
    """Say step by step how the records of DOMAIN are published at PROVIDER."""
    snapshot = load(state)
    _, one = domain_in(snapshot, name)
    place = domain_name(zone) if zone else ""
    if place and one.name != place and not one.name.endswith(f".{place}"):
        raise Failed(f"{one.name} is not in the zone {place}")
    sheet = sheet_of(records_of(snapshot, one, zone=place))
    for line in load_guide(provider).fill(sheet, one.name).splitlines():
        output.say(line)
    output.note(f"then: arkrelay domain dns {one.name} --wait")
