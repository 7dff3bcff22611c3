"""Certificates: shown, changed under way, broken under way."""

import os
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from peers.certificates import Pair, authority
from structlog.testing import capture_logs

from arkrelay.model.errors import ConfigError
from arkrelay.wire.tls import ServerCertificate, opportunistic, self_signed, verifying


def _install(pair: Pair, folder: Path) -> tuple[Path, Path]:
    paths = folder / "cert.pem", folder / "key.pem"
    for source, path in zip((pair.certificate, pair.private_key), paths, strict=True):
        new = path.with_suffix(".new")
        shutil.copyfile(source, new)
        new.replace(path)
    return paths


def _shown(context: ssl.SSLContext, name: str | None = "mx.test") -> x509.Certificate:
    """Return the certificate that a server with ``context`` shows, by a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = opportunistic().wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    der = client.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def _serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def test_a_replaced_certificate_is_shown_without_a_restart_also_by_contexts_handed_out_before(tmp_path: Path) -> None:
    first, second = authority().issue("mx.test"), authority().issue("mx.test")
    shown = ServerCertificate(*_install(first, tmp_path))
    before = shown.context()
    assert _shown(before).serial_number == _serial(first)
    _install(second, tmp_path)
    assert _shown(before).serial_number == _serial(second)
    assert _shown(shown.context()).serial_number == _serial(second)


def test_a_broken_pair_is_logged_once_and_the_old_one_stays(tmp_path: Path) -> None:
    first, second = authority().issue("mx.test"), authority().issue("mx.test")
    certificate, key = _install(first, tmp_path)
    shown = ServerCertificate(certificate, key)
    expires_at = shown.expires_at
    certificate.write_bytes(second.certificate.read_bytes())  # its key does not come along yet
    with capture_logs() as logs:
        assert _shown(shown.context()).serial_number == _serial(first)
        shown.context()
    assert [entry["event"] for entry in logs] == ["certificate_not_loaded"]
    assert "key values mismatch" in logs[0]["reason"]
    assert shown.expires_at == expires_at
    key.write_bytes(second.private_key.read_bytes())
    assert _shown(shown.context()).serial_number == _serial(second)


def test_a_vanished_file_leaves_the_old_pair(tmp_path: Path) -> None:
    pair = authority().issue("mx.test")
    certificate, key = _install(pair, tmp_path)
    shown = ServerCertificate(certificate, key)
    key.unlink()
    assert _shown(shown.context()).serial_number == _serial(pair)


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    shown = ServerCertificate(*_install(authority().issue("mx.test"), tmp_path))
    assert shown.context() is shown.context()


@pytest.mark.parametrize("broken", ["missing", "rubbish", "encrypted"])
def test_a_pair_that_cannot_be_used_at_the_start_is_a_configuration_error(tmp_path: Path, broken: str) -> None:
    certificate, key = _install(authority().issue("mx.test"), tmp_path)
    if broken == "missing":
        certificate.unlink()
    elif broken == "rubbish":
        certificate.write_text("-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")
    else:  # must not ask for its password at the terminal
        key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="certificate"):
        ServerCertificate(certificate, key)


def test_a_self_signed_pair_serves_and_names_its_host(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    for path, content in zip((certificate, key), self_signed("mail.example.com"), strict=True):
        path.write_bytes(content)
    found = _shown(ServerCertificate(certificate, key).context())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.com", "localhost"]
    assert ServerCertificate(certificate, key).expires_at == found.not_valid_after_utc.timestamp()


def test_contexts_ask_for_tls_1_2_and_only_one_asks_for_a_certificate() -> None:
    assert opportunistic().minimum_version is verifying().minimum_version is ssl.TLSVersion.TLSv1_2
    assert opportunistic().verify_mode is ssl.CERT_NONE
    assert verifying().verify_mode is ssl.CERT_REQUIRED
    assert verifying().check_hostname


def test_the_signature_of_a_file_notices_a_same_size_rewrite(tmp_path: Path) -> None:
    pair = authority().issue("mx.test")
    certificate, key = _install(pair, tmp_path)
    shown = ServerCertificate(certificate, key)
    first = shown.context()
    os.utime(certificate, ns=(1, 1))
    assert shown.context() is not first


def test_each_name_is_shown_its_own_certificate(tmp_path: Path) -> None:
    first, track, wild = authority().issue("mx.test"), authority().issue("track.test"), authority().issue("*.w.test")
    extra = [(pair.certificate, pair.private_key) for pair in (track, wild)]
    shown = ServerCertificate(first.certificate, first.private_key, extra)
    for name, pair in (
        ("mx.test", first),
        ("track.test", track),
        ("TRACK.test", track),
        ("a.w.test", wild),
        ("a.b.w.test", first),
        ("w.test", first),
        ("else.test", first),
        (None, first),
    ):
        assert _shown(shown.context(), name).serial_number == _serial(pair), name
    handed_out = shown.context()
    shown.use(first.certificate, first.private_key)
    assert _shown(handed_out, "track.test").serial_number == _serial(first)


def test_a_certificate_for_one_more_name_is_replaced_without_a_restart(tmp_path: Path) -> None:
    first, old, new = (authority().issue(name) for name in ("mx.test", "track.test", "track.test"))
    shown = ServerCertificate(first.certificate, first.private_key, [_install(old, tmp_path)])
    context = shown.context()
    assert _shown(context, "track.test").serial_number == _serial(old)
    _install(new, tmp_path)
    assert _shown(context, "track.test").serial_number == _serial(new)


def test_what_cannot_be_used_leaves_what_is_shown(tmp_path: Path) -> None:
    first = authority().issue("mx.test")
    shown = ServerCertificate(first.certificate, first.private_key)
    with pytest.raises(ConfigError):
        shown.use(first.certificate, first.private_key, [(tmp_path / "none.pem", tmp_path / "none.key")])
    assert _shown(shown.context()).serial_number == _serial(first)
