"""Records that ask for TLS reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.tlsrpt import MAX_RECEIVERS, parse_record


@pytest.mark.parametrize(
    ("texts", "receivers"),
    [
        (["v=TLSRPTv1;rua=mailto:reports@example.com"], ("reports@example.com",)),  # RFC 8460 §3's own examples
        (["v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"], ("https://reporting.example.com/v1/tlsrpt",)),
        (["v=TLSRPTv1; rua=mailto:a@x.test , https://y.test/z"], ("a@x.test", "https://y.test/z")),
        (["v=TLSRPTv1; x=y; rua=mailto:a%2Bb@x.test?subject=s"], ("a+b@x.test",)),
        (["other", "v=TLSRPTv1; rua=mailto:a@x.test"], ("a@x.test",)),
        (["v=TLSRPTv1; rua=MAILTO:a@x.test"], ("a@x.test",)),
        (["v=TLSRPTv1; rua=http://x.test/"], ()),
        (["v=TLSRPTv1; rua=mailto:a@x.test>,mailto:@"], ()),
        (["v=TLSRPTv1"], ()),
        (["v=TLSRPTv2; rua=mailto:a@x.test"], ()),
        (["v=TLSRPTv1; rua=mailto:a@x.test", "v=TLSRPTv1; rua=mailto:b@x.test"], ()),
        ([], ()),
    ],
)
def test_a_report_goes_where_the_only_record_says(texts: list[str], receivers: tuple[str, ...]) -> None:
    assert parse_record(texts) == receivers


def test_nobody_gets_a_report_sent_to_a_hundred_places() -> None:
    many = ",".join(f"mailto:a{n}@x.test" for n in range(100))
    assert len(parse_record([f"v=TLSRPTv1; rua={many}"])) == MAX_RECEIVERS


@given(st.text(max_size=200))
def test_whatever_a_record_says_there_is_no_line_end_in_a_receiver(text: str) -> None:
    for one in parse_record([f"v=TLSRPTv1; rua={text}", text]) + parse_record([f"v=TLSRPTv1; rua=mailto:{text}"]):
        assert "\r" not in one
        assert "\n" not in one
