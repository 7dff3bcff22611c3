"""Parameters of MAIL and RCPT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.errors import Refused
from arkrelay.smtpd.parameters import MailParameters, RcptParameters, parse_mail, parse_rcpt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MailParameters()),
        ("SIZE=1000", MailParameters(size_bytes=1000)),
        ("size=0  body=8bitmime", MailParameters(body="8BITMIME")),
        ("BODY=7BIT SMTPUTF8", MailParameters(smtputf8=True)),
        ("RET=hdrs ENVID=QQ314159+2B", MailParameters(ret="HDRS", envid="QQ314159+2B")),
        ("BY=120;R", MailParameters(by=(120, "R"))),
        ("by=+000000120;rt", MailParameters(by=(120, "R"))),
        ("BY=-120;N", MailParameters(by=(-120, "N"))),
        ("AUTH=<>", MailParameters()),
        ("AUTH=e+3Dmc2@example.com", MailParameters()),
    ],
)
def test_known_parameters_of_mail(text: str, expected: MailParameters) -> None:
    assert parse_mail(text) == expected


def test_requiretls_is_taken_where_it_is_offered() -> None:
    assert parse_mail("SIZE=1 requiretls", requiretls=True) == MailParameters(size_bytes=1, requiretls=True)
    with pytest.raises(Refused, match="not offered"):
        parse_mail("REQUIRETLS")
    with pytest.raises(Refused, match="takes no value"):
        parse_mail("REQUIRETLS=yes", requiretls=True)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=1 SIZE=2", 501),
        ("SIZE=1 size=1", 501),
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=+1", 501),
        ("SIZE=1a", 501),
        ("SIZE=" + "9" * 21, 501),
        ("BODY=BINARYMIME", 501),
        ("BODY", 501),
        ("SMTPUTF8=1", 501),
        ("RET=ALL", 501),
        ("RET", 501),
        ("ENVID=" + "x" * 101, 501),
        ("ENVID=a+0D+0Ab", 501),
        ("ENVID=a+b", 501),
        ("ENVID=a+2b", 501),
        ("ENVID=a=b", 501),
        ("AUTH", 501),
        ("AUTH=" + "x" * 501, 501),
        ("MT-PRIORITY=3", 555),
        ("BY=0;R", 501),
        ("BY=-5;R", 501),
        ("BY=120", 501),
        ("BY=120;X", 501),
        ("BY=;R", 501),
        ("BY=1234567890;R", 501),
        ("BY", 501),
        ("REQUIRETLS", 555),
        ("NOTIFY=NEVER", 555),
        ("=1", 501),
        ("@", 501),
    ],
)
def test_malformed_parameters_of_mail_are_refused_by_name(text: str, code: int) -> None:
    with pytest.raises(Refused) as caught:
        parse_mail(text)
    assert (caught.value.code, caught.value.enhanced) == (code, "5.5.4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", RcptParameters()),
        ("NOTIFY=never", RcptParameters(notify="NEVER")),
        ("NOTIFY=success,FAILURE,Delay", RcptParameters(notify="SUCCESS,FAILURE,DELAY")),
        ("ORCPT=rfc822;Ann+2BTag@Dest.Test", RcptParameters(orcpt="rfc822;Ann+2BTag@Dest.Test")),
    ],
)
def test_known_parameters_of_rcpt_keep_the_case_of_xtext(text: str, expected: RcptParameters) -> None:
    assert parse_rcpt(text) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOTIFY=NEVER,SUCCESS", 501),
        ("NOTIFY=SUCCESS,SUCCESS", 501),
        ("NOTIFY=SOMETIMES", 501),
        ("NOTIFY=,", 501),
        ("NOTIFY", 501),
        ("ORCPT=ann@dest.test", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc822;a+00b", 501),
        ("ORCPT=rfc822;" + "x" * 500, 501),
        ("NOTIFY=NEVER NOTIFY=NEVER", 501),
        ("SIZE=1", 555),
    ],
)
def test_malformed_parameters_of_rcpt_are_refused(text: str, code: int) -> None:
    with pytest.raises(Refused) as caught:
        parse_rcpt(text)
    assert (caught.value.code, caught.value.enhanced) == (code, "5.5.4")


def test_dsn_parameters_are_unknown_where_dsn_is_not_offered() -> None:
    for parse, text in (
        (parse_mail, "RET=FULL"),
        (parse_mail, "ENVID=x"),
        (parse_mail, "BY=9;R"),
        (parse_rcpt, "NOTIFY=NEVER"),
    ):
        with pytest.raises(Refused) as caught:
            parse(text, dsn=False)
        assert caught.value.code == 555


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_mail, parse_rcpt):
        code = 250
        try:
            parse(text)
        except Refused as refused:
            code = refused.code
        assert code in (250, 501, 555)
