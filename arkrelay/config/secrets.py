"""Secrets as the files spell them, and the host key that seals them.

A leaked tenant file must be useless, and yet ``reveal`` and CRAM-MD5 need the plain value back (Ark contract
§8.6), so a secret that we write is sealed and not hashed: AES-256-GCM under a key derived from
``state_dir/keys/host.key``. Look-ups go by SHA-256, which is enough for secrets of 256 random bits.
"""

import base64
import binascii
import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from arkrelay.config.files import adopt, fsync_folder, mode_of, world_readable
from arkrelay.model.errors import ConfigError

LIVE_PREFIX, TEST_PREFIX = "ark_live_", "ark_test_"  # of keys for REST (Ark contract §1)
SEALED = "sealed:"
SEALED_V1 = "sealed:v1:"
HOST_KEY = "host.key"
KEY_BYTES = 32  # AES-256
NONCE_BYTES = 12  # NIST SP 800-38D §8.2.2: random 96-bit nonces, good for 2**32 secrets under one key
SECRET_BYTES = 32  # 256 random bits
MAX_SECRET_FILE_BYTES = 16384
SERVICE_CREDENTIALS = Path("/run/credentials/arkrelay.service")  # where systemd puts LoadCredential= of our unit


class SecretError(ValueError):
    """A secret cannot be used; the text says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a secret is: its SHA-256, and its plain value unless only the digest is known."""

    digest: bytes = field(repr=False)
    plain: str | None = field(repr=False)
    form: str = "plain"  # plain | sealed | sha256 | file | credential


class HostKey:
    """The key of this machine: seals secrets and derives the keys of other purposes."""

    __slots__ = ("_key", "_seal")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SecretError(f"a host key has {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key
        self._seal = AESGCM(self.derive("seal v1"))

    def __repr__(self) -> str:
        return "HostKey(…)"

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes for one purpose (HKDF, RFC 5869): knowing them tells nothing of the others."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"arkrelay " + purpose.encode()).derive(self._key)

    def seal(self, plain: str) -> str:
        """Return the ``sealed:`` form; two seals of one secret differ."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._seal.encrypt(nonce, plain.encode(), SEALED_V1.encode())
        return SEALED_V1 + base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def open(self, sealed: str) -> str:
        """Return what ``seal`` was given, or raise SecretError."""
        if not sealed.startswith(SEALED_V1):
            raise SecretError("is sealed in a form this version does not know")
        text = sealed.removeprefix(SEALED_V1)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return self._seal.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], SEALED_V1.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise SecretError("was not sealed by this machine's host key, or is damaged") from None


def new_secret(prefix: str = "") -> str:
    """Return a new secret of 256 random bits in URL-safe letters, after ``prefix`` ("ark_live_").

    None begins with a hyphen: programs that take it as an argument, swaks among them, would read an option.
    """
    while (made := prefix + secrets.token_urlsafe(SECRET_BYTES)).startswith("-"):
        pass
    return made


def create_host_key(state_dir: Path) -> HostKey:
    """Return the host key of ``state_dir``, made (0600, in ``keys`` 0700) when there was none.

    Made beside its name and linked there, so of two processes that start at once both get the same one, and a
    crash leaves a whole key or none.
    """
    keys = state_dir / "keys"
    path = keys / HOST_KEY
    existing = load_host_key(state_dir)
    if existing is not None:
        return existing
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    adopt(keys, like=state_dir)
    temporary = keys / f".host.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        adopt(temporary, like=state_dir)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(keys)
    made = load_host_key(state_dir)
    if made is None:
        raise ConfigError(path, "", "vanished while it was made")
    return made


def load_host_key(state_dir: Path) -> HostKey | None:
    """Return the host key, or None when there is none yet; raise ConfigError when it cannot be trusted."""
    path = state_dir / "keys" / HOST_KEY
    try:
        raw = path.read_bytes()
        mode = mode_of(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(path, "", f"cannot be read: {exc.strerror}") from exc
    if mode & 0o077:
        raise ConfigError(path, "", f"mode {mode:04o} lets others read it: chmod 600")
    try:
        return HostKey(raw)
    except SecretError as exc:
        raise ConfigError(path, "", str(exc)) from None


def resolve(secret: str, host_key: HostKey | None) -> Resolved:
    """Return what a secret stands for, whichever of the five forms it has; raise SecretError.

    ``plain``, ``sealed:…``, ``sha256:HEX``, ``file:/path`` and ``credential:NAME`` (systemd's LoadCredential=).
    """
    if secret.startswith(SEALED):
        if host_key is None:
            raise SecretError("is sealed, but this machine has no host key")
        return _known(host_key.open(secret), "sealed")
    if secret.startswith("sha256:"):
        text = secret.removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            raise SecretError("expected 64 hexadecimal digits after sha256:")
        return Resolved(bytes.fromhex(text), None, "sha256")
    if secret.startswith("file:"):
        path = Path(secret.removeprefix("file:"))
        if not path.is_absolute():
            raise SecretError("expected an absolute path after file:")
        return _known(_read(path), "file")
    if secret.startswith("credential:"):
        return _known(_read(_credential_path(secret.removeprefix("credential:")), checked=False), "credential")
    return _known(secret, "plain")


def is_plain(secret: str) -> bool:
    """Return whether the text is the secret itself, so that its file must not be readable by others."""
    return not secret.startswith((SEALED, "sha256:", "file:", "credential:"))


def _known(plain: str, form: str) -> Resolved:
    if not plain:
        raise SecretError("is empty")
    return Resolved(hashlib.sha256(plain.encode()).digest(), plain, form)


def _credential_path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name in {".", ".."}:
        raise SecretError("expected the name of a systemd credential after credential:")
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY") or SERVICE_CREDENTIALS)
    return folder / name


def _read(path: Path, *, checked: bool = True) -> str:
    """Return the file's text without its last line end; systemd's own files need no look at their mode."""
    try:
        if checked and world_readable(path):
            raise SecretError(f"{path} has mode {mode_of(path):04o}, readable by others: chmod 600")
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as exc:
        raise SecretError(f"{path} cannot be read: {exc.strerror}") from None
    if len(raw) > MAX_SECRET_FILE_BYTES:
        raise SecretError(f"{path} is too long for a secret")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not UTF-8") from None
