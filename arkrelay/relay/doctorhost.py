"""The doctor's look at this machine: certificate, clock, disk, files, resolver."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from arkrelay.config.files import mode_of
from arkrelay.config.keyfiles import KeyFileError, check_certificate
from arkrelay.model.settings import Settings, Tls
from arkrelay.policy import doctorhost as judge
from arkrelay.policy.doctorhost import Certificate
from arkrelay.policy.finding import Finding, Level
from arkrelay.relay.bench import Bench
from arkrelay.wire.dns import Resolver
from arkrelay.wire.tls import verifying

FILES_MAX = 20_000  # looked at; a key store of that size is somebody's mistake
OTHERS = 0o007


async def resolver(resolver: Resolver) -> list[Finding]:
    """Ask each nameserver for the root's SOA: does it answer, and how fast?"""
    found = await resolver.latencies()
    return [
        judge.judge_resolver(server, None, said) if isinstance(said, str) else judge.judge_resolver(server, said, "")
        for server, said in found.items()
    ]


async def dnssec(bench: Bench) -> list[Finding]:
    """Ask whether the resolver proves the root zone, which is signed."""
    secure = await bench.resolver.root_is_proved()
    dane = bench.snapshot.settings.delivery.dane
    return [judge.judge_dnssec(trusted=bench.resolver.trusted, secure=secure, dane=dane)]


async def certificate(bench: Bench) -> list[Finding]:
    """Look at the certificate as its file has it, and shake hands with it in memory as a client would."""
    settings = bench.snapshot.settings
    if settings.tls is None:
        advice = "with a [tls] section peers can bring bounces encrypted, and clients can submit from elsewhere"
        return [Finding("certificate", settings.hostname, Level.SKIP, "there is no [tls]", "", advice)]
    one = await asyncio.to_thread(_certificate, settings.tls, settings.hostname)
    return [judge.judge_certificate(settings.hostname, one, bench.now)]


def _certificate(tls: Tls, hostname: str) -> Certificate | str:
    try:
        leaf = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
        check_certificate(tls, leaf.not_valid_before_utc)
        names = _names(leaf)
        problem = _shake_hands(tls, hostname) if judge.covers(names, hostname) else None
    except KeyFileError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{tls.certificate}: {error}"
    ends_at = leaf.not_valid_after_utc.timestamp()
    return Certificate(str(tls.certificate), names, ends_at, problem, self_signed=leaf.issuer == leaf.subject)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def _shake_hands(tls: Tls, hostname: str) -> str | None:
    """Return why a client with this system's authorities refuses the certificate, or None; nothing is connected."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(tls.certificate, tls.private_key, password=lambda: b"")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = verifying().wrap_bio(to_client, to_server, server_hostname=hostname)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):  # TLS 1.3 needs two turns, TLS 1.2 three
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return str(error.verify_message)
            except ssl.SSLError as error:
                return str(error.reason or error)
        if len(done) == 2:
            return None
    return "the handshake does not end"


async def clock(bench: Bench) -> list[Finding]:
    """Ask the kernel whether something keeps its clock."""
    return [judge.judge_clock(synchronised=bench.machine.clock_is_kept())]


async def disk(bench: Bench) -> list[Finding]:
    """Look at room and inodes of the state directory's file system."""
    settings = bench.snapshot.settings
    try:
        stat = os.statvfs(settings.state_dir)
    except OSError as error:
        folder, advice = str(settings.state_dir), "run this as root or as the service's user; the daemon makes it"
        return [Finding("disk", folder, Level.SKIP, str(error.strerror), "", advice)]
    free_bytes = stat.f_bavail * stat.f_frsize
    least = settings.limits.min_free_disk_bytes
    return [judge.judge_disk(str(settings.state_dir), free_bytes, least, (stat.f_favail, stat.f_files))]


async def files(bench: Bench) -> list[Finding]:
    """Look at the modes of what holds keys and mail."""
    settings = bench.snapshot.settings
    try:
        found, looked_at = await asyncio.to_thread(_open_files, settings)
    except OSError as error:
        return [Finding("files", str(settings.state_dir), Level.SKIP, str(error.strerror))]
    return [judge.judge_files(found, looked_at, str(settings.state_dir))]


def _open_files(settings: Settings) -> tuple[dict[str, int], int]:
    """Return the modes of what others can read, and how many were looked at."""
    found: dict[str, int] = {}
    count = 0
    for path in _secrets(settings):
        try:
            mode = mode_of(path)
        except OSError:
            continue  # gone meanwhile, or not ours to look at
        count += 1
        if mode & OTHERS and not path.is_symlink():
            found[str(path)] = mode
    return found, count


def _secrets(settings: Settings) -> Iterator[Path]:
    """Yield what nobody else may read; inside of a closed state directory the kernel lets nobody in anyway."""
    state_dir = settings.state_dir
    yield state_dir / "keys"
    if settings.tls is not None:
        yield settings.tls.private_key
    for index, path in enumerate((state_dir / "keys").rglob("*")):
        if index >= FILES_MAX:
            break
        yield path
    if mode_of(state_dir) & OTHERS:
        yield from state_dir.glob("arkrelay.db*")
