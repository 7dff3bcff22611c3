"""Our Received field: well formed, and silent about the client."""

import email.utils
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.header import scan
from arkrelay.mail.intake import render_received
from arkrelay.mail.trace import render_date

AT = 1_700_000_000.0
SHAPE = re.compile(
    rb"Received: (?:from [A-Za-z0-9.-]+ )?by mail\.relay\.test\r\n\twith ESMTPSA id tok"
    rb"(?:\r\n\tfor <[^\s<>]+>)?;\r\n\tTue, 14 Nov 2023 22:13:20 \+0000\r\n"
)


def test_the_field_names_host_protocol_id_and_time() -> None:
    assert render_received("client.test", "mail.relay.test", "ESMTPSA", "tok", AT, "a@y.test") == (
        b"Received: from client.test by mail.relay.test\r\n\twith ESMTPSA id tok\r\n\tfor <a@y.test>;"
        b"\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
    )
    assert render_received("", "mail.relay.test", "HTTP", "tok", AT).startswith(
        b"Received: by mail.relay.test\r\n\twith HTTP"
    )


@pytest.mark.parametrize(
    "helo", ["[192.0.2.1]", "192.0.2.1", "[IPv6:2001:db8::1]", "a b", "x_y", "x\r\nBcc: a", "ü.test"]
)
def test_a_helo_that_is_an_address_or_no_name_is_unknown(helo: str) -> None:
    assert b"from unknown by" in render_received(helo, "mail.relay.test", "ESMTPSA", "tok", AT)


@given(st.text(), st.one_of(st.none(), st.text()))
def test_hostile_text_cannot_leave_its_place(helo: str, recipient: str | None) -> None:
    field = render_received(helo, "mail.relay.test", "ESMTPSA", "tok", AT, recipient)
    if field.isascii():
        assert SHAPE.fullmatch(field)
    assert [item.name for item in scan(field)] == [b"received"]


def test_hostile_text_from_elsewhere_becomes_unknown() -> None:
    assert render_received("", "a;b", "x y", "\r\n", AT).startswith(
        b"Received: by unknown\r\n\twith unknown id unknown;"
    )


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_a_date_reads_back_as_the_same_second(at: int) -> None:
    assert email.utils.parsedate_to_datetime(render_date(at)).timestamp() == at
