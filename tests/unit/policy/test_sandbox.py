"""Who may send from the sandbox, to whom, and how often; and what simulated recipients do."""

import pytest

from arkrelay.model.address import parse_mailbox
from arkrelay.model.attempt import BounceClass
from arkrelay.model.settings import Sandbox
from arkrelay.model.tenant import Domain, Tenant
from arkrelay.policy.classify import Rules, classify
from arkrelay.policy.sandbox import check, day_of, is_sandboxed
from arkrelay.policy.simulate import PARTS, Afterwards, part_of

SANDBOX = Sandbox(domain="sandbox.test", members=("Me@x.test",), daily=2)


def test_it_is_nobodys_domain_but_its_owners() -> None:
    hello = parse_mailbox("hello@sandbox.test")
    assert is_sandboxed(Tenant(id="acme", name="a"), hello, SANDBOX)
    assert not is_sandboxed(Tenant(id="ops", name="o", domains=(Domain(name="sandbox.test"),)), hello, SANDBOX)
    assert not is_sandboxed(Tenant(id="acme", name="a"), hello, Sandbox())
    assert not is_sandboxed(Tenant(id="acme", name="a"), None, SANDBOX)
    assert not is_sandboxed(Tenant(id="acme", name="a"), parse_mailbox("a@sub.sandbox.test"), SANDBOX)


@pytest.mark.parametrize(
    ("to", "sent", "code"),
    [
        (["me@x.test"], 0, ""),
        (["ME@X.test"], 1, ""),
        (["me@x.test"], 2, "sandbox_limit_exceeded"),
        (["me@x.test", "you@x.test"], 0, "sandbox_recipient_not_allowed"),
    ],
)
def test_members_only_and_a_few_a_day(to: list[str], sent: int, code: str) -> None:
    refused = check(SANDBOX, map(parse_mailbox, to), sent)
    assert (refused.rest if refused else "") == code


def test_zero_is_no_limit() -> None:
    assert check(Sandbox(domain="s.test", members=("me@x.test",), daily=0), [parse_mailbox("me@x.test")], 99) is None


def test_a_day_begins_at_midnight() -> None:
    assert day_of(86_400 * 3 + 5.5) == 86_400 * 3


def test_every_name_plays_its_part_with_and_without_a_suffix() -> None:
    for name, part in PARTS.items():
        assert part_of(f"{name}@s.test") == part_of(f"{name.upper()}+1@s.test") == part
    assert {part.afterwards for part in PARTS.values()} >= set(Afterwards)
    assert part_of("who@s.test").reply.code == 550
    assert "hardfail" in part_of("who@s.test").reply.text


@pytest.mark.parametrize(
    ("name", "bounce_class"),
    [
        ("hardfail", BounceClass.BAD_ADDRESS),
        ("nobody-knows-it", BounceClass.BAD_ADDRESS),
        ("policy", BounceClass.POLICY),
        ("full", BounceClass.MAILBOX_FULL),
        ("softfail", BounceClass.TRY_LATER),
    ],
)
def test_a_part_is_of_the_class_that_its_name_says(name: str, bounce_class: BounceClass) -> None:
    assert classify(part_of(f"{name}@s.test").reply, Rules.load(), attempts=1).bounce_class is bounce_class
