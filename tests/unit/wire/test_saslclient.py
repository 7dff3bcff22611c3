"""Our side of AUTH."""

import pytest

from arkrelay.wire import saslclient


@pytest.mark.parametrize(
    ("offered", "encrypted", "chosen"),
    [
        ({"LOGIN", "PLAIN", "CRAM-MD5"}, True, "PLAIN"),
        ({"LOGIN", "PLAIN", "CRAM-MD5"}, False, "CRAM-MD5"),
        ({"LOGIN", "NTLM"}, True, "LOGIN"),
        ({"NTLM"}, True, None),
        (set(), False, None),
    ],
)
def test_the_mechanism_depends_on_tls(offered: set[str], encrypted: bool, chosen: str | None) -> None:
    assert saslclient.choose(offered, encrypted=encrypted) == chosen


def test_plain_is_one_response() -> None:
    assert saslclient.initial("PLAIN", "tim", "tanstaaftanstaaf") == b"\0tim\0tanstaaftanstaaf"
    assert saslclient.answer("PLAIN", 0, b"", "tim", "x") == b"\0tim\0x"
    assert saslclient.answer("PLAIN", 1, b"", "tim", "x") is None


def test_login_is_name_then_password() -> None:
    assert saslclient.initial("LOGIN", "tim", "x") is None
    assert [saslclient.answer("LOGIN", step, b"?", "tim", "x") for step in range(3)] == [b"tim", b"x", None]


def test_cram_md5_answers_the_example_of_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    wanted = b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert saslclient.answer("CRAM-MD5", 0, challenge, "tim", "tanstaaftanstaaf") == wanted
