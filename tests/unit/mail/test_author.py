"""The author: one mailbox beyond doubt, or a refusal that names the field."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.author import check_once, parse_author, parse_named_mailbox
from arkrelay.mail.header import HeaderError, scan


@pytest.mark.parametrize(
    ("raw", "name", "address"),
    [
        pytest.param(b"a@x.test", "", "a@x.test", id="bare"),
        pytest.param(b"<a@x.test>", "", "a@x.test", id="brackets"),
        pytest.param(b"Joe <a@X.test>", "Joe", "a@x.test", id="name"),
        pytest.param(b"Joe Q. Public <a@x.test>", "Joe Q. Public", "a@x.test", id="dot-in-the-name"),
        pytest.param(b"Joe<a@x.test>", "Joe", "a@x.test", id="no-space"),
        pytest.param(b"Joe  \t<a@x.test>", "Joe", "a@x.test", id="much-space"),
        pytest.param(b'"Public, Joe" <a@x.test>', "Public, Joe", "a@x.test", id="comma-in-quotes"),
        pytest.param(b'"Joe" <a@x.test>', "Joe", "a@x.test", id="simple-quotes"),
        pytest.param(b'"Joe \\"J\\" P" <a@x.test>', 'Joe "J" P', "a@x.test", id="escaped-quotes"),
        pytest.param(b'"" <a@x.test>', "", "a@x.test", id="empty-name"),
        pytest.param(b"a@x.test (Joe)", "(Joe)", "a@x.test", id="comment-as-the-name"),
        pytest.param(b"Joe (home) <a@x.test>", "Joe (home)", "a@x.test", id="comment-in-the-name"),
        pytest.param("Jürgen <a@x.test>".encode(), "Jürgen", "a@x.test", id="utf8-name"),
        pytest.param(b"=?utf-8?q?J=C3=BCrgen?= <a@x.test>", "Jürgen", "a@x.test", id="encoded-name"),
        pytest.param(b"=?utf-8?b?SsO8cmdlbg==?= M <a@x.test>", "Jürgen M", "a@x.test", id="encoded-name-b"),
        pytest.param(b"=?ISO-2022-JP?B?GyRCOzNFRBsoQg==?= <a@x.test>", "山田", "a@x.test", id="iso-2022-jp"),
        pytest.param("a@bücher.test".encode(), "", "a@xn--bcher-kva.test", id="u-label"),
        pytest.param("Joe <ü@x.test>".encode(), "Joe", "ü@x.test", id="utf8-local-part"),
        pytest.param(b"o'hara@x.test", "", "o'hara@x.test", id="apostrophe"),
    ],
)
def test_one_mailbox_is_taken_with_its_name(raw: bytes, name: str, address: str) -> None:
    found_name, found = parse_named_mailbox(raw)
    assert (found_name, str(found)) == (name, address)
    assert parse_author(scan(b"From: " + raw + b"\r\n")) == found


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"=?utf-8?q?Joe?= <a@x.test>", "=?utf-8?q?Joe?="),
        (b'"=?utf-8?q?ceo=40bank.test?=" <a@x.test>', "=?utf-8?q?ceo=40bank.test?="),
        (b"=? Joe ?= <a@x.test>", "=? Joe ?="),
        ("Jürgen <a@x.test>".encode(), "Jürgen"),
    ],
)
def test_without_words_an_encoded_word_is_text(raw: bytes, name: str) -> None:
    assert parse_named_mailbox(raw, words=False)[0] == name


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"Joe", id="no-address"),
        pytest.param(b"<>", id="null-path"),
        pytest.param(b"<Joe>", id="no-at-sign"),
        pytest.param(b"a@x.test, b@y.test", id="list"),
        pytest.param(b"a@x.test b@y.test", id="two-without-a-comma"),
        pytest.param(b"<a@x.test> <b@y.test>", id="two-in-brackets"),
        pytest.param(b"<a@x.test>, Joe", id="list-with-a-name"),
        pytest.param(b"Team: a@x.test;", id="group"),
        pytest.param(b"Team:;", id="empty-group"),
        pytest.param(b"Team: Joe <a@x.test>;", id="group-with-a-name"),
        pytest.param(b"ok@v.test <ceo@bank.test>", id="address-as-the-name"),
        pytest.param(b'"ok@v.test" <ceo@bank.test>', id="address-in-quotes"),
        pytest.param(b"ok@v.test (<ceo@bank.test>)", id="address-in-a-comment"),
        pytest.param(b"(ok@v.test) <ceo@bank.test>", id="address-in-a-comment-before"),
        pytest.param(b"ceo@bank.test <a>", id="address-outside-the-brackets"),
        pytest.param(b'"<a" b@x.test', id="bracket-in-quotes"),
        pytest.param(b'"a>b" <a@x.test>', id="closing-bracket-in-quotes"),
        pytest.param(b"<<a@x.test>>", id="double-brackets"),
        pytest.param(b"Joe <a@x.test", id="open-bracket"),
        pytest.param(b"Joe a@x.test>", id="closing-bracket"),
        pytest.param(b"Joe <a@x.test> x", id="text-behind"),
        pytest.param(b"Joe <a@x.test> (x)", id="comment-behind-the-brackets"),
        pytest.param(b"Joe < a@x.test >", id="space-in-the-brackets"),
        pytest.param(b"Joe <a@x.test.>", id="trailing-dot"),
        pytest.param(b"Joe <@r.test:a@x.test>", id="route"),
        pytest.param(b"Joe <a(c)@x.test>", id="comment-in-the-address"),
        pytest.param(b"a@(c)x.test", id="comment-in-the-domain"),
        pytest.param(b"a@x.test (a (nested) one)", id="nested-comment"),
        pytest.param(b'a@x.test ("quoted)', id="quote-in-a-comment"),
        pytest.param(b"a@x.test (open", id="open-comment"),
        pytest.param(b'"a b"@x.test', id="quoted-local-part"),
        pytest.param(b'Joe <"ab"@x.test>', id="quoted-local-part-in-brackets"),
        pytest.param(b"Joe <a@[192.0.2.1]>", id="literal"),
        pytest.param(b"Joe <a@x_y.test>", id="bad-domain"),
        pytest.param(b"Public, Joe <a@x.test>", id="comma-without-quotes"),
        pytest.param(b"[Jira] Joe <a@x.test>", id="brackets-without-quotes"),
        pytest.param(b"Joe; <a@x.test>", id="semicolon"),
        pytest.param(b"Re: Joe <a@x.test>", id="colon"),
        pytest.param(b'Joe " <a@x.test>', id="odd-quote"),
        pytest.param(b"Joe \\x <a@x.test>", id="backslash"),
        pytest.param(b"=?utf-8?q?a=40b?= <a@x.test>", id="encoded-at-sign"),
        pytest.param(b"=?utf-8?b?PGNlb0BiYW5rPg==?= <a@x.test>", id="encoded-address"),
        pytest.param(b"=?utf-8?q?=3Cceo=3E?= <a@x.test>", id="encoded-brackets"),
        pytest.param(b'"=?utf-8?q?ceo=40bank?=" <a@x.test>', id="encoded-at-sign-in-quotes"),
        pytest.param(b"=?utf-7?q?a+AEA-b?= <a@x.test>", id="at-sign-in-utf-7"),
        pytest.param(b"=?utf-8?q?a=0D=0ABcc:_x?= <a@x.test>", id="encoded-line-end"),
        pytest.param(b"=?utf-8?q?a=00?= <a@x.test>", id="encoded-nul"),
        pytest.param(b"=?utf-8?q?a?= =?utf-8?q?=40?= <a@x.test>", id="at-sign-in-the-second-word"),
        pytest.param(b"=?utf-8?q?a <a@x.test>", id="word-without-an-end"),
        pytest.param(b"=?utf-8?q?a b?= <a@x.test>", id="space-in-a-word"),
        pytest.param(b"=?utf-8?b?!!?= <a@x.test>", id="not-base64"),
        pytest.param(b"=?utf-8?b?Z?= <a@x.test>", id="base64-cut-off"),
        pytest.param(b"=?x-own?q?a?= <a@x.test>", id="unknown-charset"),
        pytest.param(b"=?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3D40=3F=3D?= <a@x.test>", id="word-within-a-word"),
        pytest.param(b"=?utf-8?q?ceo?=@bank.test", id="encoded-local-part"),
        pytest.param(b"=?utf-8?q?a=40x=2Etest?=", id="encoded-whole"),
        pytest.param(b"a@=?utf-8?q?bank=2Etest?=", id="encoded-domain"),
        pytest.param(b"Joe\x07 <a@x.test>", id="control"),
        pytest.param(b"Joe\xc2\x85 <a@x.test>", id="c1-control"),
        pytest.param(b"J\xfcrgen <a@x.test>", id="latin-1"),
        pytest.param("Joe\u2028 <a@x.test>".encode(), id="line-separator"),
        pytest.param(b"x" * 3000 + b" <a@x.test>", id="very-long-name"),
        pytest.param(b"(" * 1500 + b" <a@x.test>", id="many-comments"),
    ],
)
def test_any_doubt_is_a_refusal_that_names_the_field(raw: bytes) -> None:
    with pytest.raises(HeaderError, match="From"):
        parse_author(scan(b"From:" + b"\r\n ".join([b"", *re.findall(rb".{1,900}", raw)]) + b"\r\n"))
    with pytest.raises(HeaderError, match="Reply-To"):
        parse_named_mailbox(raw, "Reply-To")


def test_a_folded_author_is_read_unfolded() -> None:
    assert str(parse_author(scan(b"From:\r\n Joe\r\n\tPublic\r\n <a@x.test>\r\n"))) == "a@x.test"
    with pytest.raises(HeaderError):
        parse_author(scan(b"From: <a@\r\n x.test>\r\n"))


def test_there_is_exactly_one_from() -> None:
    with pytest.raises(HeaderError, match="missing"):
        parse_author(scan(b"To: a@x.test\r\n"))
    with pytest.raises(HeaderError, match="more than once"):
        parse_author(scan(b"From: a@x.test\r\nfrom: a@x.test\r\n"))


@pytest.mark.parametrize(
    "name",
    ["Date", "From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject"],
)
def test_a_field_that_may_stand_once_is_refused_twice_by_its_name(name: str) -> None:
    line = f"{name}: x\r\n".encode()
    check_once(scan(line + b"Received: a\r\nReceived: b\r\nComments: c\r\nComments: d\r\n"))
    with pytest.raises(HeaderError, match=f"the {name} field"):
        check_once(scan(line + b"X: y\r\n" + line.upper()))


PIECES = st.sampled_from(
    (
        *(
            b"Joe",
            b"a@x.test",
            b"<",
            b">",
            b"<a@x.test>",
            b" ",
            b'"',
            b"\\",
            b"(",
            b")",
            b",",
            b":",
            b";",
            b"@",
            b".",
        ),
        *(b"=?utf-8?q?", b"=40", b"?=", b"=?utf-8?b?PGNlb0BiYW5rPg==?=", b"\xff", b"\xc3\xbc", b"\t"),
    )
)


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=10).map(b"".join)))
def test_any_value_gives_its_only_address_or_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(HeaderError):
        name, address = parse_named_mailbox(raw)
        assert raw.count(b"@") == 1
        assert not {"@", "<", ">", "\r", "\n"}.intersection(name)
        assert str(address).partition("@")[0].encode() in raw
