"""The zone that a name lies in."""

import pytest

from arkrelay.policy.zones import zone_of


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("example.com", "example.com"),
        ("mail.example.com", "example.com"),
        ("a.b.c.example.com", "example.com"),
        ("example.co.uk", "example.co.uk"),
        ("mail.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("com", "com"),
        ("localhost", "localhost"),
        ("mx.unlisted.test", "unlisted.test"),
        ("mail.xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("", ""),
    ],
)
def test_the_zone_is_the_registrable_domain(name: str, zone: str) -> None:
    assert zone_of(name) == zone
