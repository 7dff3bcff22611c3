"""Who asks, by what our own proxies saw and nobody else."""

import pytest

from arkrelay.web.client import client_of

TRUSTED = ("127.0.0.0/8", "10.0.0.1/32")


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        pytest.param("203.0.113.1", ["192.0.2.9"], "203.0.113.1", id="a-stranger-is-not-believed"),
        pytest.param("127.0.0.1", [], "127.0.0.1", id="nothing-said"),
        pytest.param("127.0.0.1", ["192.0.2.9"], "192.0.2.9", id="one-proxy"),
        pytest.param("127.0.0.1", ["6.6.6.6, 192.0.2.9"], "192.0.2.9", id="what-the-client-said-itself"),
        pytest.param("127.0.0.1", ["6.6.6.6", "192.0.2.9"], "192.0.2.9", id="two-fields"),
        pytest.param("127.0.0.1", ["192.0.2.9, 10.0.0.1"], "192.0.2.9", id="two-proxies"),
        pytest.param("127.0.0.1", ["10.0.0.1"], "10.0.0.1", id="a-proxy-itself"),
        pytest.param("127.0.0.1", ["192.0.2.9, rubbish"], "127.0.0.1", id="rubbish"),
        pytest.param("", ["2001:DB8::1"], "2001:db8::1", id="unix-socket"),
    ],
)
def test_a_client_is_whom_a_trusted_hop_saw(remote: str, forwarded: list[str], client: str) -> None:
    assert client_of(remote, forwarded, TRUSTED) == client
