"""What the page shows of an address, and which paths are its own."""

import pytest

from arkrelay.web.unsubscribe import token_of, veiled


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("john.smith@example.com", "jo•••@example.com"),
        ("abc@example.com", "a•••@example.com"),
        ("a@example.com", "•••@example.com"),
        ('"a@b"@example.com', '"a•••@example.com'),
    ],
)
def test_an_address_is_shown_as_its_owner_knows_it(address: str, shown: str) -> None:
    assert veiled(address) == shown


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/u/abc", "abc"),
        ("/mail/u/u" + "0" * 42, "u" + "0" * 42),
        ("/mail/u/U" + "0A" * 21, "U" + "0A" * 21),
        ("/mail/u/abc", None),
        ("/v1/tenants/u/credentials", None),
        ("/tenants/u/webhooks", None),
        ("/u/", ""),
        ("/u", None),
        ("/", None),
        ("", None),
        ("/u/abc/", None),
        ("/v1/emails/u", None),
    ],
)
def test_a_token_stands_behind_u(path: str, token: str | None) -> None:
    assert token_of(path) == token
