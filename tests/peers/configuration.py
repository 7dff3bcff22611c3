"""A configuration in a temporary folder, with what certificates and keys it needs."""

import datetime as dt
import functools
import textwrap
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from arkrelay.config.errors import ConfigErrors
from arkrelay.config.load import load
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.dkim import generate_key


@functools.cache
def dkim_pem(algorithm: str = "ed25519-sha256", number: int = 0) -> bytes:
    """Return the same key for the same number: RSA keys are slow to make."""
    assert number >= 0
    return generate_key(algorithm)


@functools.cache
def certificate(number: int = 0, days: int = 365) -> tuple[bytes, bytes]:
    """Return a self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"relay{number}.example.com")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number + 1)
        .not_valid_before(now - dt.timedelta(days=400))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), pem


class Folder:
    """The files of one configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "arkrelay.toml"
        self.state = root / "state"
        (root / "tenants").mkdir()
        (self.state / "keys" / "dkim").mkdir(parents=True, mode=0o700)
        self.main()

    def main(self, text: str = "", *, hostname: str = "relay.example.com") -> None:
        """Write arkrelay.toml; tables come after the settings at its top."""
        top = f'hostname = "{hostname}"\nstate_dir = "state"\n'
        self.write("arkrelay.toml", top + textwrap.dedent(text))

    def tenant(self, tenant_id: str, text: str = "", *, mode: int = 0o600) -> Path:
        return self.write(
            f"tenants/{tenant_id}.toml", f'name = "{tenant_id.title()}"\n' + textwrap.dedent(text), mode
        )

    def write(self, name: str, text: str | bytes, mode: int = 0o600) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def dkim(self, name: str, algorithm: str = "ed25519-sha256", *, number: int = 0, mode: int = 0o600) -> Path:
        return self.write(f"state/keys/dkim/{name}.pem", dkim_pem(algorithm, number), mode)

    def certificate(self, number: int = 0, *, days: int = 365, key_of: int | None = None, mode: int = 0o600) -> None:
        self.write("cert.pem", certificate(number, days)[0], 0o644)
        self.write("key.pem", certificate(number if key_of is None else key_of, days)[1], mode)

    def load(self) -> Snapshot:
        return load(self.path)

    def problems(self) -> list[str]:
        """Return every problem, files relative to the folder."""
        with pytest.raises(ConfigErrors) as caught:
            self.load()
        assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
        return [str(problem).replace(f"{self.root}/", "") for problem in caught.value.problems]
