"""A relay around which everything is right: names, records, certificate, blocklists; a test breaks one thing."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers import certificates
from peers.daemon import Relay, signing_key
from peers.dns import DnsServer

from arkrelay.mail.dkim import public_record

SOURCE = "127.0.0.3"
PTR = "3.0.0.127.in-addr.arpa"
KEY = "s1._domainkey.sender.test"
LIST, NAMES = "ip.list.test", "names.list.test"


def right_records(dns: DnsServer) -> None:
    """Publish all that the relay of ``sound`` needs."""
    key = serialization.load_pem_private_key(signing_key(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    dns.set(PTR, "PTR", "relay.test.")
    dns.set("relay.test", "A", SOURCE)
    dns.set("relay.test", "TXT", "v=spf1 a -all")
    dns.set("spf.relay.test", "TXT", f"v=spf1 ip4:{SOURCE} -all")
    dns.set("rp.relay.test", "TXT", f"v=spf1 ip4:{SOURCE} -all")
    dns.set("rp.relay.test", "MX", "10 mx.relay.test.")
    dns.set("mx.relay.test", "A", "127.0.0.1")
    dns.set("sender.test", "TXT", "v=spf1 a mx include:spf.relay.test ~all")
    dns.set("sender.test", "MX", "10 mail.sender.test.")
    dns.set("mail.sender.test", "A", "127.0.0.9")
    dns.set(KEY, "TXT", public_record(key))
    dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
    dns.set("_dmarc.sender.test", "TXT", "v=DMARC1; p=none")
    dns.set(f"2.0.0.127.{LIST}", "A", "127.0.0.2")
    dns.set(f"test.{NAMES}", "A", "127.0.1.2")


def sound(folder: Path, dns: DnsServer, port: int, *, probe: str = "", doctor: str = "", more: str = "") -> Relay:
    """Return a relay, not yet started, whose bounces listener is on ``port`` of loopback."""
    pair = certificates.valid("relay.test")
    pair.private_key.chmod(0o600)
    settings = f"""
[tls]
certificate = "{pair.certificate}"
private_key = "{pair.private_key}"

[[listen]]
service = "bounces"
address = "127.0.0.1:{port}"

[[listen]]
service = "submission"
address = "127.0.0.1:0"

[[listen]]
service = "submissions"
address = "127.0.0.1:0"

[doctor]
blocklists = ["{LIST}"]
domain_blocklists = ["{NAMES}"]
probe_host = "{probe}"
{doctor}
{more}
"""
    delivery = f'source_addresses = ["{SOURCE}"]'
    relay = Relay(folder, dns=dns.address, mx_port=port, delivery=delivery, more=settings)
    relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
    return relay
