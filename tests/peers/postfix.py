"""A Postfix of its own: configuration, queue, data and mailboxes in one folder, several addresses of loopback.

It needs root, as every Postfix does. Each address is a server with manners of its own, so one instance is the MX of
several domains; ``DOMAINS`` says which. Mail ends in maildirs, one per address (``Postfix.wait``), and mail to our
own return paths in a mailbox of theirs, so that what Postfix reports about a message can be read too; or with
``returns_to`` to that port of this machine. What ``lost`` names is accepted and bounces later.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from peers import processes
from peers.certificates import Pair

START_S = 30.0
STOP_S = 20.0
SMALL_BYTES = 20_480
RETURN_PATHS = "rp.relay.test"  # where the relay of peers.daemon has its return paths
WITHHELD = "starttls,pipelining,8bitmime,smtputf8,dsn,size,etrn,vrfy,enhancedstatuscodes,chunking"
COMPLAINTS = ("lost connection", "improper", "warning:", "fatal:", "timeout after")

# domain → address, and what is different at this address
DOMAINS = {
    "full.test": ("127.54.0.1", ""),
    "small.test": ("127.54.0.2", f"-o message_size_limit={SMALL_BYTES}"),
    "bare.test": ("127.54.0.3", f"-o message_size_limit={SMALL_BYTES} -o smtpd_discard_ehlo_keywords={WITHHELD}"),
}

MAIN = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}
myhostname = mx.full.test
mydestination =
mynetworks =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
default_transport = error:nothing leaves
relay_transport = error:nothing leaves
local_transport = error:nothing is local
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
notify_classes =
virtual_mailbox_domains = {domains} {return_paths}
transport_maps = texthash:{folder}/etc/transport
virtual_alias_maps = texthash:{folder}/etc/aliases
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = texthash:{folder}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_mailbox_limit = 0
message_size_limit = 10240000
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access texthash:{folder}/etc/access, reject_unauth_destination
smtpd_data_restrictions = reject_unauth_pipelining
smtpd_tls_security_level = may
smtp_tls_security_level = may
smtp_tls_loglevel = 1
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {private_key}
smtpd_tls_received_header = yes
smtputf8_enable = yes
"""

MASTER = """\
{servers}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """``async with Postfix(port, pair, mailboxes)``: started, and stopped with its folder gone."""

    def __init__(
        self,
        port: int,
        pair: Pair,
        mailboxes: tuple[str, ...],
        access: str = "",
        *,
        returns_to: int = 0,
        lost: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="arkrelay-postfix-"))
        self._pair = pair
        self._mailboxes = mailboxes
        self._access = access
        self._returns_to = returns_to
        self._lost = lost or {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            self._write()
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def log(self) -> str:
        file = self.folder / "log" / "maillog"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def complaints(self) -> list[str]:
        """Return what Postfix found wrong with its clients, or with itself; a large message is no fault of either."""
        lines = [line for line in self.log.splitlines() if "queue file size limit exceeded" not in line]
        return [line for line in lines if any(words in line for words in COMPLAINTS)]

    async def wait(self, mailbox: str, containing: bytes = b"", timeout_s: float = 30.0) -> bytes:
        """Return the message in this mailbox with these octets, lines ended by CRLF; AssertionError with the log."""
        folder = self.folder / "mail" / _place(mailbox) / "new"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for file in folder.glob("*"):
                        content = file.read_bytes()
                        if containing in content:
                            return content.replace(b"\n", b"\r\n")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"nothing came for {mailbox}: {self.log[-3000:]}") from None

    def count(self, mailbox: str) -> int:
        """Return how many messages there are in this mailbox."""
        return len(list((self.folder / "mail" / _place(mailbox) / "new").glob("*")))

    def _write(self) -> None:
        self.folder.chmod(0o755)  # the services run as the user postfix
        for name in ("etc", "spool", "data", "log", "mail"):
            (self.folder / name).mkdir()
        owner, nobody = pwd.getpwnam("postfix"), pwd.getpwnam("nobody")
        os.chown(self.folder / "data", owner.pw_uid, owner.pw_gid)
        os.chown(self.folder / "mail", nobody.pw_uid, nobody.pw_gid)
        certificate, private_key = self.folder / "etc" / "cert.pem", self.folder / "etc" / "key.pem"
        shutil.copy(self._pair.certificate, certificate)
        shutil.copy(self._pair.private_key, private_key)
        private_key.chmod(0o600)
        servers = "\n".join(
            f"{address}:{self.port} inet n - n - - smtpd {options}" for address, options in DOMAINS.values()
        )
        files = {
            "master.cf": MASTER.format(servers=servers),
            "main.cf": MAIN.format(
                folder=self.folder,
                domains=" ".join(DOMAINS),
                return_paths="" if self._returns_to else RETURN_PATHS,
                uid=nobody.pw_uid,
                gid=nobody.pw_gid,
                certificate=certificate,
                private_key=private_key,
            ),
            "mailboxes": "".join(f"{name} {_place(name)}/\n" for name in (*self._mailboxes, f"@{RETURN_PATHS}")),
            "access": self._access,
            # at its own name it would be refused at once
            "aliases": "".join(f"{address} {_lost(address)}\n" for address in self._lost),
            "transport": "".join(f"{_lost(address)} error:{why}\n" for address, why in self._lost.items())
            + (f"{RETURN_PATHS} smtp:[127.0.0.1]:{self._returns_to}\n" if self._returns_to else ""),
        }
        for name, text in files.items():
            (self.folder / "etc" / name).write_text(text)

    async def _start(self) -> None:
        """Make the queue's folders and start the master as our own child: ``postfix start-fg`` would hide its pid."""
        etc = str(self.folder / "etc")
        quiet = asyncio.subprocess.DEVNULL
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": etc}
        check = await asyncio.create_subprocess_exec(
            "/usr/sbin/postfix", "-c", etc, "check", stdin=quiet, stdout=quiet, stderr=quiet, env=environment
        )
        async with asyncio.timeout(START_S):
            await check.wait()
        self._process = await asyncio.create_subprocess_exec(
            *("/usr/lib/postfix/sbin/master", "-c", etc, "-s"),
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            env=environment,
        )
        for address, _ in DOMAINS.values():
            await self._greeted(address)

    async def _greeted(self, address: str) -> None:
        try:
            async with asyncio.timeout(START_S):
                while self._process is not None and self._process.returncode is None:
                    with contextlib.suppress(OSError):
                        reader, writer = await asyncio.open_connection(address, self.port)
                        banner = await reader.readline()
                        writer.write(b"QUIT\r\n")
                        await reader.read()
                        writer.close()
                        await writer.wait_closed()
                        if banner.startswith(b"220 "):
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        raise AssertionError(f"Postfix does not answer at {address}:{self.port}: {self.log[-3000:]}")

    async def _stop(self) -> None:
        await processes.end(self._process, STOP_S)  # the master passes it on to its services
        shutil.rmtree(self.folder, ignore_errors=True)


def _place(mailbox: str) -> str:
    local, _, domain = mailbox.rpartition("@")
    return f"{domain}/{local or 'everyone'}"


def _lost(address: str) -> str:
    return f"{address.partition('@')[0]}@lost.test"
