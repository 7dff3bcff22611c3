"""Postfix as a host that demands TLS: by DANE, proved by a real resolver, and by MTA-STS."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from peers import certificates
from peers.daemon import Relay
from peers.mx import closed_port
from peers.policyhost import PolicyHost, policy
from peers.postfix import DOMAINS, Postfix
from peers.unbound import Unbound

DOMAIN = "full.test"
HOST = f"mx.{DOMAIN}"
WEB = f"mta-sts.{DOMAIN}"


@pytest.mark.parametrize(
    ("way", "status", "policy_shown"),
    [
        ("dane", "sent", "dane"),
        ("sts", "sent", "mta-sts"),
        ("dane-wrong", "softfail", None),
        ("sts-wrong", "softfail", None),
    ],
)
@pytest.mark.timeout(60)
async def test_postfix_gets_mail_when_its_certificate_is_the_one_that_was_promised(
    need: Callable[[str], Path], tmp_path: Path, way: str, status: str, policy_shown: str | None
) -> None:
    need("postfix")
    program = need("unbound")
    if os.geteuid() != 0:
        pytest.skip("Postfix needs root")
    wrong = way.endswith("wrong")
    pair = certificates.authority().issue("elsewhere.test" if way == "sts-wrong" else HOST, self_signed="dane" in way)
    port = closed_port()
    key = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    records = [(DOMAIN, "MX", f"10 {HOST}."), (HOST, "A", DOMAINS[DOMAIN][0])]
    if "dane" in way:
        records.append((f"_{port}._tcp.{HOST}", "TLSA", f"3 1 1 {'00' * 32 if wrong else digest}"))
    else:
        records += [(f"_mta-sts.{DOMAIN}", "TXT", '"v=STSv1; id=1;"'), (WEB, "A", "127.0.0.1")]
    resolver = Unbound(program, closed_port(), tmp_path)
    resolver.add(DOMAIN, records)
    async with (
        PolicyHost(certificates.valid(WEB).server_context()) as web,
        Postfix(port, pair, (f"ann@{DOMAIN}",)) as postfix,
        resolver,
    ):
        web.files[WEB] = policy("enforce", HOST)
        relay = Relay(tmp_path, dns=resolver.address, mx_port=port, delivery=f"mta_sts_port = {web.port}\n")
        relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
        async with relay:
            token = await relay.send(f"ann@{DOMAIN}")
            path = f"/v1/emails/{token}?expand=deliveries"
            email = (await relay.until(path, lambda found: found["data"]["attempts"] > 0))["data"]
            assert email["status"] == status, email
            tls = email["deliveries"][0]["tls"]
            if policy_shown is None:
                assert tls is None
                assert postfix.count(f"ann@{DOMAIN}") == 0
            else:
                assert (tls["policy"], tls["verified"]) == (policy_shown, True)
                assert b"TLS" in await postfix.wait(f"ann@{DOMAIN}")
