"""URLs of webhooks: what is meant is taken apart one way, and what two parsers read differently is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.route import parse_networks
from arkrelay.policy.targets import MAX_URL_CHARS, Target, parse_target, refusal, strange_port


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://x.example", "x.example", 443, "/", "x.example"),
        ("https://x.example?a=1&b", "x.example", 443, "/?a=1&b", "x.example"),
        ("HTTPS://X.Example:443/A%2fB/../c?d", "x.example", 443, "/A%2fB/../c?d", "x.example"),
        ("https://x.example:8443/", "x.example", 8443, "/", "x.example:8443"),
        ("https://grüße.example/hook", "xn--gre-6ka8l.example", 443, "/hook", "xn--gre-6ka8l.example"),
        ("https://localhost:3000/", "localhost", 3000, "/", "localhost:3000"),
        ("https://127.0.0.1/", "127.0.0.1", 443, "/", "127.0.0.1"),
        ("https://[2001:DB8:0::1]:9443/", "2001:db8::1", 9443, "/", "[2001:db8::1]:9443"),
        ("https://[::ffff:127.0.0.1]/", "::ffff:7f00:1", 443, "/", "[::ffff:7f00:1]"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str, authority: str) -> None:
    found = parse_target(url, allow_http=False)
    assert found == Target("https", host, port, path, literal=host[0].isdigit() or ":" in host)
    assert found.authority == authority


def test_plain_http_has_to_be_allowed() -> None:
    with pytest.raises(ValueError, match="allow_http"):
        parse_target("http://x.example/", allow_http=False)
    assert parse_target("http://x.example/", allow_http=True).port == 80


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "expected https://host"),
        ("x.example/hook", "expected https://host"),
        ("//x.example/hook", "expected https://host"),
        ("ftp://x.example/", "expected https://host"),
        ("file:///etc/passwd", "expected https://host"),
        ("https:///x", "expected https://host"),
        ("https://x.example:0/", "expected https://host"),
        ("https://x.example:port/", "is not a URL"),
        ("https://x.example:70000/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://user@x.example/", "user name"),
        ("https://user:secret@x.example/", "user name"),
        ("https://:secret@x.example/", "user name"),
        ("https://@x.example/", "user name"),
        ("https://x.example/#part", "fragment"),
        ("https://x.example/a b", "percent-encode"),
        ("https://x.example/ü", "percent-encode"),
        ("https://x.example\n/", "percent-encode"),
        (" https://x.example/", "percent-encode"),
        ("https://x.example/\x00", "percent-encode"),
        ("https://x.example\\.y.example/", "percent-encode"),
        ("https://x.example./", "ends with a dot"),
        ("https://a_b.example/", "no usable host"),
        ("https://[fe80::1%25eth0]/", "interface"),
        ("https://[v1.x]/", "IPv6|not a URL"),
        ("https://[127.0.0.1]/", "IPv6|not a URL"),
        # other spellings of 127.0.0.1
        ("https://2130706433/", "no usable host"),
        ("https://0x7f000001/", "no usable host"),
        ("https://0x7f.0.0.0x1/", "no usable host"),
        ("https://0177.0.0.1/", "no usable host"),
        ("https://127.1/", "no usable host"),
        ("https://127.0.0.1.5/", "no usable host"),
        ("https://１２７.0.0.1/", "no usable host"),  # noqa: RUF001 -- digits of another width are the point
        ("https://127。0。0。1/", "no usable host"),
        ("https://①②⑦.⓪.⓪.①/", "no usable host"),
        ("https://x.example/" + "a" * MAX_URL_CHARS, "longer than"),
    ],
)
def test_what_nobody_means_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_target(url, allow_http=False)


@pytest.mark.parametrize(("port", "strange"), [(443, False), (80, False), (1024, False), (8443, False), (25, True)])
def test_servers_of_the_system_are_not_webhooks(port: int, strange: bool) -> None:
    assert (strange_port(port) is not None) is strange


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://x.example/", None),
        ("https://x.example:8443/", None),
        ("https://1.1.1.1/", None),
        ("https://[2606:4700::1111]:8443/", None),
        ("http://x.example/", "allow_http"),
        ("https://user@x.example/", "user name"),
        ("https://x.example:22/", "port 22 is not for webhooks"),
        ("https://1.1.1.1:22/", "port 22 is not for webhooks"),
        ("https://127.0.0.1/", "127.0.0.1 may not be posted to: it is loopback"),
        ("https://[::1]/", "::1 may not be posted to: it is loopback"),
        ("https://[::ffff:10.0.0.1]/", "it is private"),
        ("https://localhost:3000/", "127.0.0.1 may not be posted to: it is loopback"),
        ("https://app.localhost/", "127.0.0.1 may not be posted to: it is loopback"),
    ],
)
def test_what_nothing_is_ever_posted_to_is_known_from_its_text(url: str, reason: str | None) -> None:
    found = refusal(url, (), allow_http=False)
    assert (reason is None and found is None) or (reason is not None and found is not None and reason in found)


@pytest.mark.parametrize("url", ["http://10.1.2.3:25/", "https://localhost:25/", "https://x.example:25/"])
def test_where_networks_are_let_in_any_port_of_them_is(url: str) -> None:
    assert refusal(url, parse_networks(["10.0.0.0/8", "::1/128"]), allow_http=True) is None


def test_an_address_of_our_own_is_posted_to_only_when_it_is_let_in() -> None:
    own = frozenset({"1.1.1.1"})
    assert "our own" in (refusal("https://1.1.1.1/", (), own, allow_http=False) or "")
    assert refusal("https://1.1.1.1/", parse_networks(["1.1.1.1/32"]), own, allow_http=False) is None


@given(st.text(alphabet=st.sampled_from("htps:/@[]#?%.\\ x1\n\0é{}"), max_size=40) | st.text(max_size=60))
def test_rubbish_is_refused_and_nothing_else_is_raised(text: str) -> None:
    for url in (text, f"https://{text}", f"https://x.example{text}"):
        try:
            found = parse_target(url, allow_http=True)
        except ValueError:
            continue
        assert found.host.isascii()
        assert found.path.isascii()
        assert not any(character <= " " for character in found.host + found.path)
