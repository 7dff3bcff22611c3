"""The header scanner: what is a field, what is none, and that no byte is lost."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.header import (
    FIELD_LIMIT,
    HEADER_LIMIT,
    Field,
    HeaderError,
    decode_text,
    decode_words,
    find,
    has_control,
    scan,
    split,
    value,
)


@pytest.mark.parametrize(
    ("content", "header", "body"),
    [
        pytest.param(b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"body\r\n", id="usual"),
        pytest.param(b"A: b\r\n\r\n", b"A: b\r\n", b"", id="empty-body"),
        pytest.param(b"A: b\r\n", b"A: b\r\n", b"", id="no-separator"),
        pytest.param(b"A: b", b"A: b\r\n", b"", id="no-line-end"),
        pytest.param(b"\r\nbody", b"", b"body", id="empty-header"),
        pytest.param(b"\r\n", b"", b"", id="nothing-but-the-separator"),
        pytest.param(b"", b"", b"", id="empty"),
        pytest.param(b"A: b\r\n\r\n\r\nx\r\n\r\n", b"A: b\r\n", b"\r\nx\r\n\r\n", id="empty-lines-in-the-body"),
        pytest.param(b"A: b\r\n \r\n\r\nx", b"A: b\r\n \r\n", b"x", id="line-of-white-space-is-a-fold"),
    ],
)
def test_the_header_ends_at_the_first_empty_line(content: bytes, header: bytes, body: bytes) -> None:
    assert split(content) == (header, body)


def test_fields_keep_their_bytes_and_names_lose_their_case() -> None:
    header = b"Subject: a\r\n\tb\r\nX-Odd!name:\r\nFROM:  x@y.test  \r\nsubject:c\r\n"
    fields = scan(header)
    assert b"".join(field.raw for field in fields) == header
    assert [field.name for field in fields] == [b"subject", b"x-odd!name", b"from", b"subject"]
    assert [value(field) for field in fields] == [b"a\tb", b"", b"x@y.test", b"c"]
    assert find(fields, b"subject") == [fields[0], fields[3]]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param(b"A: b\r\nFrom : x\r\n", "line 2 has a space before the colon", id="space-before-the-colon"),
        pytest.param(b"From\t: x\r\n", "line 1 has a space before the colon", id="tab-before-the-colon"),
        pytest.param(b" A: b\r\n", "line 1 continues a field", id="begins-with-a-fold"),
        pytest.param(b"A: b\r\n\tc\r\nhello\r\n", "line 3 is not a header field", id="no-colon"),
        pytest.param(b"From joe@x Mon Jan  1\r\n", "line 1 is not", id="mbox-line"),
        pytest.param(b": b\r\n", "line 1 has no field name", id="no-name"),
        pytest.param(b"\xc3\xbc: b\r\n", "line 1 is not a header field", id="utf8-name"),
        pytest.param(b"A: b\0c\r\n", "line 1 holds a NUL", id="nul"),
        pytest.param(b"A: b\r\n c\0\r\n", "line 2 holds a NUL", id="nul-in-a-fold"),
        pytest.param(b"A: b\nc: d\r\n", "line 1 holds a bare", id="bare-lf"),
        pytest.param(b"A: b\rc: d\r\n", "line 1 holds a bare", id="bare-cr"),
        pytest.param(b"A: b", "line 1 is not", id="no-line-end"),
        pytest.param(b"A: " + b"x" * 996 + b"\r\n", "line 1 is longer than 998", id="line-of-999"),
        pytest.param(
            b"A: b\r\nB: c\r\n " + b"x" * 998 + b"\r\n", "line 3 is longer than 998", id="folded-line-of-999"
        ),
        pytest.param(b"A:\r\n" * (FIELD_LIMIT + 1), "more than 1000 fields", id="1001-fields"),
        pytest.param(b"A: b\r\n" * (HEADER_LIMIT // 6 + 1), "longer than 262144 bytes", id="over-256-kb"),
    ],
)
def test_a_header_that_is_none_is_refused_with_the_number_of_the_line(header: bytes, reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        scan(header)


def test_the_limits_themselves_are_within_them() -> None:
    assert len(scan(b"A:\r\n" * FIELD_LIMIT)) == FIELD_LIMIT
    assert scan(b"A: " + b"x" * 995 + b"\r\n")[0].name == b"a"
    long_field = b"References: <a@b>\r\n" + b" <c@d>\r\n" * 1000
    assert scan(long_field) == [Field(b"references", long_field)]
    assert scan(b"") == []


def test_a_long_line_without_a_colon_takes_linear_time() -> None:
    started = time.perf_counter()
    with pytest.raises(HeaderError):
        scan(b"a" * 262_000)
    assert time.perf_counter() - started < 5  # milliseconds; once it was tried from every character, for 46 s


PIECES = st.sampled_from(
    [
        b"A: b\r\n",
        b"From",
        b":",
        b" ",
        b"\t",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"\xff",
        b"x",
        b"x" * 999,
        b"=?",
        b"a-b: ",
    ]
)


@given(st.one_of(st.binary(), st.lists(PIECES, max_size=12).map(b"".join)))
def test_any_bytes_are_scanned_without_loss_or_refused(content: bytes) -> None:
    header, body = split(content)
    assert (header + b"\r\n" + body).startswith(content)
    with contextlib.suppress(HeaderError):
        fields = scan(header)
        assert b"".join(field.raw for field in fields) == header
        for field in fields:
            assert field.raw[: len(field.name)].lower() == field.name
            assert b"\n" not in value(field)
            assert not has_control(decode_text(value(field)))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"plain", "plain", id="plain"),
        pytest.param("grün".encode(), "grün", id="raw-utf8"),
        pytest.param(b"gr\xfcn", "gr�n", id="raw-latin"),
        pytest.param(b"=?utf-8?q?gr=C3=BCn_hat?=", "grün hat", id="q"),
        pytest.param(b"=?UTF-8?B?Z3LDvG4=?= hat", "grün hat", id="b"),
        pytest.param(b"=?utf-8?b?Z3LDvG4?=", "grün", id="b-without-padding"),
        pytest.param(b"=?utf-8?b?Z?=", "", id="b-with-a-lone-character"),
        pytest.param(b"=?iso-8859-1?q?gr=FCn?=", "grün", id="latin"),
        pytest.param(b"=?iso-8859-1*de?q?gr=FCn?=", "grün", id="with-a-language"),
        pytest.param(b"=?utf-8?q?gr=C3?= =?utf-8?q?=BCn?=", "grün", id="character-split-between-words"),
        pytest.param(b"=?utf-8?q?a?= \t =?iso-8859-1?q?=FC?=", "aü", id="space-between-words-goes"),
        pytest.param(b"x =?utf-8?q?a?= y", "x a y", id="space-around-words-stays"),
        pytest.param(b"=?utf-8?q?a=ZZ?=", "a=ZZ", id="broken-escape"),
        pytest.param(b"=?utf-8?x?a?=", "=?utf-8?x?a?=", id="unknown-encoding"),
        pytest.param(b"=?idna?q?a?=", "=?idna?q?a?=", id="codec-that-is-no-charset"),
        pytest.param(b"=?unicode_escape?q?=5Cx41?=", "=?unicode_escape?q?=5Cx41?=", id="another"),
        pytest.param(b"=?gb-nonsense?q?a=FC?=", "a�", id="charset-that-python-lacks"),
        pytest.param(b"=?utf-8?q?a", "=?utf-8?q?a", id="no-end"),
        pytest.param(b"=?utf-8?q?a=0d=0aX-Inj:_1?=", "aX-Inj: 1", id="no-line-end-comes-out"),
        pytest.param(b"a\x07b\xc2\x85c\xe2\x80\xa8d", "abcd", id="no-control-comes-out"),
        pytest.param(b"x" * 5000, "x" * 998, id="bounded"),
    ],
)
def test_text_is_decoded_for_people(raw: bytes, text: str) -> None:
    assert decode_text(raw) == text


CHARSETS = st.sampled_from(
    ["utf-8", "utf-7", "utf-16", "iso-2022-jp", "hz", "cp037", "gb18030", "mac", "zlib", "idna", "ks"]
)


@given(CHARSETS, st.sampled_from("qQbB"), st.binary(max_size=60))
def test_any_encoded_word_decodes_to_text(charset: str, encoding: str, data: bytes) -> None:
    raw = b"=?%b?%b?%b?=" % (charset.encode(), encoding.encode(), data)
    assert isinstance(decode_words(raw), str)
    assert not has_control(decode_text(raw))
