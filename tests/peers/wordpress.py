"""A WordPress of its own (Debian's package): its site in one folder, its database in a MariaDB that only it knows.

Programs and WordPress itself are the package's. Ours are the settings, ``wp-content`` and the database, as they are a
site owner's; there is no web server, and what a visitor would call is called by PHP's command line.
"""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peers import processes

START_S = 30.0
STOP_S = 10.0
PHP_S = 30.0
OWNER = "admin"

# It stands for Debian's wp-config.php, which reads such a file in /etc/wordpress. Nothing here asks the network: no
# cron that calls the site itself, and no other host.
CONFIG = """<?php
$_SERVER += ['HTTP_HOST' => '{host}', 'REQUEST_METHOD' => 'GET', 'REMOTE_ADDR' => '192.0.2.1'];
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('ABSPATH', '{source}/');
define('WP_CONTENT_DIR', '{folder}/wp-content');
define('WP_SITEURL', 'http://{host}');
define('DB_HOST', 'localhost:{folder}/db.sock');
define('DB_NAME', 'wordpress');
define('DB_USER', 'root');
define('DB_PASSWORD', '');
define('DB_CHARSET', 'utf8mb4');
define('DISABLE_WP_CRON', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = 'wp_';
require_once ABSPATH . 'wp-settings.php';
add_filter('block_local_requests', '__return_true');
"""
SCRIPT = """<?php
{first}
require '{folder}/wp-config.php';
$answer = (function () {{ {body} }})();
echo "\\n", json_encode($answer);
"""
INSTALL = """
require ABSPATH . 'wp-admin/includes/upgrade.php';
return wp_install('{title}', '{owner}', '{address}', false, '', 'password-of-the-owner')['user_id'];
"""


@dataclass(frozen=True)
class Programs:
    """What must be installed: packages ``wordpress``, ``php-cli`` and ``mariadb-server-core``."""

    source: Path
    php: Path
    mariadbd: Path
    install_db: Path


class WordPress:
    """``async with WordPress(programs, ca_file, host)``: the database runs; ``install`` makes the site of that host.

    ``plugin`` is where the README puts its settings.
    """

    def __init__(self, programs: Programs, ca_file: Path, host: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="arkrelay-wordpress-"))  # a socket's path has at most 107 octets
        self.plugin = self.folder / "wp-content" / "mu-plugins" / "arkrelay.php"
        self._programs = programs
        self._ca_file = ca_file
        self._host = host
        self._database: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            self.plugin.parent.mkdir(parents=True)
            config = CONFIG.format(host=self._host, source=self._programs.source, folder=self.folder)
            (self.folder / "wp-config.php").write_text(config)
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def install(self, title: str, address: str) -> None:
        """Make the tables and the owner, with this address; WordPress then writes the owner a mail."""
        body = INSTALL.format(title=title, owner=OWNER, address=address)
        assert await self._php(body, first="define('WP_INSTALLING', true);") == 1

    async def call(self, body: str) -> Any:
        """Return what this body of a PHP function returns inside the site, as far as JSON can say it."""
        return await self._php(body)

    async def _php(self, body: str, first: str = "") -> Any:
        script = self.folder / "script.php"
        script.write_text(SCRIPT.format(first=first, folder=self.folder, body=body))
        # without the README's settings WordPress would hand its mail to this machine's sendmail
        values = ("sendmail_path=/bin/false", f"openssl.cafile={self._ca_file}", "display_errors=stderr")
        options = [option for value in values for option in ("-d", value)]
        said = await self._run(PHP_S, self._programs.php, *options, script)
        return json.loads(said.splitlines()[-1])

    async def _run(self, limit_s: float, *command: str | Path) -> str:
        """Return what a program printed; AssertionError when it failed."""
        ran = await processes.run(self.folder, *command, limit_s=limit_s)
        assert ran.status == 0, (command[0], ran.status, ran.out[-1000:], ran.err[-2000:])
        return ran.out

    async def _start(self) -> None:
        folder = self.folder
        (folder / "first.sql").write_text("CREATE DATABASE wordpress CHARACTER SET utf8mb4;\n")
        shared = ["--no-defaults", f"--datadir={folder}/data", "--innodb-log-file-size=8M"]
        if os.geteuid() == 0:
            shared.append("--user=root")  # root has to say that it means it
        fresh = ("--auth-root-authentication-method=normal", "--skip-test-db")
        await self._run(START_S, self._programs.install_db, *shared, *fresh)
        own = (
            *("--skip-networking", f"--socket={folder}/db.sock", f"--pid-file={folder}/db.pid"),
            *(f"--init-file={folder}/first.sql", "--innodb-buffer-pool-size=16M"),
            "--innodb-flush-log-at-trx-commit=0",  # what is lost when the machine dies was to be thrown away
        )
        with (folder / "log").open("wb") as log:
            self._database = await asyncio.create_subprocess_exec(
                self._programs.mariadbd, *shared, *own, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        await self._greeted()

    async def _greeted(self) -> None:
        """Return once the database greets: the first octets come from it, unlike the connection."""
        try:
            async with asyncio.timeout(START_S):
                while self._database is not None and self._database.returncode is None:
                    with contextlib.suppress(OSError):
                        reader, writer = await asyncio.open_unix_connection(self.folder / "db.sock")
                        greeting = await reader.read(1)
                        writer.close()
                        await writer.wait_closed()
                        if greeting:
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        raise AssertionError(f"MariaDB does not answer: {(self.folder / 'log').read_text()[-3000:]}")

    async def _stop(self) -> None:
        await processes.end(self._database, STOP_S)
        shutil.rmtree(self.folder, ignore_errors=True)
