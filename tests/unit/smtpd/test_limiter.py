"""What one client address may take."""

import pytest

from arkrelay.model.settings import Limits
from arkrelay.policy.limits import is_trusted
from arkrelay.smtpd import limiter as module
from arkrelay.smtpd.limiter import Limiter, plain_address

STRICT = Limits(
    connections_per_address=2, connections_per_minute=5, auth_failures_per_minute=2, auth_failures_per_day=4
)


def test_connections_at_once_are_limited_and_given_back() -> None:
    limiter = Limiter()
    assert limiter.connect("192.0.2.1", STRICT, 0) is None
    assert limiter.connect("192.0.2.1", STRICT, 0) is None
    assert limiter.connect("192.0.2.1", STRICT, 0) == "too many connections at once"
    assert limiter.connect("192.0.2.2", STRICT, 0) is None
    limiter.disconnect("192.0.2.1")
    assert limiter.connect("192.0.2.1", STRICT, 0) is None


def test_connections_per_minute_are_limited_until_the_minute_is_over() -> None:
    limiter = Limiter()
    for _ in range(5):
        assert limiter.connect("192.0.2.1", STRICT, 10) is None
        limiter.disconnect("192.0.2.1")
    assert limiter.connect("192.0.2.1", STRICT, 69) == "too many connections per minute"
    assert limiter.connect("192.0.2.1", STRICT, 70) is None


def test_ipv6_clients_are_counted_by_their_64() -> None:
    limiter = Limiter()
    for host in ("2001:db8::1", "2001:db8::ffff:2"):
        assert limiter.connect(host, STRICT, 0) is None
    assert limiter.connect("2001:db8::3", STRICT, 0) is not None
    assert limiter.connect("2001:db8:0:1::3", STRICT, 0) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", ""])
def test_trusted_addresses_and_unix_sockets_are_not_limited(address: str) -> None:
    limiter = Limiter()
    for _ in range(50):
        assert limiter.connect(address, STRICT, 0) is None
        limiter.auth_failed(address, STRICT, 0)
    assert not limiter.auth_blocked(address, STRICT, 0)


def test_nought_is_no_limit() -> None:
    limiter = Limiter()
    none = Limits(
        connections_per_address=0, connections_per_minute=0, auth_failures_per_minute=0, auth_failures_per_day=0
    )
    for _ in range(500):
        assert limiter.connect("192.0.2.1", none, 0) is None
        limiter.auth_failed("192.0.2.1", none, 0)
    assert not limiter.auth_blocked("192.0.2.1", none, 0)


def test_failed_logins_block_for_the_minute_then_for_the_day() -> None:
    limiter = Limiter()
    for at in (0, 1):
        assert not limiter.auth_blocked("192.0.2.1", STRICT, at)
        limiter.auth_failed("192.0.2.1", STRICT, at)
    assert limiter.auth_blocked("192.0.2.1", STRICT, 2)
    assert not limiter.auth_blocked("192.0.2.1", STRICT, 61)
    for at in (61, 62):
        limiter.auth_failed("192.0.2.1", STRICT, at)
    assert limiter.auth_blocked("192.0.2.1", STRICT, 1000)
    assert not limiter.auth_blocked("192.0.2.1", STRICT, 86_401)


def test_a_success_forgets_the_failures_of_its_address() -> None:
    limiter = Limiter()
    for _ in range(2):
        limiter.auth_failed("192.0.2.1", STRICT, 0)
    limiter.auth_succeeded("192.0.2.1")
    assert not limiter.auth_blocked("192.0.2.1", STRICT, 0)


@pytest.mark.parametrize(
    ("attackers", "victim", "beyond"),
    [
        pytest.param([f"192.0.2.{i}" for i in range(6)], "192.0.2.60", "192.0.2.64", id="a-26-takes-three-times"),
        pytest.param(
            [f"10.0.{i % 8}.{i * 9}" for i in range(18)], "10.0.7.250", "10.0.8.1", id="a-21-takes-nine-times"
        ),
        pytest.param([f"2001:db8:0:{i}::1" for i in range(6)], "2001:db8:0:99::1", "2001:db8:1::1", id="a-48"),
        pytest.param([f"2001:db8:{i}::1" for i in range(18)], "2001:db8:ff::1", "2001:db9::1", id="a-32"),
    ],
)
def test_neighbours_share_a_wider_limit(attackers: list[str], victim: str, beyond: str) -> None:
    limiter = Limiter()
    for address in attackers[:-1]:
        limiter.auth_failed(address, STRICT, 0)
    assert not limiter.auth_blocked(victim, STRICT, 0)
    limiter.auth_failed(attackers[-1], STRICT, 0)
    assert limiter.auth_blocked(victim, STRICT, 0)
    assert not limiter.auth_blocked(beyond, STRICT, 0)


def test_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 100)
    limiter = Limiter()
    for i in range(1000):
        limiter.connect(f"10.{i // 256}.{i % 256}.1", STRICT, i / 1000)
        limiter.auth_failed(f"10.{i // 256}.{i % 256}.1", STRICT, i / 1000)
    assert len(limiter._connections) <= 100
    assert len(limiter._failures) <= 100
    limiter.disconnect("10.0.0.1")  # long forgotten
    assert limiter.connect("10.0.0.1", STRICT, 200) is None


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("not an address", "not an address"),
    ],
)
def test_addresses_have_one_spelling(given: str, plain: str) -> None:
    assert plain_address(given) == plain


def test_trust_is_by_network_of_the_same_family() -> None:
    assert is_trusted("10.1.2.3", ("10.0.0.0/8",))
    assert not is_trusted("::1", ("10.0.0.0/8",))
    assert not is_trusted("rubbish", ("0.0.0.0/0",))


def test_a_refusal_is_told_once_a_minute() -> None:
    limiter = Limiter()
    limiter.connect("192.0.2.1", STRICT, 0)
    told = [limiter.worth_telling("192.0.2.1", at) for at in (0, 1, 59, 60, 61)]
    assert told == [True, False, False, True, False]
    assert limiter.worth_telling("192.0.2.2", 0)
    assert limiter.worth_telling("", 0)
