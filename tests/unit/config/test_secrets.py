"""The five forms of a secret, and the host key."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.config.secrets import (
    HostKey,
    SecretError,
    create_host_key,
    is_plain,
    load_host_key,
    new_secret,
    resolve,
)
from arkrelay.model.errors import ConfigError

KEY = HostKey(bytes(range(32)))


@given(st.text(min_size=1))
def test_what_is_sealed_opens_again(plain: str) -> None:
    sealed = KEY.seal(plain)
    assert sealed.startswith("sealed:v1:")
    assert KEY.open(sealed) == plain
    assert resolve(sealed, KEY).digest == hashlib.sha256(plain.encode()).digest()


def test_two_seals_of_one_secret_differ_and_hold_nothing_of_it() -> None:
    first, second = KEY.seal("swordfish"), KEY.seal("swordfish")
    assert first != second
    assert "swordfish" not in first


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBB"), "host key, or is damaged"),
        (lambda text: text[:-1], "host key, or is damaged"),
        (lambda _: "sealed:v1:", "host key, or is damaged"),
        (lambda _: "sealed:v1:é", "host key, or is damaged"),
        (lambda text: text.replace("v1", "v2"), "is sealed in a form this version does not know"),
    ],
)
def test_a_damaged_seal_is_refused(damage: Callable[[str], str], reason: str) -> None:
    with pytest.raises(SecretError, match=reason):
        resolve(damage(KEY.seal("swordfish")), KEY)


def test_another_machine_cannot_open_it() -> None:
    with pytest.raises(SecretError, match="not sealed by this machine's host key"):
        HostKey(bytes(32)).open(KEY.seal("swordfish"))


@given(st.text(max_size=60))
def test_any_text_is_a_secret_or_a_secret_error(text: str) -> None:
    for secret in (text, f"sealed:{text}", f"sealed:v1:{text}", f"sha256:{text}", f"credential:{text}"):
        try:
            assert len(resolve(secret, KEY).digest) == 32
        except SecretError as exc:
            reason = str(exc)
            assert reason


def test_keys_of_two_purposes_have_nothing_in_common() -> None:
    assert KEY.derive("a") == KEY.derive("a") != KEY.derive("b")
    assert len(KEY.derive("a")) == 32


def test_the_five_forms_stand_for_the_same_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("swordfish\n")
    file.chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    digest = hashlib.sha256(b"swordfish").digest()
    forms = {
        "swordfish": "plain",
        KEY.seal("swordfish"): "sealed",
        f"sha256:{digest.hex()}": "sha256",
        f"sha256:{digest.hex().upper()}": "sha256",
        f"file:{file}": "file",
        "credential:secret": "credential",
    }
    for secret, form in forms.items():
        resolved = resolve(secret, KEY)
        assert (resolved.digest, resolved.form) == (digest, form)
        assert resolved.plain == (None if form == "sha256" else "swordfish")
        assert is_plain(secret) is (form == "plain")
        assert "swordfish" not in repr(resolved)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not UTF-8"), (b"x" * 20000, "is too long for a secret")],
)
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SecretError, match=reason):
        resolve(f"file:{file}", None)


def test_a_missing_credential_names_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SecretError, match=f"{tmp_path}/gone cannot be read: No such file"):
        resolve("credential:gone", None)


@pytest.mark.parametrize("prefix", ["", "ark_live_", "ark_test_"])
def test_a_new_secret_has_256_bits_after_its_prefix(prefix: str) -> None:
    made = {new_secret(prefix) for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith(prefix) and len(secret) == len(prefix) + 43 for secret in made)


def test_no_new_secret_is_read_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-Option", "--help", "a-Secret"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: next(drawn))
    assert new_secret() == "a-Secret"


def test_a_host_key_is_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert load_host_key(state) is None
    sealed = create_host_key(state).seal("swordfish")
    file = state / "keys" / "host.key"
    assert len(file.read_bytes()) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert create_host_key(state).open(sealed) == "swordfish"
    assert [path.name for path in file.parent.iterdir()] == ["host.key"]


def test_of_many_that_make_the_host_key_at_once_all_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: create_host_key(tmp_path), range(32)))
    assert len({key.derive("x") for key in keys}) == 1


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (bytes(31), 0o600, "a host key has 32 bytes, this one 31"),
        (b"", 0o600, "a host key has 32 bytes, this one 0"),
        (bytes(32), 0o604, "mode 0604 lets others read it: chmod 600"),
    ],
)
def test_a_host_key_that_cannot_be_trusted_is_refused(tmp_path: Path, content: bytes, mode: int, reason: str) -> None:
    file = tmp_path / "keys" / "host.key"
    file.parent.mkdir()
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=reason):
        load_host_key(tmp_path)
    with pytest.raises(ConfigError, match=reason):
        create_host_key(tmp_path)
    assert file.read_bytes() == content


def test_a_host_key_never_shows() -> None:
    key = HostKey(b"k" * 32)
    assert repr(key) == "HostKey(…)"
    assert os.fsdecode(b"kkkk") not in f"{key!r}{key}"
