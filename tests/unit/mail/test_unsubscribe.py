"""Tokens of unsubscription: nobody else can make one, and each is good for one thing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.simulated import render_bounce, render_complaint
from arkrelay.mail.unsubscribe import UnsubscribeTokens, render_fields

TOKENS = UnsubscribeTokens(b"0123456789abcdef")


@given(st.integers(0, 2**63 - 1), st.text(max_size=20))
def test_a_token_proves_what_it_was_made_for(recipient_id: int, stream: str) -> None:
    token = TOKENS.make("acme", recipient_id, stream)
    assert re.fullmatch(r"u[0-9a-f]{42}", token)
    assert TOKENS.recipient_of(token.upper()) == recipient_id
    assert TOKENS.proves(token.upper(), "acme", recipient_id, stream)


@pytest.mark.parametrize(
    ("tenant_id", "recipient_id", "stream"),
    [("other", 7, "news"), ("acme", 8, "news"), ("acme", 7, ""), ("acme", 7, "new"), ("acm", 7, "enews")],
)
def test_a_token_proves_nothing_else(tenant_id: str, recipient_id: int, stream: str) -> None:
    token = TOKENS.make("acme", 7, "news")
    assert not TOKENS.proves(token, tenant_id, recipient_id, stream)
    assert not UnsubscribeTokens(b"fedcba9876543210").proves(token, "acme", 7, "news")


@pytest.mark.parametrize("token", ["", "u", "b" + "0" * 42, "u" + "0" * 41, "u" + "0" * 43, "u" + "f" * 42, "ü" * 43])
def test_what_is_no_token_names_nobody(token: str) -> None:
    assert TOKENS.recipient_of(token) is None


def test_the_fields_are_those_of_the_standards() -> None:
    assert render_fields("https://x.test/u/1", "u1@rp.test", one_click=True).decode() == (
        "List-Unsubscribe: <https://x.test/u/1>,\r\n\t<mailto:u1@rp.test?subject=unsubscribe>\r\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    )
    assert b"mailto" not in render_fields("https://x.test/u/1", "", one_click=True)
    assert render_fields("https://x.test/u/1", "", one_click=False) == b"List-Unsubscribe: <https://x.test/u/1>\r\n"


def test_a_secret_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        UnsubscribeTokens(b"short")


def test_simulated_reports_say_which_recipient() -> None:
    for render, kind in ((render_bounce, b"delivery-status"), (render_complaint, b"feedback-report")):
        report = render("b12@rp.test", "bounce@s.test", "<1@x.test>", 0.0)
        assert b"report-type=" + kind in report
        assert b"Content-Type: message/" + kind in report
        assert b"bounce@s.test" in report
        assert b"To: <b12@rp.test>" in report
        assert b"\n" not in report.replace(b"\r\n", b"")
