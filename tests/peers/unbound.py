"""A validating resolver (Debian's unbound) on loopback, and signed zones for it to validate."""

import asyncio
import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.dnssec
import dns.dnssectypes
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

START_S = 10.0
Record = tuple[str, str, str]  # name, type, value in zone file form

CONFIG = """\
server:
    interface: 127.0.0.1@{port}
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-ip6: no
    module-config: "validator iterator"
    local-zone: "test." nodefault
    harden-below-nxdomain: no
    do-not-query-localhost: no
{anchors}
{zones}
remote-control:
    control-enable: no
"""
ZONE = """\
auth-zone:
    name: "{name}"
    zonefile: "{file}"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
"""


class Unbound:
    """``async with Unbound(program, port, folder) as resolver``: zones come by ``add`` before it starts."""

    def __init__(self, program: Path, port: int, folder: Path) -> None:
        self._program = program
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._folder = folder
        self._zones = ""
        self._anchors = ""
        self._process: asyncio.subprocess.Process | None = None

    def add(self, name: str, records: Iterable[Record], *, signed: bool = True, broken: Iterable[str] = ()) -> None:
        """Serve a zone; signatures over the TLSA records of ``broken`` names are made wrong."""
        lines = ["@ 300 IN SOA ns hostmaster 1 3600 600 86400 60", "@ 300 IN NS ns", "ns 300 IN A 127.0.0.1"]
        lines += [f"{owner}. 300 IN {kind} {value}" for owner, kind, value in records]
        zone = dns.zone.from_text("\n".join(lines), origin=f"{name}.", relativize=False)
        if signed:
            key = ec.generate_private_key(ec.SECP256R1())
            dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
            now = dt.datetime.now(dt.UTC)
            dns.dnssec.sign_zone(
                zone,
                keys=[(key, dnskey)],
                inception=now - dt.timedelta(hours=1),
                expiration=now + dt.timedelta(days=1),
            )
            self._anchors += f'    trust-anchor: "{name}. DNSKEY {dnskey.to_text()}"\n'
        text = zone.to_text(relativize=False)
        for owner in broken:
            text = "\n".join(_corrupted(line) if _signs(line, owner) else line for line in text.splitlines()) + "\n"
        file = self._folder / f"{name}.zone"
        file.write_text(text)
        self._zones += ZONE.format(name=name, file=file)

    async def __aenter__(self) -> Self:
        folder = self._folder
        config = folder / "unbound.conf"
        config.write_text(CONFIG.format(port=self._port, folder=folder, anchors=self._anchors, zones=self._zones))
        with (folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program, "-d", "-c", config, stderr=log, stdout=log
            )
        try:
            async with asyncio.timeout(START_S):
                while self._process.returncode is None:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    except OSError:
                        await asyncio.sleep(0.05)
                        continue
                    writer.close()
                    return self
        except TimeoutError:
            pass
        raise AssertionError(f"unbound does not answer: {(folder / 'log').read_text()[-2000:]}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


def _signs(line: str, owner: str) -> bool:
    words = line.split()
    return words[0] == f"{owner}." and words[3:5] == ["RRSIG", "TLSA"]


def _corrupted(line: str) -> str:
    """Return an RRSIG whose signature is of something else."""
    start, signature = line[:-20], line[-20:]
    return start + ("A" if signature[0] != "A" else "B") + signature[1:]
