"""The keys that sign webhooks: made once, verified with what is published, changed without a gap."""

import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from arkrelay.config.hookkeys import PUBLISHED_S, HookKeys, SigningKey

BODY = '{"event":"MessageSent","payload":"ü"}\r\n'.encode()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def number(text: str) -> int:
    assert "=" not in text
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def public_of(jwk: dict[str, str]) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()


def verify(key: SigningKey, body: bytes, signature: str) -> None:
    public_of(key.jwk()).verify(base64.b64decode(signature, validate=True), body, padding.PKCS1v15(), hashes.SHA256())


def folder_of(state: Path) -> Path:
    return state / "keys" / "webhooks"


def put(state: Path, name: str, content: bytes, mode: int = 0o600) -> None:
    folder_of(state).mkdir(parents=True, exist_ok=True)
    file = folder_of(state) / name
    file.write_bytes(content)
    file.chmod(mode)


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    (made,) = keys.all()
    assert keys.all() == (made,)
    assert [key.kid for key in HookKeys(tmp_path).all()] == [made.kid]
    (file,) = folder_of(tmp_path).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder_of(tmp_path).stat().st_mode & 0o777 == 0o700
    assert made.key.key_size == 2048
    assert repr(made) == f"SigningKey(kid='{made.kid}')"


def test_many_threads_that_need_the_first_key_get_the_same(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(keys.sign(BODY)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == len(list(folder_of(tmp_path).iterdir())) == 1


def test_what_is_signed_verifies_with_what_is_published_and_with_no_other_byte(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    kid, signature = keys.sign(BODY)
    (key,) = keys.all()
    jwk = key.jwk()
    assert {name: jwk[name] for name in ("kty", "kid", "use", "alg", "e")} == {
        "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "e": "AQAB",
    }  # fmt: skip
    der = public_of(jwk).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    assert kid == hashlib.sha256(der).hexdigest()
    assert "\n" not in signature
    verify(key, BODY, signature)
    with pytest.raises(InvalidSignature):
        verify(key, BODY + b" ", signature)


def test_the_name_that_sorts_last_signs_and_all_are_published(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    (first,) = keys.all()
    new = rsa.generate_private_key(65537, 2048)
    put(tmp_path, "99990101T000000Z.pem", pem(new))
    both = keys.all()
    assert [key.kid for key in both][1:] == [first.kid]
    kid, signature = keys.sign(BODY)
    assert kid == both[0].kid != first.kid
    verify(both[0], BODY, signature)
    put(tmp_path, "twice.pem", pem(new))
    assert [key.kid for key in keys.all()] == [kid, first.kid]
    for file in folder_of(tmp_path).glob("*Z-*.pem"):
        file.unlink()
    assert [key.kid for key in keys.all()] == [kid]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        pytest.param(lambda: pem(rsa.generate_private_key(65537, 2048)), 0o640, "mode 0640", id="readable by others"),
        pytest.param(lambda: pem(rsa.generate_private_key(65537, 1024)), 0o600, "1024 bits", id="short"),
        pytest.param(lambda: pem(ec.generate_private_key(ec.SECP256R1())), 0o600, "no RSA key", id="not RSA"),
        pytest.param(lambda: b"rubbish", 0o600, "PEM", id="rubbish"),
        pytest.param(lambda: b"", 0o600, "PEM", id="empty"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_left_out(
    tmp_path: Path, content: Callable[[], bytes], mode: int, reason: str
) -> None:
    keys = HookKeys(tmp_path)
    (good,) = keys.all()
    put(tmp_path, "zzz.pem", content(), mode)
    with structlog.testing.capture_logs() as logs:
        assert [key.kid for key in keys.all()] == [good.kid]
        assert [key.kid for key in keys.all()] == [good.kid]  # and logged once
    assert [line["event"] for line in logs] == ["webhook_key_refused"]
    assert reason in logs[0]["reason"]


def test_a_key_that_was_mended_is_taken(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    keys.all()
    put(tmp_path, "zzz.pem", pem(rsa.generate_private_key(65537, 2048)), 0o644)
    assert len(keys.all()) == 1
    (folder_of(tmp_path) / "zzz.pem").chmod(0o600)
    assert len(keys.all()) == 2


def test_a_rotated_key_signs_at_once_and_the_old_one_is_published_for_a_week(tmp_path: Path) -> None:
    now = time.time()
    keys = HookKeys(tmp_path, lambda: now)
    (first,) = keys.all()
    second = HookKeys(tmp_path).rotate()  # another process: the command line
    assert keys.sign(BODY)[0] == second.kid != first.kid
    third = keys.rotate()
    assert [key.kid for key in keys.all()] == [third.kid, second.kid, first.kid]  # also within one second
    now += PUBLISHED_S + 60
    assert [key.kid for key in keys.all()] == [third.kid]
    fourth = keys.rotate()
    os.utime(fourth.file, (now, now))
    assert len(list(folder_of(tmp_path).iterdir())) == 2  # what is not published any more is gone
    assert [key.kid for key in keys.all()] == [fourth.kid, third.kid]


def test_a_key_that_leaked_is_gone_at_once(tmp_path: Path) -> None:
    keys = HookKeys(tmp_path)
    keys.all()
    put(tmp_path, "zzz.pem", pem(rsa.generate_private_key(65537, 2048)))  # a name that no time sorts behind
    made = keys.rotate(revoke=True)
    assert [key.kid for key in keys.all()] == [made.kid] == [keys.sign(BODY)[0]]
    assert len(list(folder_of(tmp_path).iterdir())) == 1


def test_the_first_rotation_makes_the_first_key(tmp_path: Path) -> None:
    made = HookKeys(tmp_path).rotate()
    assert [key.kid for key in HookKeys(tmp_path).all()] == [made.kid]
