"""DKIM keys and certificates as their files hold them, and how to see that a file was replaced."""

import datetime as dt
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from arkrelay.config.files import mode_of, world_readable
from arkrelay.config.snapshot import KeySlot, LoadedKey, Stamp
from arkrelay.mail.dkim import Signer, load_key
from arkrelay.model.settings import Tls, TlsExtra
from arkrelay.model.tenant import DkimKey, Tenant

MIN_RSA_BITS = 1024  # RFC 8301 §3.2: verifiers must not accept less
GOOD_RSA_BITS = 2048  # RFC 8301 §3.2: signers should use at least this
MAX_KEY_FILE_BYTES = 65536
EXPIRY_WARNING = dt.timedelta(days=14)  # an ACME client renews at 30 days; at 14 it has failed for weeks


class KeyFileError(ValueError):
    """A key or certificate file cannot be used; the text says why and holds nothing of it."""


def stamp(path: Path) -> Stamp | None:
    """Return what changes when the file is rewritten or replaced, or None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def load_dkim(path: Path, domain: str, selector: str, algorithm: str) -> LoadedKey:
    """Return the key, ready to sign; raise KeyFileError for a file that cannot be read, trusted or used."""
    seen = stamp(path)  # before reading: a change while we read is seen by the next look
    pem = _read(path)
    if seen is None or mode_of(path) & 0o077:
        raise KeyFileError(f"{path} has mode {mode_of(path):04o}, readable by others than its owner: chmod 600")
    try:
        key = load_key(pem, algorithm)
    except ValueError as exc:
        raise KeyFileError(f"{path} is no key for {algorithm}: {exc}") from None
    bits = key.key_size if isinstance(key, RSAPrivateKey) else 0
    if 0 < bits < MIN_RSA_BITS:
        raise KeyFileError(f"{path} is an RSA key of {bits} bits, and verifiers refuse less than {MIN_RSA_BITS}")
    return LoadedKey(seen, Signer(domain=domain, selector=selector, algorithm=algorithm, key=key), bits)


@dataclass(slots=True)
class KeyRing:
    """DKIM keys by file and use, and the active ones by tenant and domain; filled tenant by tenant."""

    cached: Mapping[KeySlot, LoadedKey]  # keys read earlier: a file that has not changed is not read again
    keep_last_good: bool = False  # a file that cannot be used any more leaves the cached key in force
    loaded: dict[KeySlot, LoadedKey] = field(default_factory=dict)
    signers: dict[tuple[str, str], tuple[Signer, ...]] = field(default_factory=dict)
    watched: dict[Path, Stamp | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def load(self, tenant: Tenant, report: Callable[[DkimKey, str], None]) -> None:
        """Read the keys of the tenant; published and retired ones too, to know a broken file before it is needed."""
        for domain in tenant.domains:
            active = []
            for key in domain.dkim:
                slot = (key.private_key, domain.name, key.selector, key.algorithm)
                found = self.cached.get(slot)
                self.watched[key.private_key] = stamp(key.private_key)
                try:
                    if found is None or self.watched[key.private_key] != found.stamp:
                        found = load_dkim(*slot)
                except KeyFileError as exc:
                    report(key, str(exc))
                    if found is None or not self.keep_last_good:
                        continue
                self.loaded[slot] = found
                if key.state == "active":
                    active.append(found.signer)
                if 0 < found.bits < GOOD_RSA_BITS:
                    self.warnings.append(
                        f"tenant {tenant.id}: domain {domain.name}: DKIM key {key.selector} has {found.bits} bits; "
                        f"RFC 8301 wants {GOOD_RSA_BITS}"
                    )
            self.signers[tenant.id, domain.name] = tuple(active)


def check_certificate(tls: Tls | TlsExtra, now: dt.datetime) -> list[str]:
    """Return warnings about the certificate; raise KeyFileError when no TLS server can start with it."""
    certificate = _read(tls.certificate)
    _read(tls.private_key)
    if world_readable(tls.private_key):
        raise KeyFileError(
            f"{tls.private_key} has mode {mode_of(tls.private_key):04o}, readable by others: chmod 600"
        )
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise KeyFileError(f"{tls.certificate} holds no PEM certificate") from None
    try:
        # An encrypted key would ask on the terminal: an empty passphrase makes it fail instead.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.private_key, password="")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise KeyFileError(f"{tls.private_key} is not the key of {tls.certificate}") from None
        raise KeyFileError(f"{tls.private_key} cannot be used: {exc.reason or 'not a private key in PEM'}") from None
    left = first.not_valid_after_utc - now
    if left <= dt.timedelta():
        return [f"{tls.certificate} expired on {first.not_valid_after_utc:%Y-%m-%d}"]
    if left < EXPIRY_WARNING:
        return [f"{tls.certificate} expires on {first.not_valid_after_utc:%Y-%m-%d}"]
    return []


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as exc:
        raise KeyFileError(f"{path} cannot be read: {exc.strerror}") from None
    if len(raw) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} is longer than {MAX_KEY_FILE_BYTES} bytes")
    return raw
