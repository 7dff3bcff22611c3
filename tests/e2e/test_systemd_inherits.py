"""What the daemon gets from systemd: sockets that are listening already, credentials, and a journal to write to."""

import asyncio
import contextlib
import os
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from peers import certificates
from peers.daemon import START_S, Relay
from peers.dns import DnsServer
from peers.mx import Mx
from peers.systemd import Launched, datagrams, write_certificate

PASSWORD = "a-password-that-stands-in-no-file"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


# -- sockets --------------------------------------------------------------------------------------------------------

# systemd forks, moves the sockets to 3, 4, … and says for whom they are; only the process itself knows its number.
ACTIVATE = """
import fcntl, os, sys
given = [int(number) for number in os.environ.pop("TEST_FDS").split()]
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in given]
for number in given:
    os.close(number)
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
    os.close(number)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = str(len(high)), str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "arkrelay", "serve", "-c", sys.argv[1]])
"""
SOCKETS = """\
hostname = "relay.test"
state_dir = "state"

[[listen]]
service = "bounces"
address = "127.0.0.1:{bounces}"

[[listen]]
service = "submission"
address = "127.0.0.1:{submission}"

[[listen]]
service = "submissions"
address = "127.0.0.1:{submissions}"

[tls]
certificate = "cert.pem"
private_key = "key.pem"

[limits]
min_free_disk = "1MB"
"""


@pytest.fixture
def sockets() -> Iterator[dict[str, socket.socket]]:
    """Give the listening sockets of the three socket units."""
    found = {name: socket.create_server(("127.0.0.1", 0)) for name in ("bounces", "submission", "submissions")}
    yield found
    for sock in found.values():
        sock.close()


def activated(folder: Path, sockets: dict[str, socket.socket]) -> Launched:
    relay = Launched(folder)
    write_certificate(folder)
    ports = {name: sock.getsockname()[1] for name, sock in sockets.items()}
    relay.config.write_text(SOCKETS.format(**ports))
    relay.code = ACTIVATE
    relay.pass_fds = [sock.fileno() for sock in sockets.values()]
    relay.environment["TEST_FDS"] = " ".join(str(sock.fileno()) for sock in sockets.values())
    relay.environment["LISTEN_FDNAMES"] = ":".join(sockets)
    return relay


async def greeting(port: int, context: ssl.SSLContext | None = None) -> str:
    """Connect, and return the first line, whenever it comes."""
    async with asyncio.timeout(2 * START_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=None if context is None else "relay.test"
        )
        try:
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_clients_wait_in_the_sockets_of_systemd_while_the_daemon_is_away(
    tmp_path: Path, sockets: dict[str, socket.socket]
) -> None:
    relay = activated(tmp_path, sockets)
    context = ssl.create_default_context(cafile=certificates.authority().ca_file)
    for _ in range(2):  # the second time after a stop
        waiting = {
            name: asyncio.create_task(greeting(sock.getsockname()[1], context if name == "submissions" else None))
            for name, sock in sockets.items()
        }
        await relay.start()
        for name, task in waiting.items():
            assert (await task).startswith("220 relay.test"), name
        bound = {listener["service"]: listener["address"] for listener in relay.listeners}
        for name, sock in sockets.items():
            assert bound[name] == f"127.0.0.1:{sock.getsockname()[1]}"
        assert await relay.stop() == 0


async def test_the_first_connection_starts_the_daemon(tmp_path: Path, need: Callable[[str | Path], Path]) -> None:
    need("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    relay = Launched(tmp_path)
    relay.config.write_text(
        f'hostname = "relay.test"\nstate_dir = "state"\n[[listen]]\nservice = "submission"\ntls = "none"\n'
        f'address = "127.0.0.1:{port}"\ntenant = "acme"\n[limits]\nmin_free_disk = "1MB"\n'
    )
    relay.prefix = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=submission"]
    # the tool passes on only what it is told to
    relay.prefix += [f"--setenv={name}" for name in os.environ if name.startswith(("COV", "PYTHON"))]
    await relay.launch()
    line = ""
    async with asyncio.timeout(START_S):
        while not line:  # until the tool listens
            with contextlib.suppress(ConnectionRefusedError):
                line = await greeting(port)
    assert line == "220 relay.test ESMTP arkrelay"
    await relay.ready()
    assert await relay.stop() == 0


# -- credentials and journal ----------------------------------------------------------------------------------------

VAULT = """
[[credentials]]
name = "vault"
type = "smtp"
secret = "credential:vault"
"""


async def test_a_secret_may_be_a_credential_of_systemd(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir(0o700)
    (credentials / "vault").write_text(PASSWORD)
    (credentials / "vault").chmod(0o400)
    relay = Relay(tmp_path, tenant=VAULT)
    relay.config.write_text(relay.config.read_text().replace('tenant = "acme"\n', "", 1))
    relay.environment["CREDENTIALS_DIRECTORY"] = str(credentials)

    def log_in(password: str) -> int:
        with smtplib.SMTP("127.0.0.1", relay.port(), timeout=10) as client:
            with contextlib.suppress(smtplib.SMTPAuthenticationError):
                return client.login("acme/vault", password)[0]
            return 535

    async with relay:
        assert await asyncio.to_thread(log_in, PASSWORD) == 235
        assert await asyncio.to_thread(log_in, PASSWORD + "x") == 535
    assert PASSWORD not in relay.log.read_text()


async def test_a_credential_that_is_not_there_is_named(tmp_path: Path) -> None:
    relay = Launched(tmp_path, tenant=VAULT)
    relay.environment["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    await relay.launch()
    assert relay.process is not None
    assert await asyncio.wait_for(relay.process.wait(), START_S) == 1
    said = relay.log.read_text()
    assert f"{tmp_path}/tenants/acme.toml: credentials[1].secret: {tmp_path}/vault cannot be read" in said
    assert "Traceback" not in said


JOURNAL = """
import sys
from arkrelay.base import log
log.JOURNAL = {journal!r}
from arkrelay.__main__ import main
sys.argv = ["arkrelay", "serve", "-c", sys.argv[1]]
sys.exit(main())
"""


async def test_under_systemd_the_log_is_fields_in_the_journal(tmp_path: Path, dns: DnsServer) -> None:
    async with datagrams(tmp_path / "journal") as journal, Mx() as mx:
        relay = Launched(tmp_path, dns=dns.address, mx_port=mx.port)
        relay.code = JOURNAL.format(journal=str(tmp_path / "journal"))
        relay.log.touch()
        status = relay.log.stat()
        relay.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        async with relay:
            token = await relay.send("ann@rcpt.test")
            lines = await journal.until(lambda lines: "ARKRELAY_STATUS=sent" in lines)
    (settled,) = [data.decode() for data in journal.received if b"ARKRELAY_STATUS=sent" in data]
    fields = dict(line.split("=", 1) for line in settled.splitlines())
    assert fields["MESSAGE"].startswith(f"{fields['ARKRELAY_EVENT']} ")
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "arkrelay"
    assert fields["ARKRELAY_RECIPIENT"] == "ann@rcpt.test"
    assert fields["ARKRELAY_ID"] == token
    assert "ARKRELAY_EVENT=started" in lines
    assert "ARKRELAY_EVENT=stopped" in journal.lines()
    assert relay.log.read_text() == ""


CLOSED = """
import os, sys
os.close(2)
os.execv(sys.executable, [sys.executable, "-m", "arkrelay", "serve", "-c", sys.argv[1]])
"""


async def test_it_runs_without_a_standard_error(tmp_path: Path) -> None:
    relay = Launched(tmp_path)
    relay.code = CLOSED
    async with relay:
        assert relay.process is not None
        assert os.readlink(f"/proc/{relay.process.pid}/fd/2") == os.devnull  # noqa: PTH115 -- a pathlib call warns more
        await relay.send("ann@rcpt.test")
