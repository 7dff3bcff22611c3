"""Links, pixel and tokens: what is replaced, and that nothing else is."""

import base64
import binascii
import re
import time
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.leaves import DEPTH_LIMIT, PART_LIMIT
from arkrelay.mail.markup import read_html, read_text
from arkrelay.mail.tracking import LINKS, LinkTokens, Rewriting, TooMuch, Wishes, find
from arkrelay.mail.transfer import to_base64, to_quoted_printable

ALL = Wishes(opens=True, html_links=True, text_links=True, excluded=frozenset({"left.test"}))
LINKS_ONLY = Wishes(html_links=True, text_links=True, excluded=frozenset({"left.test"}))
SECRET = b"0123456789abcdef0123456789abcdef"


def never() -> bool:
    return False


def message(body: bytes, kind: bytes = b"text/html; charset=utf-8", more: bytes = b"") -> bytes:
    return b"From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n" + more + b"\r\n" + body


def render(rewriting: Rewriting) -> bytes:
    return rewriting.render("https://t.test/T/", "https://t.test/img/T/M", "L{}".format)


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def rewritten(body: bytes, kind: bytes = b"text/html; charset=utf-8", wishes: Wishes = LINKS_ONLY) -> bytes:
    content = message(body, kind)
    found = find(content, wishes, never)
    return body_of(content if found is None else render(found))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        pytest.param('<a href="http://x.test/?b=1&amp;c=2">', '<a href="https://t.test/T/L0">', id="double-quotes"),
        pytest.param("<A\nHREF='https://x.test'>", "<A\nHREF='https://t.test/T/L0'>", id="single-quotes"),
        pytest.param("<a href=http://x.test/y>z", "<a href=https://t.test/T/L0>z", id="no-quotes"),
        pytest.param("<a href = 'http://x.test/' >", "<a href = 'https://t.test/T/L0' >", id="spaces-around-equals"),
        pytest.param("<area href='http://x.test/'>", "<area href='https://t.test/T/L0'>", id="area"),
        pytest.param(
            "<a href='http://x.test/a'><a href='http://x.test/b'><a href='http://x.test/a'>",
            "<a href='https://t.test/T/L0'><a href='https://t.test/T/L1'><a href='https://t.test/T/L0'>",
            id="the-same-link-has-one-token",
        ),
        pytest.param(
            "<!--[if mso]><v:roundrect href='http://x.test/'><![endif]--><a href='http://y.test'>",
            "<!--[if mso]><v:roundrect href='https://t.test/T/L0'><![endif]--><a href='https://t.test/T/L1'>",
            id="what-outlook-reads",
        ),
        pytest.param(
            "<!--> <a href='http://x.test'> -->", "<!--> <a href='https://t.test/T/L0'> -->", id="empty-comment"
        ),
        pytest.param(
            "<script>'<a href=\"http://n.test\">'</script><a href='http://x.test'>",
            "<script>'<a href=\"http://n.test\">'</script><a href='https://t.test/T/L0'>",
            id="script",
        ),
        pytest.param("a < b <a href='http://x.test'>", "a < b <a href='https://t.test/T/L0'>", id="less-than"),
        pytest.param(
            "<p don't><a href='http://x.test'>", "<p don't><a href='https://t.test/T/L0'>", id="stray-quote"
        ),
        pytest.param("<a href='https+notrack://n.test/'>", "<a href='https://n.test/'>", id="notrack"),
        pytest.param(
            "<a href='http&#43;notrack://n.test/?a&b'>", "<a href='http://n.test/?a&amp;b'>", id="notrack-hid"
        ),
        pytest.param("ü<a href='http://x.test/ü'>ü", "ü<a href='https://t.test/T/L0'>ü", id="beyond-ascii"),
    ],
)
def test_a_link_in_html_leads_over_us(html: str, expected: str) -> None:
    assert rewritten(html.encode()).decode() == expected


@pytest.mark.parametrize(
    "html",
    [
        "<!-- <a href='http://x.test/'> -->",
        "<!-- > <a href='http://x.test/'> --!>",
        "<style><a href='http://x.test/'></style>",
        "<title><a href='http://x.test/'></title>",
        "<TEXTAREA><a href='http://x.test/'></textarea>",
        "<plaintext><a href='http://x.test/'></plaintext>",
        "<script><a href='http://x.test/'>",
        "<img alt=\"<a href='http://x.test/'>\">",
        "<base href='http://x.test/'><a href='y'>",
        "<link rel=stylesheet href='http://x.test/'>",
        "<a data-href='http://x.test/'>",
        "<a title=\"href='http://x.test/'\">",
        "<a href='' href='http://x.test/'>",
        "<a href><a name='http://x.test/'>",
        "<a href='mailto:a@b.test'><a href='tel:1'><a href='#f'><a href='/p'><a href='//x.test/'>",
        "<a href='javascript:alert(1)'><a href='data:text/html,x'><a href='ftp://x.test/'>",
        "<a href='http:\\\\x.test\\'><a href='http:/x.test'><a href='http:x.test'>",
        "<a href='http://us\N{LATIN SMALL LETTER U WITH DIAERESIS}.test/'>",
        "<a href='http://left.test/x'><a href='https://LEFT.test:444/'>",
        "<a href='http://x.test/",
        "<a href=\"<a href='http://x.test/'>",
        "<p title='<a href=http://x.test/>",
        "<a href='http://x.test/' ",
        "<?php <a href='http://x.test/' ?",
        "<a href='http://" + "x" * 9000 + ".test/'>",
        "<p>http://x.test/</p>",
    ],
)
def test_what_is_no_link_of_the_reader_stays(html: str) -> None:
    assert rewritten(html.encode()).decode() == html


@pytest.mark.parametrize(
    ("html", "url"),
    [
        ("http://x.test/?a=1&amp;b=2", "http://x.test/?a=1&b=2"),
        ("http://x.test/?a=1&b=2", "http://x.test/?a=1&b=2"),
        ("http://x.test/?a=1&section=2&copy=3&reg", "http://x.test/?a=1&section=2&copy=3%C2%AE"),
        ("http://x.test/?a&#38;b&#x26;c&nosuch;d&ampersand=1", "http://x.test/?a&b&c&nosuch;d&ampersand=1"),
        ("HTTP://X.test/P", "http://X.test/P"),
        (" http://x.test/a b\n", "http://x.test/a%20b"),
        ("http://x.test/a\r\nSet-Cookie: x", "http://x.test/aSet-Cookie:%20x"),
        ("http://x.test/&#10;&#13;&#0;x", "http://x.test/%EF%BF%BDx"),
        ("http://x.test/&quot;&gt;&lt;", "http://x.test/%22%3E%3C"),
        ("http://x.test/é?é#é", "http://x.test/%C3%A9?%C3%A9#%C3%A9"),
        ("http://u:p@x.test:81/", "http://u:p@x.test:81/"),
        ("http://[::1]/", "http://[::1]/"),
        ("http://x.test/?a=1&#00000038;b=2&#x000000026;c", "http://x.test/?a=1&b=2&c"),
    ],
)
def test_a_link_leads_where_a_browser_would_go_and_fits_a_header(html: str, url: str) -> None:
    found = find(message(f'<a href="{html}">'.encode()), LINKS_ONLY, never)
    assert found is not None
    assert found.urls == (url,)
    assert re.fullmatch(r"[!-~]+", url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://x.test/a. And", "see https://t.test/T/L0. And"),
        ("(https://x.test/a_(b)).", "(https://t.test/T/L0)."),
        ("[read](https://x.test/a) now", "[read](https://t.test/T/L0) now"),
        ("<https://x.test/>", "<https://t.test/T/L0>"),
        ("https://x.test", "https://t.test/T/L0"),
        ("xhttp://x.test ftp://x.test http://left.test/ mailto:a@x.test", None),
        ("http+notrack://x.test/", "http://x.test/"),
        ("http:// http://. http://\r\n", None),
        (
            "https+notrack://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test/",
            "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test/",
        ),
        # where it is not plain that it ends, it stays
        ("詳細はhttps://x.test/saleをご覧ください。", None),
        ("https://ja.test/wiki/東京", None),
        ("https://x.test/a\u2014and then", None),
        ("https://x.test/?x={y}", None),
        ("[url=https://x.test/a]https://x.test/a[/url]", None),
        ("https://x.test/a[b", None),
        ("詳細は https://x.test/sale。", "詳細は https://t.test/T/L0。"),
        ("\u201chttps://x.test/a\u201d said", "\u201chttps://t.test/T/L0\u201d said"),
        ("https://x.test/a\u2026 https://x.test/a\u200b", "https://t.test/T/L0\u2026 https://t.test/T/L0\u200b"),
        ("https://x.test/a\u00a0b", "https://t.test/T/L0\u00a0b"),
        # a label of Markdown stays, and where it leads does not
        (
            "[https://x.test/a](https://y.test/c)[b](https://z.test)",
            "[https://x.test/a](https://t.test/T/L0)[b](https://t.test/T/L1)",
        ),
        ("`https://x.test/a` | https://x.test/a|", "`https://t.test/T/L0` | https://t.test/T/L0|"),
        ("https://x.test/?h=Zm9v_ https://x.test/?q=*", "https://t.test/T/L0 https://t.test/T/L1"),
        (
            "*https://x.test/a* **https://x.test/a**, _https://x.test/a_",
            "*https://t.test/T/L0* **https://t.test/T/L0**, _https://t.test/T/L0_",
        ),
        ("<a href='http://x.test/'>", "<a href='https://t.test/T/L0'>"),
    ],
)
def test_a_bare_url_in_text_leads_over_us(text: str, expected: str | None) -> None:
    assert rewritten(text.encode(), b"text/plain") == (text if expected is None else expected).encode()


@pytest.mark.parametrize(
    "more",
    [b"", b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: base64\r\n"],
)
def test_a_part_is_written_as_it_was_encoded(more: bytes) -> None:
    text = "Zeile eins é = 1\r\n<a href='http://x.test/?a=1'>é</a> \r\n".encode()
    encoders = {b"b": to_base64, b"q": to_quoted_printable}
    encode = next((encoders[key] for key in encoders if b": " + key in more), bytes)
    found = find(message(encode(text), more=more), LINKS_ONLY, never)
    assert found is not None
    body = body_of(render(found))
    decoded = {b"": body, b"q": binascii.a2b_qp(body), b"b": binascii.a2b_base64(body) if b"base64" in more else b""}
    kind = more.partition(b": ")[2][:1]
    assert decoded[kind] == text.replace(b"http://x.test/?a=1", b"https://t.test/T/L0")
    assert max(map(len, body.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (b"text/html; charset=utf-16", b""),
        (b"text/html; charset=utf-7", b""),
        (b"text/html; charset=iso-2022-jp", b""),
        (b"text/html; charset=shift_jis", b""),
        (b"text/html; charset=x-unknown", b""),
        (b"text/html", b"Content-Transfer-Encoding: x-uuencode\r\n"),
        (b"text/html", b"Content-Disposition: attachment\r\n"),
        (b"text/html", b"Content-Disposition: inline; filename=a.html\r\n"),
        (b"text/html; name=a.html", b""),
        (b"text/plain; format=flowed; delsp=yes", b""),
        (b"text/html (hi); charset=shift_jis", b""),
        (b"text/html; charset=(hi) shift_jis", b""),
        (b"text/html; name*0=a; name*1=.html", b""),
        (b"text/html", b"Content-Disposition: inline (hi); filename*=utf-8''a.html\r\n"),
        (b"text/calendar", b""),
        (b"application/pkcs7-mime", b""),
        (b"application/pgp-encrypted", b""),
        (b"message/rfc822", b""),
    ],
)
def test_what_is_not_understood_is_left_alone(kind: bytes, more: bytes) -> None:
    assert find(message(b"<a href='http://x.test/'>http://x.test/", kind, more), ALL, never) is None


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (b'text/html; x="(hi"; charset=utf-8', b""),
        (b"text/html; charset=euc-kr", b""),
        (b"text/html; charset=gb2312", b""),
        (b"text/html", b'Content-Disposition: inline; creation-date="filename x"\r\n'),
    ],
)
def test_what_is_understood_is_not(kind: bytes, more: bytes) -> None:
    assert find(message(b"<a href='http://x.test/'>", kind, more), ALL, never) is not None


def test_text_that_somebody_signed_is_left_alone() -> None:
    signed = (
        b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\nhttps://x.test/\r\n"
        b"-----BEGIN PGP SIGNATURE-----\r\n\r\nAAAA\r\n-----END PGP SIGNATURE-----\r\n"
    )
    for text in (signed, b"Look:\r\n\r\n" + signed):
        assert find(message(text, b"text/plain"), ALL, never) is None
        encoded = message(to_base64(text), b"text/plain", b"Content-Transfer-Encoding: base64\r\n")
        assert find(encoded, ALL, never) is None


def test_blanks_that_a_gateway_put_behind_a_soft_line_break_are_no_text() -> None:
    body = b"<a href=3D'http://x.test/a=  \r\nb'>eins =\t\r\nzwei</a>"
    found = find(message(body, more=b"Content-Transfer-Encoding: quoted-printable\r\n"), ALL, never)
    assert found is not None
    assert found.urls == ("http://x.test/ab",)
    assert b">eins zwei</a>" in binascii.a2b_qp(body_of(render(found)))


@pytest.mark.parametrize("kind", [b"multipart/signed", b"multipart/encrypted"])
def test_nothing_inside_a_seal_changes(kind: bytes) -> None:
    inner = b'--i\r\nContent-Type: text/html\r\n\r\n<a href="http://x.test/">\r\n--i--\r\n'
    sealed = b"--o\r\nContent-Type: " + kind + b"; boundary=i\r\n\r\n" + inner
    outer = sealed + b'\r\n--o\r\nContent-Type: text/html\r\n\r\n<a href="http://y.test/">\r\n--o--\r\n'
    found = find(message(outer, b"multipart/mixed; boundary=o"), ALL, never)
    assert found is not None
    assert found.urls == ("http://y.test/",)
    assert sealed in render(found)


def test_there_is_one_pixel_before_the_end_of_the_first_body() -> None:
    parts = b"".join(b"--b\r\nContent-Type: text/html\r\n\r\n<body>%d</BODY >\r\n" % number for number in range(2))
    found = find(message(parts + b"--b--\r\n", b"multipart/mixed; boundary=b"), ALL, never)
    assert found is not None
    content = render(found)
    assert content.count(b"/img/") == 1
    assert re.search(rb"<body>0\r\n<div [^>]*><img [^>]*></div>\r\n</BODY >", content)


def test_html_without_a_body_has_the_pixel_at_its_end() -> None:
    assert rewritten(b"<p>x", wishes=ALL).startswith(b"<p>x\r\n<div")
    assert rewritten(b"<p>x<!-- </body> -->", wishes=ALL).startswith(b"<p>x<!-- </body> -->\r\n<div")


def test_text_has_no_pixel() -> None:
    assert find(message(b"hello", b"text/plain"), ALL, never) is None


def test_without_wishes_only_the_scheme_that_nobody_knows_goes() -> None:
    html = b"<a href='http+notrack://n.test/'><a href='http://x.test/'></body>"
    assert rewritten(html, wishes=Wishes()) == html.replace(b"+notrack", b"")


def test_a_line_that_grew_too_long_is_encoded() -> None:
    html = b"<p>" + b"<a href='http://x.test/'>" * 39 + b"</p>\r\n"
    assert len(html) < 998
    found = find(message(html), LINKS_ONLY, never)
    assert found is not None
    content = found.render("https://track.example.com/12345678/", "", lambda _: "0123456789abcdef")
    assert b"Content-Transfer-Encoding: quoted-printable" in content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    expected = html.replace(b"http://x.test/", b"https://track.example.com/12345678/0123456789abcdef")
    assert binascii.a2b_qp(body_of(content)) == expected


def test_a_message_from_before_mime_becomes_mime_where_its_lines_have_no_room() -> None:
    text = b"http://x.test/ = " * 58
    found = find(b"From: a@b.test\r\n\r\n" + text, ALL, never)
    assert found is not None
    content = found.render("https://a-rather-long-track-host.test/12345678/", "", lambda _: "0123456789abcdef")
    shown = message_from_bytes(content, policy=SMTP)
    assert shown["MIME-Version"] == "1.0"
    link = "https://a-rather-long-track-host.test/12345678/0123456789abcdef"
    assert shown.get_content() == text.decode().replace("http://x.test/", link)
    found = find(b"From: a@b.test\r\n\r\nhttp://x.test/", ALL, never)
    assert found is not None
    assert render(found) == b"From: a@b.test\r\n\r\nhttps://t.test/T/L0", "otherwise it stays what it is"


def test_too_many_parts_or_levels_or_too_much_time_is_told() -> None:
    wide = b"--b\r\n\r\nx\r\n" * (PART_LIMIT + 1)
    with pytest.raises(TooMuch):
        find(message(wide, b"multipart/mixed; boundary=b"), ALL, never)
    deep = b"".join(
        b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (number, number + 1)
        for number in range(DEPTH_LIMIT + 2)
    )
    with pytest.raises(TooMuch):
        find(message(deep, b"multipart/mixed; boundary=b0"), ALL, never)
    with pytest.raises(TooMuch):
        find(message(b"<a href='http://x.test/'>"), ALL, lambda: True)


@pytest.mark.parametrize(
    "piece",
    [
        b"<a ",
        b'<a x="',
        b"<a x='\"",
        b"<!--",
        b"<",
        b"<script>",
        b"<title><a>",
        b"<!",
        b"</ ",
        b"<a a=",
        b"http://x ",
    ],
)
def test_reading_takes_time_in_proportion_to_length(piece: bytes) -> None:
    """2 MB of what makes a careless expression start again from every place."""
    for kind in (b"text/html", b"text/plain"):
        began = time.perf_counter()
        find(message(piece * (2_000_000 // len(piece)), kind), ALL, never)
        assert time.perf_counter() - began < 5


def test_ten_megabytes_with_50_000_links_are_rewritten() -> None:
    row = b'<p style="a:b">text</p><a class="c" href="http://x.test/%d?a=1&amp;b=2">link</a> ' + b"x" * 110 + b"\r\n"
    content = message(b"".join(row % number for number in range(50_000)))
    found = find(content, ALL, never)
    assert found is not None
    assert len(found.urls) == 50_000
    assert render(found).count(b"https://t.test/T/L") == 50_000


LEAVE = "https://relay.test/u/u1"
LEAVE_ONLY = Wishes(leave=True)
LEAVE_AND_LINKS = Wishes(html_links=True, text_links=True, leave=True)


@pytest.mark.parametrize("wishes", [LEAVE_ONLY, LEAVE_AND_LINKS])
@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        pytest.param("html", '<a href="{{unsubscribe_url}}">x</a>', f'<a href="{LEAVE}">x</a>', id="link"),
        pytest.param("html", "<a href={{unsubscribe_url}}>x</a>", f"<a href={LEAVE}>x</a>", id="no-quotes"),
        pytest.param("html", '<a href="{{ unsubscribe_url }}">x</a>', f'<a href="{LEAVE}">x</a>', id="spaces"),
        pytest.param("html", '<a href="%7B%7Bunsubscribe_url%7D%7D">', f'<a href="{LEAVE}">', id="percent-encoded"),
        pytest.param("html", '<a href="%7b%7b%20unsubscribe_url%20%7d%7d">', f'<a href="{LEAVE}">', id="with-spaces"),
        pytest.param("html", '<a href="http://{{unsubscribe_url}}">', f'<a href="{LEAVE}">', id="editor's-http"),
        pytest.param("html", '<a href="{{{ pm:unsubscribe }}}">x</a>', f'<a href="{LEAVE}">x</a>', id="postmark"),
        pytest.param("plain", "Leave: {{unsubscribe_url}}.", f"Leave: {LEAVE}.", id="text"),
        pytest.param("plain", "{{unsubscribe_url}} {{unsubscribe_url}}", f"{LEAVE} {LEAVE}", id="twice"),
        pytest.param("plain; format=flowed; delsp=yes", "<{{unsubscribe_url}}>", f"<{LEAVE}>", id="flowed"),
        pytest.param("html", "{{unsubscribe}}{unsubscribe_url}", "{{unsubscribe}}{unsubscribe_url}", id="another's"),
    ],
)
def test_a_placeholder_becomes_the_address_to_unsubscribe_at(
    kind: str, body: str, expected: str, wishes: Wishes
) -> None:
    content = message(body.encode(), f"text/{kind}; charset=utf-8".encode())
    found = find(content, wishes, never)
    written = content if found is None else found.render("https://t.test/T/", "", "L{}".format, LEAVE)
    assert body_of(written).decode() == expected
    assert find(content, LINKS_ONLY, never) is None, "nobody can unsubscribe, so it says nothing"


@pytest.mark.parametrize("kind", ["plain", "html"])
def test_a_link_that_holds_a_placeholder_leads_where_it_says(kind: str) -> None:
    text = "https://x.test/a https://x.test/?back={{unsubscribe_url}} https://x.test/b"
    expected = f"https://t.test/T/L0 https://x.test/?back={LEAVE} https://t.test/T/L1"
    if kind == "html":
        text, expected = (re.sub("(https[^ ]+)", r"<a href='\1'>", one) for one in (text, expected))
    found = find(message(text.encode(), f"text/{kind}".encode()), LEAVE_AND_LINKS, never)
    assert found is not None
    assert found.urls == ("https://x.test/a", "https://x.test/b")
    assert body_of(found.render("https://t.test/T/", "", "L{}".format, LEAVE)).decode() == expected


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_placeholder_is_found_in_an_encoded_part(encoding: str) -> None:
    text = (b"<p>long enough to be wrapped where it would hurt: </p>" * 2 + b"<a href='{{unsubscribe_url}}'>") * 30
    body = to_base64(text) if encoding == "base64" else to_quoted_printable(text)
    content = message(body, b"text/html; charset=utf-8", f"Content-Transfer-Encoding: {encoding}\r\n".encode())
    found = find(content, LEAVE_ONLY, never)
    assert found is not None
    written = message_from_bytes(found.render("", "", str, LEAVE), policy=SMTP)
    assert written.get_payload(decode=True) == text.replace(b"{{unsubscribe_url}}", LEAVE.encode())


def test_many_placeholders_among_many_links_take_no_square_of_time() -> None:
    row = b"https://x.test/%d {{unsubscribe_url}} "
    began = time.perf_counter()
    found = find(message(b"".join(row % number for number in range(50_000)), b"text/plain"), LEAVE_AND_LINKS, never)
    assert time.perf_counter() - began < 5
    assert found is not None
    assert len(found.urls) == 50_000


def test_links_beyond_what_a_token_can_say_stay() -> None:
    html = b"".join(b'<a href="http://x.test/%d">\r\n' % number for number in range(LINKS + 5))
    found = find(message(html), LINKS_ONLY, never)
    assert found is not None
    assert len(found.urls) == LINKS
    assert render(found).count(b"http://x.test/") == 5


_HTML = st.lists(
    st.sampled_from(
        [
            b"<a href='",
            b'<a href="',
            b"<a href=",
            b"http://x.test/",
            b"'>",
            b'">',
            b">",
            b"</a>",
            b"<!--",
            b"-->",
            b"<script>",
            b"</script>",
            b"</body>",
            b"<",
            b"&amp;",
            b" ",
            b"\r\n",
            b"x",
            b"\xc3\xbc",
            b"=",
        ]
    ),
    max_size=40,
).map(b"".join)


@given(_HTML, st.sampled_from([b"text/html", b"text/plain"]))
def test_nothing_but_links_and_pixel_differs(html: bytes, kind: bytes) -> None:
    found = find(message(html, kind), Wishes(opens=True, html_links=True, text_links=True), never)
    if found is None:
        return
    back = re.sub(rb"\r\n<div style=[^>]*><img [^>]*></div>\r\n", b"", body_of(render(found)), count=1)
    markup = read_html(html, "utf-8", never)
    links = read_text(html, "utf-8", never) if kind == b"text/plain" else markup.links if markup else []
    rest, position = b"", 0
    for link in links or []:
        rest += html[position : link.start]
        position = link.end
    assert re.sub(rb"https://t\.test/T/L\d+", b"", back) == rest + html[position:]


@given(st.binary(max_size=300))
def test_no_message_surprises_it(tail: bytes) -> None:
    for head in (b"", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"MIME-Version: 1.0\r\n\r\n"):
        try:
            found = find(head + tail, ALL, never)
        except TooMuch:
            continue
        if found is not None:
            render(found)


def test_a_token_is_read_by_its_own_tenant_and_secret_alone() -> None:
    tokens = LinkTokens(SECRET)
    token = tokens.link("acme", 12_345, 7)
    assert re.fullmatch(r"[A-Za-z0-9_-]{16}", token)
    assert tokens.parse("acme", token) == (12_345, 7)
    for behind in ("_", "*", ").", "\N{RIGHT DOUBLE QUOTATION MARK}", "'"):
        assert tokens.parse("acme", token + behind) == (12_345, 7), "a program took it along"
    for behind in ("A", "/", "_A", "\r\n", "\0", "." * 9):
        assert tokens.parse("acme", token + behind) is None
    assert tokens.parse("other", token) is None
    assert LinkTokens(SECRET[::-1]).parse("acme", token) is None
    assert tokens.tenant("acme") != tokens.tenant("other")
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}", tokens.tenant("acme"))


@given(st.integers(0, 2**40 - 1), st.integers(0, LINKS), st.integers(0, 95))
def test_a_token_with_a_bit_changed_is_none(recipient_id: int, place: int, bit: int) -> None:
    tokens = LinkTokens(SECRET)
    token = tokens.link("acme", recipient_id, place)
    assert tokens.parse("acme", token) == (recipient_id, place)
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[bit // 8] ^= 1 << bit % 8
    assert tokens.parse("acme", base64.urlsafe_b64encode(raw).decode()) is None


@pytest.mark.parametrize("token", ["", "short", "x" * 17, "ä" * 16, "=" * 16, "a" * 15 + "\n", "../../etc/passwd"])
def test_what_is_no_token_is_none(token: str) -> None:
    assert LinkTokens(SECRET).parse("acme", token) is None


def test_a_secret_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        LinkTokens(b"short")


_TEXTS = st.sampled_from(
    [
        "Hello.\n",
        "Read http://x.test/a now.\n",
        "é http://x.test/b\n" * 30,
        "<p><a href='http://x.test/c'>é</a></p>\n",
        "<html><body>" + "<a href='http://x.test/d?e=1&amp;f=2'>x</a>\n" * 20 + "</body></html>\n",
    ]
)
_LEAVES = st.tuples(
    st.sampled_from(["plain", "html", "attached", "image"]),
    _TEXTS,
    st.sampled_from(["utf-8", "iso-8859-1"]),
    st.sampled_from(["7bit", "8bit", "quoted-printable", "base64"]),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.tuples(
        st.sampled_from(["mixed", "alternative", "related"]), st.lists(inner, min_size=1, max_size=4)
    ),
)


def _built(tree: Any) -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    if len(tree) == 2:
        made["Content-Type"] = f"multipart/{tree[0]}"
        for one in tree[1]:
            made.attach(_built(one))
        return made
    kind, text, charset, encoding = tree
    if kind == "image":
        made.set_content(text.encode(), "image", "png")
        return made
    if not text.isascii() and encoding == "7bit":
        encoding = "quoted-printable"
    made.set_content(text, "plain" if kind == "plain" else "html", charset=charset, cte=encoding)
    if kind == "attached":
        made["Content-Disposition"] = "attachment"
    return made


@given(_TREES)
def test_another_parser_sees_the_same_message_with_other_links(tree: Any) -> None:
    message = _built(tree)
    message["From"] = "a@b.test"
    content = message.as_bytes(policy=SMTP)
    found = find(content, LINKS_ONLY, never)
    if found is None:
        return
    before = message_from_bytes(content, policy=SMTP)
    after = message_from_bytes(render(found), policy=SMTP)
    changed = 0
    for old, new in zip(before.walk(), after.walk(), strict=True):
        assert old.items() == new.items()
        if old.is_multipart():
            assert old.preamble == new.preamble
            continue
        was, now = old.get_payload(decode=True), new.get_payload(decode=True)
        assert isinstance(was, bytes)
        assert isinstance(now, bytes)
        back = now
        for place in reversed(range(len(found.urls))):
            back = back.replace(b"https://t.test/T/L%d" % place, found.urls[place].encode())
        if old.get_content_type() == "text/html":
            was, back = was.replace(b"&amp;", b"&"), back.replace(b"&amp;", b"&")
        assert back == was
        tracked = b"https://t.test/" in now
        changed += tracked
        if old.get_content_disposition() == "attachment" or old.get_content_maintype() == "image":
            assert not tracked
    assert changed
