"""Blocklists: what is asked, and who lies."""

import pytest

from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.blocklists import Answer, Heard, controls, judge, question

SILENT = Failure(FailureKind.RESOLVER, Stage.RESOLVE, "no answer in time")
GOOD = ("127.0.0.2",)


def test_what_is_looked_up() -> None:
    assert question("192.0.2.99", "list.test") == "99.2.0.192.list.test"  # RFC 5782 §2.1
    assert question("2001:db8:1:2:3:4:567:89ab", "list.test") == (
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.list.test"  # RFC 5782 §2.4
    )
    assert question("shop.test", "names.test") == "shop.test.names.test"
    assert controls("192.0.2.99", "list.test") == ("127.0.0.2", "127.0.0.1")
    assert controls("shop.test", "dbl.spamhaus.org") == ("dbltest.com", "invalid")


@pytest.mark.parametrize(
    ("subject", "listed", "unlisted", "level", "word"),
    [
        ((), GOOD, (), "ok", "not listed"),
        (("127.0.0.4",), GOOD, (), "fail", "listed, 127.0.0.4"),
        (("127.0.0.10",), GOOD, (), "fail", "listed"),
        (("127.255.255.254",), ("127.255.255.254",), ("127.255.255.254",), "warn", "refuses the resolver"),
        ((), ("127.255.255.252",), (), "warn", "refuses the resolver"),
        (("127.0.0.2",), GOOD, GOOD, "warn", "has everything"),
        (("203.0.113.1",), ("203.0.113.1",), ("203.0.113.1",), "warn", "makes answers up"),
        ((), (), (), "warn", "lacks its test entry"),
        (SILENT, GOOD, (), "skip", "no answer"),
        ((), SILENT, (), "skip", "no answer"),
        ((), GOOD, SILENT, "skip", "no answer"),
    ],
)
def test_only_a_list_that_works_has_anything_to_say(
    subject: Answer, listed: Answer, unlisted: Answer, level: str, word: str
) -> None:
    found = judge("blocklist", "192.0.2.99", Heard("list.test", subject, listed, unlisted))
    assert (found.level, word in found.found) == (level, True), found


def test_a_list_without_ipv6_says_nothing_of_ipv6() -> None:
    assert judge("blocklist", "2001:db8::1", Heard("list.test", (), (), ())).level == "skip"


def test_a_key_in_the_name_of_a_list_is_not_shown() -> None:
    zone = "secretkey.zen.dq.spamhaus.net"
    failed = Failure(FailureKind.RESOLVER, Stage.RESOLVE, f"A look-up of 99.2.0.192.{zone} failed: SERVFAIL")
    for heard in (Heard(zone, (), (), ()), Heard(zone, GOOD, GOOD, GOOD), Heard(zone, failed, (), ())):
        found = judge("blocklist", "192.0.2.99", heard)
        assert found.subject == "192.0.2.99 zen.dq.spamhaus.net"
        assert "secretkey" not in str(found)
    assert controls("shop.test", "secretkey.dbl.dq.spamhaus.net")[0] == "dbltest.com"
