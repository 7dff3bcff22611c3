"""TLS: what we ask of peers, what we show to clients, and how a certificate changes without a restart."""

import datetime as dt
import functools
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from arkrelay.model.attempt import TlsInfo
from arkrelay.model.errors import ConfigError

log = structlog.get_logger()

SELF_SIGNED_DAYS = 3650


@functools.cache
def opportunistic() -> ssl.SSLContext:
    """Return the context for peers that need not prove who they are (RFC 7435).

    TLS 1.2 at least (RFC 8996). Debian compiles OpenSSL with security level 2, which refuses RSA and DH keys
    under 2048 bits. A mail server that still has them would then get the message in clear text, which protects
    nobody: level 1 asks for 1024.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    return context


@functools.cache
def verifying(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the context for peers whose certificate must be valid for their host name (RFC 9525).

    Trusted are the system's authorities, or only those in ``ca_file``.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    context.hostname_checks_common_name = False  # RFC 9525 §2: names are in subjectAltName or nowhere
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls_info(tls: ssl.SSLObject) -> TlsInfo:
    """Return how a finished handshake came out; it is verified when the context demanded a valid certificate."""
    cipher = tls.cipher()
    return TlsInfo(
        version=tls.version() or "",
        cipher=cipher[0] if cipher else "",
        verified=tls.context.verify_mode == ssl.CERT_REQUIRED,
    )


def chain_of(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates that the peer showed, in DER, its own first; nothing vouches for them.

    Python 3.13 has a method for it, and before that only its C part has (3.10 and later). Where neither is there,
    the peer's own certificate is all that can be had: enough for TLSA records of usage 3.
    """
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return tuple(public())
    inner = getattr(tls, "_sslobj", None)
    if hasattr(inner, "get_unverified_chain"):
        return tuple(one.public_bytes(ssl._ssl.ENCODING_DER) for one in inner.get_unverified_chain() or ())  # type: ignore[attr-defined, union-attr]  # noqa: SLF001 -- Python 3.11 and 3.12 have no other way
    leaf = tls.getpeercert(binary_form=True)
    return () if leaf is None else (leaf,)


class ServerCertificate:
    """The certificates that our doors show, read again when their files change.

    ``extra`` are pairs for further names: who asks for one of them (RFC 6066 §3) is shown that certificate, anybody
    else the first. Raises ``ConfigError`` when a pair cannot be used at the start. Later a broken pair is logged,
    once, and the previous one stays: a certificate and its key are seldom replaced in the same instant. Contexts
    handed out earlier show the new certificates too, in handshakes that begin after the change; sessions that run go
    on.
    """

    def __init__(self, certificate: Path, private_key: Path, extra: Sequence[tuple[Path, Path]] = ()) -> None:
        self.use(certificate, private_key, extra)

    def use(self, certificate: Path, private_key: Path, extra: Sequence[tuple[Path, Path]] = ()) -> None:
        """Show these from now on; raises ``ConfigError`` and goes on with the old ones when one cannot be used."""
        first, *others = [_Pair(*files, self._choose) for files in ((certificate, private_key), *extra)]
        self._first, self._extra = first, others

    @property
    def expires_at(self) -> float:
        """When the first certificate that ends does so, in Unix seconds."""
        return min(pair.expires_at for pair in (self._first, *self._extra))

    def context(self, name: str | None = None) -> ssl.SSLContext:
        """Return the context with the newest pair for this host name that can be used."""
        if name is not None and self._extra:
            name = name.lower()
            wildcard = f"*.{name.partition('.')[2]}"  # RFC 9525 §6.3: for one label, the leftmost
            for wanted in (name, wildcard):
                for pair in (self._first, *self._extra):
                    if wanted in pair.newest().names:
                        return pair.context
        return self._first.newest().context

    def _choose(self, tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = self.context(name)


class _Pair:
    """A certificate with its key: a context that is made anew when the files change."""

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        choose: Callable[[ssl.SSLSocket | ssl.SSLObject, str | None, ssl.SSLContext], None],
    ) -> None:
        self._certificate, self._private_key, self._choose = certificate, private_key, choose
        self._seen = self._signature()
        self.expires_at = 0.0
        self.names: frozenset[str] = frozenset()
        try:
            self.context = self._load()
        except (OSError, ValueError) as error:
            raise ConfigError(certificate, "certificate", _why(error)) from error

    def newest(self) -> "_Pair":
        """Return itself, with what the files hold now, if that can be used."""
        seen = self._signature()
        if seen != self._seen:
            self._seen = seen
            try:
                self.context = self._load()
            except (OSError, ValueError) as error:
                log.error("certificate_not_loaded", file=str(self._certificate), reason=_why(error))  # noqa: TRY400 -- the reason says it all, the traceback nothing
            else:
                log.info("certificate_loaded", file=str(self._certificate), expires_at=self.expires_at)
        return self

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stat(path) for path in (self._certificate, self._private_key))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        # Without a password function OpenSSL would ask at the terminal for that of an encrypted key.
        context.load_cert_chain(self._certificate, self._private_key, password=lambda: b"")
        context.sni_callback = self._choose
        leaf = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        self.expires_at = leaf.not_valid_after_utc.timestamp()
        self.names = _names(leaf)
        return context


def _names(leaf: x509.Certificate) -> frozenset[str]:
    """Return the host names that a certificate is for (RFC 9525 §2: in subjectAltName or nowhere)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in found.get_values_for_type(x509.DNSName))


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _why(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


def self_signed(hostname: str) -> tuple[bytes, bytes]:
    """Return a certificate for ``hostname``, localhost and loopback that nobody vouches for, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])  # RFC 5280 A.1: ub-common-name
    loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    names = [x509.DNSName(host) for host in dict.fromkeys((hostname, "localhost"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # clients whose clock is behind
        .not_valid_after(now + dt.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([*names, *loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
