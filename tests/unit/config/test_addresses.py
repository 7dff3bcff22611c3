"""Socket addresses as the files spell them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.config.addresses import Endpoint, parse_endpoint, parse_host_port


@pytest.mark.parametrize(
    ("text", "endpoint", "local"),
    [
        ("127.0.0.1:25", Endpoint("127.0.0.1", 25), True),
        ("127.3.2.1:0", Endpoint("127.3.2.1", 0), True),
        ("[::1]:587", Endpoint("::1", 587), True),
        ("[0:0:0:0:0:0:0:1]:587", Endpoint("::1", 587), True),
        ("localhost:8025", Endpoint("localhost", 8025), True),
        ("unix:/run/x.sock", Endpoint(path=Path("/run/x.sock")), True),
        ("0.0.0.0:465", Endpoint("0.0.0.0", 465), False),
        ("[::]:465", Endpoint("::", 465), False),
        ("10.0.0.1:25", Endpoint("10.0.0.1", 25), False),
        ("[::ffff:127.0.0.1]:25", Endpoint("::ffff:7f00:1", 25), False),
        ("Relay.Example.COM:25", Endpoint("relay.example.com", 25), False),
        ("localhost.example.com:25", Endpoint("localhost.example.com", 25), False),
    ],
)
def test_an_endpoint_is_canonical_and_knows_whether_it_is_local(text: str, endpoint: Endpoint, local: bool) -> None:
    made = parse_endpoint(text)
    assert str(made.host).replace("::ffff:127.0.0.1", "::ffff:7f00:1") == endpoint.host
    assert (made.port, made.path, made.local) == (endpoint.port, endpoint.path, local)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (":25", 'the host is missing; "0.0.0.0" and "[::]" are all addresses'),
        ("127.0.0.1", 'the port is missing: expected "host:port"'),
        ("127.0.0.1:", "the port is not a number from 0 to 65535"),
        ("127.0.0.1:65536", "the port is not a number from 0 to 65535"),
        ("127.0.0.1:٢٥", "the port is not a number from 0 to 65535"),
        ("::1:25", 'an IPv6 address needs brackets: "[v6]:port"'),
        ("[::1]25", 'expected "[v6]:port"'),
        ("[::1", 'expected "[v6]:port"'),
        ("[::g]:25", "not an IPv6 address between the brackets"),
        ("a b:25", "a label of the domain is not letters, digits and inner hyphens"),
        ("unix:run/x", "expected an absolute path after unix:"),
        ("unix:/" + "x" * 107, "the path of a unix socket has at most 107 bytes"),
    ],
)
def test_a_broken_endpoint_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse_endpoint(text)


@given(st.text())
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    for parse in (parse_endpoint, lambda text: parse_host_port(text, default_port=53)):
        try:
            parse(text)
        except ValueError as exc:
            reason = str(exc)
            assert reason


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:25", "127.0.0.1:25", True),
        ("0.0.0.0:25", "127.0.0.1:25", True),
        ("127.0.0.1:25", "0.0.0.0:25", True),
        ("0.0.0.0:25", "[::]:25", False),
        ("[::]:25", "[::1]:25", True),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("127.0.0.1:25", "127.0.0.1:26", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:25", False),
    ],
)
def test_endpoints_that_cannot_both_be_listened_on_overlap(one: str, other: str, overlap: bool) -> None:
    assert parse_endpoint(one).overlaps(parse_endpoint(other)) is overlap


def test_a_default_port_stands_for_a_missing_one() -> None:
    assert parse_host_port("::1", default_port=53) == ("::1", 53)
    assert parse_host_port("[::1]", default_port=53) == ("::1", 53)
    assert parse_host_port("192.0.2.1", default_port=53) == ("192.0.2.1", 53)
    assert parse_host_port("192.0.2.1:5353", default_port=53) == ("192.0.2.1", 5353)
