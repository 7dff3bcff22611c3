"""Line ends of a message that came by REST."""

import pytest

from arkrelay.api.raw import canonical
from arkrelay.mail.header import HeaderError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (b"A: b\r\n\r\nx\r\n", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\r\n\nx", b"A: b\r\n\r\nx\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_line_ends_become_crlf(given: bytes, wanted: bytes) -> None:
    assert canonical(given) == wanted


@pytest.mark.parametrize("given", [b"A: b\r\r\nx", b"A: b\rB: c\r\n\r\n", b"A: b\r\n\r\n\0\r\n"])
def test_bare_cr_and_nul_are_refused(given: bytes) -> None:
    with pytest.raises(HeaderError):
        canonical(given)
