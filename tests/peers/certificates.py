"""A throw-away certificate authority and certificates of every kind, made once per test run."""

import atexit
import datetime as dt
import functools
import ipaddress
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate (with what it needs of its chain) and its key, as PEM files."""

    certificate: Path
    private_key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a server's context that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.private_key)
        return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Authority:
    """An authority whose files live in ``folder``; ``ca_file`` is what a client must trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("arkrelay test authority")
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=30))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *hosts: str, expired: bool = False, self_signed: bool = False) -> Pair:
        """Return a new pair for ``hosts``, signed by this authority unless ``self_signed``."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        end = now - dt.timedelta(days=1) if expired else now + dt.timedelta(days=20)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(hosts[0]))
            .issuer_name(_name(hosts[0]) if self_signed else self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=20))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
            .sign(key if self_signed else self._key, hashes.SHA256())
        )
        self._made += 1
        pair = Pair(self._folder / f"{self._made}.pem", self._folder / f"{self._made}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


@functools.cache
def authority() -> Authority:
    """Return the authority of this test run."""
    folder = Path(tempfile.mkdtemp(prefix="arkrelay-certificates-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Authority(folder)


@functools.cache
def valid(host: str = "mx.test") -> Pair:
    """Return a certificate for ``host`` and 127.0.0.1 that the authority signed."""
    return authority().issue(host, "127.0.0.1")


@functools.cache
def expired(host: str = "mx.test") -> Pair:
    """Return one that ended yesterday."""
    return authority().issue(host, expired=True)


@functools.cache
def self_signed(host: str = "mx.test") -> Pair:
    """Return one that nobody vouches for."""
    return authority().issue(host, self_signed=True)
