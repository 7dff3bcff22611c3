from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.address import Address
from arkrelay.model.domain import DnsStatus, DomainState
from arkrelay.model.errors import Refused
from arkrelay.model.message import HoldReason
from arkrelay.model.tenant import Credential, Domain, Tenant, TenantLimits
from arkrelay.policy.admit import Hold, admit, check_sender, check_tenant, withheld

OK = DnsStatus.OK
ACME = Tenant(
    id="acme",
    name="Acme",
    limits=TenantLimits(hourly=100, hard_cap_monthly=1000),
    domains=(Domain(name="acme.test"), Domain(name="new.test"), Domain(name="trusted.test", trusted=True)),
)
KEY = Credential(name="production", secret="x")
NARROW = Credential(name="narrow", secret="x", domains=("trusted.test",))
STATES = {
    ("acme", "acme.test"): DomainState("acme", "acme.test", spf=OK, dkim=OK, return_path=OK),
    ("acme", "new.test"): DomainState("acme", "new.test", spf=OK, dkim="Missing", return_path=OK),
    ("other", "other.test"): DomainState("other", "other.test", spf=OK, dkim=OK, return_path=OK),
    ("other", "new.test"): DomainState("other", "new.test", spf=OK, dkim=OK, return_path=OK),
}
ME = Address("me", "acme.test")


def ask(  # every argument of ``admit`` with a value that passes
    tenant: Tenant = ACME,
    credential: Credential | None = KEY,
    return_path: Address | None = ME,
    author: Address = ME,
    recipients: int = 1,
    used: tuple[int, int] = (0, 0),
    received_count: int = 0,
    *,
    counts: bool = True,
) -> Hold | Refused | None:
    return admit(
        tenant,
        credential,
        return_path,
        author,
        recipients,
        STATES,
        used,
        received_count,
        counting=recipients * counts,
    )


def refusal(verdict: object) -> Refused:
    assert isinstance(verdict, Refused)
    return verdict


@pytest.mark.parametrize("credential", [KEY, None], ids=["credential", "bound-listener"])
@pytest.mark.parametrize("domain", ["acme.test", "trusted.test"])
def test_a_verified_or_trusted_domain_may_send(credential: Credential | None, domain: str) -> None:
    assert ask(credential=credential, return_path=Address("a", domain), author=Address("b", domain)) is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        pytest.param(Address("a", "other.test"), "not a sender domain", id="of-another-tenant"),
        pytest.param(Address("a", "nowhere.test"), "not a sender domain", id="of-nobody"),
        pytest.param(Address("a", "sub.acme.test"), "not a sender domain", id="a-subdomain"),
        pytest.param(Address("a", "cme.test"), "not a sender domain", id="a-suffix"),
        pytest.param(Address("a", "test"), "not a sender domain", id="a-parent"),
        pytest.param(Address("a", "acme.test.evil.test"), "not a sender domain", id="a-prefix"),
        pytest.param(Address("a", "ACME.test"), "not a sender domain", id="not-in-our-form"),
        pytest.param(Address("postmaster", ""), "without a domain is not a sender", id="no-domain"),
        pytest.param(Address("a", "new.test"), 'run "arkrelay domain verify new.test"', id="not-verified"),
    ],
)
def test_any_other_domain_is_refused_in_envelope_and_author(address: Address, words: str) -> None:
    for verdict in (ask(return_path=address), ask(author=address), ask(return_path=None, author=address)):
        refused = refusal(verdict)
        assert (refused.code, refused.enhanced, refused.field) == (550, "5.7.1", "from")
        assert words in refused.text


def test_whether_another_tenant_has_the_domain_is_not_told() -> None:
    theirs = refusal(ask(author=Address("a", "other.test"))).text
    nobodys = refusal(ask(author=Address("a", "nowhere.test"))).text
    assert theirs.replace("other.test", "nowhere.test") == nobodys


def test_a_domain_that_was_never_checked_may_not_send() -> None:
    assert check_sender(ACME, KEY, ME, {}) is not None


def test_a_credential_sends_from_its_domains_only() -> None:
    ours = Address("a", "trusted.test")
    assert ask(credential=NARROW, return_path=ours, author=ours) is None
    assert "may not send from acme.test" in refusal(ask(credential=NARROW, return_path=ours)).text
    assert "may not send from acme.test" in refusal(ask(credential=NARROW, return_path=ME, author=ours)).text


def test_the_null_return_path_needs_an_author_of_ours() -> None:
    assert ask(return_path=None) is None
    assert check_sender(ACME, KEY, None, STATES) is None
    assert refusal(ask(return_path=None, author=Address("a", "other.test"))).code == 550


@pytest.mark.parametrize("status", ["suspended", "archived"])
def test_a_tenant_that_is_not_active_may_not_even_say_mail(status: str) -> None:
    tenant = replace(ACME, status=status)
    for verdict in (ask(tenant), check_sender(tenant, KEY, None, STATES), check_tenant(tenant, None)):
        assert "suspended" in refusal(verdict).text
        assert refusal(verdict).enhanced == "5.7.1"


def test_a_credential_without_send_may_not() -> None:
    reader = Credential(name="reader", secret="x", permissions=())
    assert "send" in refusal(ask(credential=reader)).text


def test_a_message_to_nobody_is_refused() -> None:
    assert (refusal(ask(recipients=0)).code, refusal(ask(recipients=0)).enhanced) == (554, "5.5.1")


def test_more_than_50_received_fields_are_a_loop() -> None:
    assert ask(received_count=50) is None
    refused = refusal(ask(received_count=51))
    assert (refused.code, refused.enhanced) == (554, "5.4.6")


def test_a_hard_cap_refuses_for_now() -> None:
    assert ask(recipients=5, used=(0, 995)) is None
    refused = refusal(ask(recipients=6, used=(0, 995)))
    assert (refused.code, refused.enhanced) == (452, "4.5.3")
    assert refused.text.startswith("Send limit exceeded")


def test_a_credential_on_hold_keeps_mail() -> None:
    held = ask(credential=Credential(name="paused", secret="x", hold=True), used=(100, 0))
    assert held == Hold(HoldReason.CREDENTIAL, "The credential paused is on hold")


def test_an_hourly_limit_keeps_mail() -> None:
    assert ask(recipients=10, used=(90, 0)) is None
    held = ask(recipients=11, used=(90, 0))
    assert isinstance(held, Hold)
    assert held.hold_reason is HoldReason.SEND_LIMIT
    assert "100 recipients an hour" in held.reason


def test_mail_that_does_not_count_meets_no_limit_but_everything_else() -> None:
    assert ask(recipients=500, used=(100, 1000), counts=False) is None
    assert refusal(ask(author=Address("a", "other.test"), counts=False)).code == 550
    assert refusal(ask(recipients=0, counts=False)).code == 554


def test_what_refuses_comes_before_what_holds() -> None:
    paused = Credential(name="paused", secret="x", hold=True)
    assert refusal(ask(credential=paused, author=Address("a", "other.test"))).code == 550
    assert refusal(ask(credential=paused, used=(100, 1000))).code == 452
    assert refusal(ask(recipients=0, used=(100, 1000))).code == 554


@given(st.text(max_size=30), st.sampled_from(["acme.test", "other.test", "new.test", "x.acme.test", ""]))
def test_nobody_sends_from_a_domain_that_is_not_theirs(local: str, domain: str) -> None:
    address = Address(local, domain)
    allowed = domain == "acme.test"
    assert (ask(return_path=address, author=ME) is None) == allowed
    assert (ask(return_path=ME, author=address) is None) == allowed


@given(st.integers(1, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_no_more_is_ever_granted_than_the_limits(recipients: int, hour: int, month: int) -> None:
    if ask(recipients=recipients, used=(hour, month)) is None:
        assert hour + recipients <= 100
        assert month + recipients <= 1000


HELD = Credential(name="held", secret="x", hold=True)


@pytest.mark.parametrize(
    ("status", "credential", "passed_over", "held"),
    [
        ("active", "production", None, None),
        ("active", None, None, None),
        ("active", "gone", None, None),
        ("active", "held", None, HoldReason.CREDENTIAL),
        ("active", "held", HoldReason.CREDENTIAL, None),
        ("active", "held", HoldReason.SUPPRESSED, None),
        ("suspended", "production", None, HoldReason.TENANT),
        ("archived", None, HoldReason.CREDENTIAL, HoldReason.TENANT),
    ],
)
def test_mail_that_waits_leaves_only_while_its_sender_may_send(
    status: str, credential: str | None, passed_over: HoldReason | None, held: HoldReason | None
) -> None:
    tenant = replace(ACME, status=status, credentials=(KEY, HELD))
    found = withheld(tenant, credential, passed_over)
    assert (found and found.hold_reason) == held
    assert found is None or (tenant.id if held is HoldReason.TENANT else "held") in found.reason
