"""The RSA keys that sign webhooks, in ``state_dir/keys/webhooks``: one signs, all are published.

One installation has one key for all webhooks (Ark contract §11.4). It is made when it is first needed. ``rotate``, or
another PEM file beside it whose name sorts behind, changes it: from then on that one signs. The old one stays
published for ``PUBLISHED_S`` after its successor came, for receivers that keep the set of keys and for posts that
they have not looked at yet; the next rotation removes its file.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from arkrelay.config.files import adopt, mode_of, replace
from arkrelay.config.keyfiles import MAX_KEY_FILE_BYTES, KeyFileError

log = structlog.get_logger()

FOLDER = "webhooks"
BITS = 2048  # RFC 7518 §3.3: the least for RS256
EXPONENT = 65537
PUBLISHED_S = 7 * 86400.0  # receivers keep the set for an hour (Ark contract §11.4), and their queues for some days

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key; ``kid`` is the hex SHA-256 of its public half, DER ``SEQUENCE {n, e}`` (Ark contract §11.4)."""

    kid: str
    key: rsa.RSAPrivateKey = field(repr=False)
    file: Path = field(repr=False)
    made_at: float = field(repr=False)  # of the file (Unix seconds)

    def sign(self, body: bytes) -> str:
        """Return the base64, in one line, of the RSA PKCS#1 v1.5 signature with SHA-256 over exactly these bytes."""
        return base64.b64encode(self.key.sign(body, padding.PKCS1v15(), hashes.SHA256())).decode()

    def jwk(self) -> dict[str, str]:
        """Return the public half as RFC 7517 has it."""
        numbers = self.key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "kid": self.kid,
            "use": "sig",
            "alg": "RS256",
            "n": _base64url(numbers.n),
            "e": _base64url(numbers.e),
        }


class HookKeys:
    """The keys of one state directory. The methods block on files, so the daemon calls them in a thread."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._folder = state_dir / "keys" / FOLDER
        self._lock = threading.Lock()
        self._seen: Stamp = ()
        self._keys: tuple[SigningKey, ...] = ()

    def all(self) -> tuple[SigningKey, ...]:
        """Return every key that is published, the one that signs first; there is at least one, made now if need be.

        The folder is read again when something in it changed. A file that cannot be used, or that others may read, is
        logged and left out. Raises OSError when a key has to be made and cannot be written.
        """
        with self._lock:
            return tuple(key for key, retired in self._aged() if not retired)

    def rotate(self, *, revoke: bool = False) -> SigningKey:
        """Return a new key, which signs from now on; files of keys that are not published any more are removed.

        With ``revoke`` all old ones are: what they signed can then not be verified any more. Raises OSError when a
        file cannot be written or removed.
        """
        with self._lock:
            old = self._aged() if self._folder.is_dir() else []
            made = self._make(after=old[0][0].file.stem if old else "")
            for key, retired in old:
                if retired or revoke:
                    key.file.unlink()
            return made

    def _aged(self) -> list[tuple[SigningKey, bool]]:
        """Return every usable key, newest first, with whether its successor is too old for it to be published."""
        seen = _stamp(self._folder)
        if seen != self._seen or not self._keys:
            keys = tuple(self._load())
            if not keys:
                keys = (self._make(),)
                log.info("webhook_key_made", kid=keys[0].kid)
                seen = _stamp(self._folder)
            self._keys, self._seen = keys, seen
        latest = self._clock() - PUBLISHED_S
        successors = [None, *self._keys]
        return [
            (key, next_ is not None and next_.made_at < latest)
            for key, next_ in zip(self._keys, successors, strict=False)
        ]

    def sign(self, body: bytes) -> tuple[str, str]:
        """Return the id of the key that signs now, and its signature."""
        key = self.all()[0]
        return key.kid, key.sign(body)

    def _load(self) -> Iterator[SigningKey]:
        known: set[str] = set()
        try:
            files = sorted(self._folder.glob("[!.]*.pem"), key=lambda file: file.name, reverse=True)
        except OSError:
            files = []
        for file in files:
            try:
                key = _read(file)
            except KeyFileError as error:
                log.warning("webhook_key_refused", file=str(file), reason=str(error))
                continue
            if key.kid not in known:
                known.add(key.kid)
                yield key

    def _make(self, after: str = "") -> SigningKey:
        """Write a new key; its name is the time, so that names sort by age: behind ``after`` in any case."""
        key = rsa.generate_private_key(EXPONENT, BITS)
        for folder in (self._folder.parent, self._folder):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True)
                adopt(folder, like=self._state_dir)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{_kid(key)[:8]}"
        if f"{name}.pem" <= f"{after}.pem":  # made within one second, or the old one's name is no time
            name = f"{after}_{name}"  # "_" sorts behind the "." of the ending
        file = self._folder / f"{name}.pem"
        replace(file, pem)
        return SigningKey(_kid(key), key, file, file.stat().st_mtime)


def _read(file: Path) -> SigningKey:
    try:
        if mode_of(file) & 0o077:
            raise KeyFileError(f"mode {mode_of(file):04o}, readable by others than its owner: chmod 600")
        with file.open("rb") as opened:
            pem = opened.read(MAX_KEY_FILE_BYTES)
        made_at = file.stat().st_mtime
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError("holds no private key in PEM without a passphrase") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyFileError("is no RSA key")
    if key.key_size < BITS:
        raise KeyFileError(f"has {key.key_size} bits, and RS256 needs {BITS}")
    return SigningKey(_kid(key), key, file, made_at)


def _kid(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return hashlib.sha256(der).hexdigest()


def _stamp(folder: Path) -> Stamp:
    """Return what changes when a file comes, goes, is written or gets another mode."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            found.append((entry.name, status.st_ctime_ns, status.st_ino))
    return tuple(sorted(found))


def _base64url(number: int) -> str:
    """Return a number as RFC 7518 §2 writes it: big-endian, base64url, unpadded."""
    raw = number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
