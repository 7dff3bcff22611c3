"""What this machine must be: where each judgement turns."""

import pytest

from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy import doctorhost as judge
from arkrelay.policy.doctorhost import Certificate
from arkrelay.policy.finding import Finding

NOW = 1_800_000_000.0
DAY = 86400.0
REFUSED = Failure(FailureKind.REFUSED, Stage.CONNECT, "connection refused")


def certificate(days: float, names: tuple[str, ...] = ("relay.test",), problem: str | None = None) -> Certificate:
    return Certificate("cert.pem", names, NOW + days * DAY, problem)


@pytest.mark.parametrize(
    ("one", "level", "word"),
    [
        (certificate(15), "ok", "15 days"),
        (certificate(13), "warn", "in 13 days"),
        (certificate(2), "fail", "in 2 days"),
        (certificate(-1), "fail", "expired"),
        (certificate(60, ("other.test",)), "fail", "is for other.test"),
        (certificate(60, ("*.test",)), "ok", "60 days"),
        (certificate(60, ("*.relay.test",)), "fail", "is for *.relay.test"),
        (certificate(60, problem="unable to get local issuer certificate"), "fail", "local issuer"),
        (Certificate("cert.pem", ("relay.test",), NOW + 60 * DAY, "self-signed", self_signed=True), "warn", "itself"),
        ("key.pem is not the key of cert.pem", "fail", "not the key"),
    ],
)
def test_a_certificate(one: Certificate | str, level: str, word: str) -> None:
    found = judge.judge_certificate("relay.test", one, NOW)
    assert (found.level, word in found.found) == (level, True), found
    assert (found.level == "ok") == (not found.advice)


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (judge.judge_clock(synchronised=True), "ok"),
        (judge.judge_clock(synchronised=False), "warn"),
        (judge.judge_clock(synchronised=None), "skip"),
        (judge.judge_disk("/var", 10_000_000_000, 512_000_000, (900, 1000)), "ok"),
        (judge.judge_disk("/var", 1_000_000_000, 512_000_000, (900, 1000)), "warn"),
        (judge.judge_disk("/var", 500_000_000, 512_000_000, (900, 1000)), "fail"),
        (judge.judge_disk("/var", 10_000_000_000, 512_000_000, (10, 1000)), "fail"),
        (judge.judge_disk("/var", 10_000_000_000, 512_000_000, (0, 0)), "ok"),  # btrfs counts none
        (judge.judge_files({}, 7, "/var"), "ok"),
        (judge.judge_files({"/var/key": 0o644}, 7, "/var"), "fail"),
        (judge.judge_resolver("127.0.0.1", 0.004, ""), "ok"),
        (judge.judge_resolver("192.0.2.53", 0.9, ""), "warn"),
        (judge.judge_resolver("192.0.2.53", None, "no answer in time"), "fail"),
        (judge.judge_dnssec(trusted=True, secure=True, dane="auto"), "ok"),
        (judge.judge_dnssec(trusted=True, secure=False, dane="auto"), "warn"),
        (judge.judge_dnssec(trusted=False, secure=False, dane="auto"), "skip"),
        (judge.judge_dnssec(trusted=True, secure=True, dane="off"), "skip"),
        (judge.judge_dnssec(trusted=True, secure=None, dane="auto"), "skip"),
        (judge.judge_port25("192.0.2.1", "mx.test", "220 mx.test"), "ok"),
        (judge.judge_port25("192.0.2.1", "mx.test", REFUSED), "fail"),
        (judge.judge_relay("bounces", "0.0.0.0:25", "550 no", refused=True), "ok"),
        (judge.judge_relay("bounces", "0.0.0.0:25", "250 ok", refused=False), "fail"),
        (judge.judge_return_path_port("rp.test", "250 ok", ours=True, taken=True), "ok"),
        (judge.judge_return_path_port("rp.test", "550 no", ours=True, taken=False), "fail"),
        (judge.judge_return_path_port("rp.test", "timed out", ours=False, taken=False), "fail"),
        (judge.judge_sts("rp.test", "", "enforce"), "ok"),
    ],
)
def test_where_each_turns(found: Finding, level: str) -> None:
    assert found.level == level
    if level in {"warn", "fail"}:
        assert found.advice
        assert found.expected
