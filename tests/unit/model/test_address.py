"""The address parser: what it takes, in which form, and everything that it must not take."""

import contextlib
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arkrelay.model.address import Address, AddressError, parse_domain, parse_mailbox, parse_path

LABEL_63 = "a" * 63


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        pytest.param("joe@example.com", "joe", "example.com", id="plain"),
        pytest.param("Joe@EXAMPLE.Com", "Joe", "example.com", id="case-of-the-local-part-stays"),
        pytest.param("a.b+c=d@x.test", "a.b+c=d", "x.test", id="detail"),
        pytest.param("!#$%&'*+/?=^_`{|}~-@x.test", "!#$%&'*+/?=^_`{|}~-", "x.test", id="all-of-atext"),
        pytest.param("a%b.test@x.test", "a%b.test", "x.test", id="percent-is-no-route"),
        pytest.param("b.test!a@x.test", "b.test!a", "x.test", id="bang-is-no-route"),
        pytest.param("root@localhost", "root", "localhost", id="single-label"),
        pytest.param("a@1.2.3.test", "a", "1.2.3.test", id="numeric-labels-before-the-last"),
        pytest.param("a@x.1e", "a", "x.1e", id="last-label-begins-with-a-digit"),
        pytest.param("a@r3---sn-x.test", "a", "r3---sn-x.test", id="hyphens-at-three-and-four"),
        pytest.param("a@xn--bcher-kva.TEST", "a", "xn--bcher-kva.test", id="a-label"),
        pytest.param('"a.b"@x.test', "a.b", "x.test", id="needless-quotes-go"),
        pytest.param(r'"a\b"@x.test', "ab", "x.test", id="needless-escapes-go"),
        pytest.param('"a b"@x.test', '"a b"', "x.test", id="space-needs-quotes"),
        pytest.param('"a@b"@x.test', '"a@b"', "x.test", id="at-sign-in-quotes"),
        pytest.param(r'"a\"b\\"@x.test', r'"a\"b\\"', "x.test", id="escapes-that-are-needed"),
        pytest.param(r'"\a\ b"@x.test', '"a b"', "x.test", id="escaped-space"),
        pytest.param('""@x.test', '""', "x.test", id="empty-quoted"),
        pytest.param('".a"@x.test', '".a"', "x.test", id="quoted-dot"),
        pytest.param("a" * 64 + "@x.test", "a" * 64, "x.test", id="local-part-of-64"),
        pytest.param(f"a@{LABEL_63}.test", "a", f"{LABEL_63}.test", id="label-of-63"),
        pytest.param(
            f"a@{'.'.join([LABEL_63] * 3)}.{'b' * 61}",
            "a",
            f"{'.'.join([LABEL_63] * 3)}.{'b' * 61}",
            id="domain-of-253",
        ),
    ],
)
def test_a_mailbox_comes_in_its_one_canonical_form(text: str, local: str, domain: str) -> None:
    address = parse_mailbox(text)
    assert address == Address(local, domain)
    assert parse_mailbox(str(address)) == address
    assert parse_path(f"<{text}>") == (address, "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a", id="no-domain"),
        pytest.param("@x.test", id="no-local-part"),
        pytest.param("a@", id="empty-domain"),
        pytest.param("a@@x.test", id="two-at-signs"),
        pytest.param("a@b@x.test", id="two-at-signs-apart"),
        pytest.param("<a@x.test>", id="brackets"),
        pytest.param(" a@x.test", id="space-before"),
        pytest.param("a@x.test ", id="space-after"),
        pytest.param("a @x.test", id="space-inside"),
        pytest.param("a@ x.test", id="space-before-the-domain"),
        pytest.param("a\t@x.test", id="tab"),
        pytest.param(".a@x.test", id="leading-dot"),
        pytest.param("a.@x.test", id="dot-before-the-at"),
        pytest.param("a..b@x.test", id="two-dots"),
        pytest.param("a" * 65 + "@x.test", id="local-part-of-65"),
        pytest.param('"' + "a b" * 22 + '"@x.test', id="quoted-local-part-over-64"),
        pytest.param(f"a@{LABEL_63}a.test", id="label-of-64"),
        pytest.param(f"a@{'.'.join([LABEL_63] * 3)}.{'b' * 62}", id="domain-of-254"),
        pytest.param("a@x.test.", id="trailing-dot"),
        pytest.param("a@.x.test", id="leading-dot-in-the-domain"),
        pytest.param("a@x..test", id="empty-label"),
        pytest.param("a@-x.test", id="leading-hyphen"),
        pytest.param("a@x-.test", id="trailing-hyphen"),
        pytest.param("a@x.test-", id="trailing-hyphen-in-the-last-label"),
        pytest.param("a@x_y.test", id="underscore"),
        pytest.param("a@x.te/st", id="slash"),
        pytest.param("a@127.0.0.1", id="ipv4-without-brackets"),
        pytest.param("a@2130706433", id="ipv4-as-a-number"),
        pytest.param("a@[127.0.0.1]", id="ipv4-literal"),
        pytest.param("a@[IPv6:::1]", id="ipv6-literal"),
        pytest.param("@a.test,@b.test:c@x.test", id="source-route"),
        pytest.param("@a.test:c@x.test", id="short-source-route"),
        pytest.param("=?utf-8?q?a?=@x.test", id="encoded-word"),
        pytest.param("=?utf-8?q?a=0d=0aRCPT=20TO=3a=3cz=40z.test=3e?=@x.test", id="encoded-word-with-a-command"),
        pytest.param("a@=?utf-8?q?evil=2etest?=", id="encoded-word-as-the-domain"),
        pytest.param('"=?utf-8?q?a?="@x.test', id="encoded-word-in-quotes"),
        pytest.param("a(comment)@x.test", id="comment"),
        pytest.param("(c)a@x.test", id="comment-before"),
        pytest.param("a@x.test(c)", id="comment-after"),
        pytest.param("a@(c)x.test", id="comment-in-the-domain"),
        pytest.param("a\0b@x.test", id="nul"),
        pytest.param("a\rb@x.test", id="cr"),
        pytest.param("a@x.test\n", id="lf-at-the-end"),
        pytest.param("a@x.test\r\n", id="crlf-at-the-end"),
        pytest.param("a\x7f@x.test", id="del"),
        pytest.param('"a\x01b"@x.test', id="control-in-quotes"),
        pytest.param('"a\\\rb"@x.test', id="escaped-cr"),
        pytest.param("a\udc80@x.test", id="surrogate"),
        pytest.param('"a@x.test', id="open-quotes"),
        pytest.param('"a\\', id="ends-in-an-escape"),
        pytest.param('"a"b@x.test', id="text-after-the-quotes"),
        pytest.param('a"b"@x.test', id="quotes-inside"),
        pytest.param('"a".b@x.test', id="obsolete-local-part"),
        pytest.param("a,b@x.test", id="comma"),
        pytest.param("a;b@x.test", id="semicolon"),
        pytest.param("a:b@x.test", id="colon"),
        pytest.param("a\\b@x.test", id="backslash"),
        pytest.param("a<b@x.test", id="less-than"),
        pytest.param("a>b@x.test", id="greater-than"),
        pytest.param("a@x.test> SIZE=1", id="parameters-in-the-address"),
        pytest.param("a@x,b@y", id="list"),
        pytest.param("ü@x.test", id="utf8-not-declared"),
        pytest.param("a@bücher.test", id="u-label-not-declared"),
        pytest.param("a" * 100_000 + "@x.test", id="very-long"),
        pytest.param('"' * 100_000, id="very-many-quotes"),
    ],
)
def test_what_is_no_mailbox_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text)
    reason = str(caught.value)
    assert reason.isprintable()
    assert not text or text not in reason or len(text) == 1


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        pytest.param("ü@x.test", "ü@x.test", id="utf8-local-part"),
        pytest.param('"ü"@x.test', "ü@x.test", id="quoted-utf8"),
        pytest.param('"ü x"@x.test', '"ü x"@x.test', id="quoted-utf8-with-a-space"),
        pytest.param("a@bücher.test", "a@xn--bcher-kva.test", id="u-label"),
        pytest.param("a@BÜCHER.test", "a@xn--bcher-kva.test", id="upper-case-u-label"),
        pytest.param("a@bu\u0308cher.test", "a@xn--bcher-kva.test", id="decomposed"),
        pytest.param("a@\uff42\uff41\uff4e\uff4b.test", "a@bank.test", id="full-width-maps"),
        pytest.param("a@x\u3002test", "a@x.test", id="ideographic-dot-maps"),
        pytest.param("a@ba\u00adnk.test", "a@bank.test", id="soft-hyphen-goes"),
        pytest.param("a@faß.test", "a@xn--fa-hia.test", id="sharp-s-is-its-own-letter"),
        pytest.param("नमस्\u200dते@x.test", "नमस्\u200dते@x.test", id="joiner-in-a-word"),
    ],
)
def test_international_addresses_are_taken_when_declared_and_domains_become_a_labels(text: str, wire: str) -> None:
    address = parse_mailbox(text, utf8=True)
    assert str(address) == wire
    assert address.domain.isascii()
    assert address.utf8 is not address.local.isascii()
    with pytest.raises(AddressError):
        parse_mailbox(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a@ba\u200dnk.test", id="joiner-in-the-domain"),
        pytest.param("a@ba\u200bnk.test.", id="zero-width-space-and-dot"),
        pytest.param("a@x.test\u3002", id="ideographic-dot-at-the-end"),
        pytest.param("a@☕.test", id="not-in-idna-2008"),
        pytest.param("a@\u2100.test", id="maps-to-a-slash"),
        pytest.param("a@\uff11\uff12\uff17.\uff10.\uff10.\uff11", id="full-width-ipv4"),
        pytest.param("a@ü" + "x" * 300 + ".test", id="long-u-label"),
        pytest.param("a@xn--ü.test", id="u-label-in-a-label"),
        pytest.param("a\uff20b@x.test", id="full-width-at-sign"),
        pytest.param('"a\uff1cb"@x.test', id="full-width-bracket-in-quotes"),
        pytest.param("a\u2028b@x.test", id="line-separator"),
        pytest.param("a\u0085b@x.test", id="c1-control"),
        pytest.param("a\u202eb@x.test", id="right-to-left-override"),
        pytest.param("a\u3000b@x.test", id="ideographic-space"),
        pytest.param("a\ud800@x.test", id="surrogate"),
        pytest.param('"\\ü"@x.test', id="escaped-non-ascii"),
        pytest.param("ü" * 33 + "@x.test", id="local-part-over-64-octets"),
        pytest.param("ü..a@x.test", id="two-dots"),
        pytest.param("ü", id="no-domain"),
    ],
)
def test_look_alikes_and_invisible_characters_fail_even_when_utf8_is_declared(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailbox(text, utf8=True)


@pytest.mark.parametrize(
    ("text", "address", "parameters"),
    [
        pytest.param("<>", None, "", id="null-path"),
        pytest.param("<> SIZE=1", None, "SIZE=1", id="null-path-with-parameters"),
        pytest.param("<a@x.test>", "a@x.test", "", id="plain"),
        pytest.param("<a@x.test> SIZE=1 BODY=8BITMIME", "a@x.test", "SIZE=1 BODY=8BITMIME", id="parameters"),
        pytest.param("<a@x.test>  SIZE=1 ", "a@x.test", "SIZE=1", id="spaces-around-the-parameters"),
        pytest.param(" <a@x.test>", "a@x.test", "", id="space-after-the-colon"),
        pytest.param("  <>", None, "", id="spaces-before-the-null-path"),
        pytest.param('<"a>b"@x.test> X=Y', '"a>b"@x.test', "X=Y", id="bracket-in-quotes"),
        pytest.param(r'<"a\">b"@x.test>', r'"a\">b"@x.test', "", id="escaped-quote-before-a-bracket"),
        pytest.param("<postmaster>", "postmaster", "", id="postmaster"),
        pytest.param("<PostMaster> NOTIFY=NEVER", "postmaster", "NOTIFY=NEVER", id="postmaster-in-any-case"),
    ],
)
def test_a_path_is_an_address_in_brackets_and_what_follows(text: str, address: str | None, parameters: str) -> None:
    found, rest = parse_path(text)
    assert (None if found is None else str(found)) == address
    assert rest == parameters


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@x.test",
        "<a@x.test",
        "a@x.test>",
        "<a@x.test>SIZE=1",
        "<a@x.test>\tSIZE=1",
        "<<a@x.test>>",
        "< a@x.test>",
        "<a@x.test >",
        "< >",
        "<a@x.test SIZE=1",
        "<postmaster@>",
        "<root>",
        "<@a.test:b@x.test>",
        "<a@x.test> SIZE=1\r\nRCPT TO:<z@z.test>",
        "<a@x.test> A\0",
        "<a@x.test>\n",
        '<"a@x.test>',
        "x <a@x.test>",
        "\t<a@x.test>",
        "<ü@x.test>",
        f"<{'a' * 65}@x.test>",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


def test_the_reason_for_a_source_route_and_a_literal_is_plain() -> None:
    with pytest.raises(AddressError, match="source route"):
        parse_path("<@relay.test:a@x.test>")
    with pytest.raises(AddressError, match="literal"):
        parse_path("<a@[192.0.2.1]>")


def test_the_key_has_no_case_and_one_normal_form() -> None:
    assert parse_mailbox("Joe@X.test").key == parse_mailbox("jOE@x.TEST").key == "joe@x.test"
    composed = parse_mailbox(unicodedata.normalize("NFC", "Jürgen@x.test"), utf8=True)
    decomposed = parse_mailbox(unicodedata.normalize("NFD", "jürgen@x.test"), utf8=True)
    assert composed.key == decomposed.key
    assert Address("postmaster", "").key == "postmaster"


def test_a_domain_alone_follows_the_same_rules() -> None:
    assert parse_domain("EXAMPLE.com") == "example.com"
    assert parse_domain("bücher.test", utf8=True) == "xn--bcher-kva.test"
    for text in ("", "x.", "[::1]", "10.0.0.1", "a b", "x\0.test", "bücher.test", "a" * 2000, "-a.test", "*.x.test"):
        with pytest.raises(AddressError):
            parse_domain(text)


PIECES = st.sampled_from(
    (
        *'aZ9.@"\\<> \t\0(),:[]-\u00fc\u3002\uff20\u00ad\u200d\ud800',
        *("..", "\r\n", "=?", "?=", "x.test", "xn--", "xn--bcher-kva", "postmaster"),
    )
)


@given(text=st.one_of(st.text(), st.lists(PIECES, max_size=14).map("".join)), utf8=st.booleans())
@example(text="xn--\u200d.x", utf8=True)
def test_any_text_gives_an_address_that_is_safe_and_stable_or_the_parsers_own_error(text: str, utf8: bool) -> None:
    for wrapped in (text, f"a@{text}", f"{text}@x.test"):
        with contextlib.suppress(AddressError):
            address = parse_mailbox(wrapped, utf8=utf8)
            again = str(address)
            assert parse_mailbox(again, utf8=utf8) == address
            assert address.domain.isascii()
            assert address.domain == address.domain.lower()
            assert not any(ord(c) < 32 or ord(c) == 127 for c in again)
            assert utf8 or again.isascii()
            assert len(address.local.encode()) <= 64
            assert address.key == parse_mailbox(again, utf8=utf8).key
            # the wire form in brackets reads back as itself: nothing in it can end the path early
            assert parse_path(f"<{again}> SIZE=1", utf8=utf8) == (address, "SIZE=1")
    with contextlib.suppress(AddressError):
        parse_path(text, utf8=utf8)
    with contextlib.suppress(AddressError):
        parse_domain(text, utf8=utf8)


@given(st.text(max_size=40).filter(lambda text: text.isprintable() and text.isascii()))
def test_any_printable_text_in_quotes_is_a_local_part_and_keeps_its_meaning(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if "=?" in quoted or len(quoted) > 64:
        return
    local = parse_mailbox(f"{quoted}@x.test").local
    assert local in {text, quoted}
