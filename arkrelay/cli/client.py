"""Talk to the running daemon: over its unix socket, or over a loopback listener with an organisation key.

On the socket the daemon knows us by our peer credentials (root or its own user); elsewhere, and for other
users, $ARKRELAY_KEY holds an organisation key. Where the daemon listens is read from the configuration file
alone and leniently, so ``status`` works while a tenant file is broken.
"""

import asyncio
import errno
import ipaddress
import os
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from arkrelay.cli.state import KEY_VARIABLE, Failed

SOCKET_NAME = "arkrelay.sock"
STATE_DIR = "/var/lib/arkrelay"
DEFAULT_HTTP = "127.0.0.1:8025"
CONNECT_S = 5.0  # a local daemon accepts at once, or it hangs
ANSWER_S = 60.0  # a look-up, a reload, a page of the queue
LONG_S = 3600.0  # a backup or vacuum of a large database

Body = dict[str, Any]
T = TypeVar("T")


class NotRunning(Failed):
    """Nobody answers where the daemon would."""


class Denied(Failed):
    """The daemon said no: its HTTP status, its error code (Ark contract §2.3), and what it found wrong in files."""

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        problems: Sequence[Mapping[str, str]] = (),
        code_name: str = "",
    ) -> None:
        self.status, self.problems, self.code_name = status, tuple(problems), code_name
        super().__init__(message, hint)


@dataclass(frozen=True, slots=True)
class Door:
    """One place where the daemon may answer: a unix socket, or the base of a URL."""

    shown: str
    socket: Path | None = None
    base: str = "http://arkrelay"


def read_settings(config: Path) -> Body:
    """Return the configuration file as TOML gives it, unchecked; ``check`` is the command that judges it."""
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failed(
            f"{config}: no such file", "name yours with -c FILE or $ARKRELAY_CONFIG, or write one: arkrelay init"
        ) from None
    except OSError as error:
        raise Failed(f"{config}: {error.strerror}", "run this as root or as the service's user") from None
    except ValueError as error:
        raise Failed(f"{config}: {error}") from None


def doors(config: Path) -> list[Door]:
    """Return where the daemon of this configuration may answer, the control socket first."""
    raw = read_settings(config)
    state_dir = config.parent / str(raw.get("state_dir", STATE_DIR))
    found = [Door(str(state_dir / SOCKET_NAME), socket=state_dir / SOCKET_NAME)]
    listeners = raw.get("listen", [{"service": "http", "address": DEFAULT_HTTP}])
    for listener in listeners if isinstance(listeners, list) else []:
        if not isinstance(listener, dict) or listener.get("service") != "http":
            continue
        door = _door(str(listener.get("address", "")), config, secure=listener.get("tls") == "required")
        found += [door] if door else []
    return found


def _door(address: str, config: Path, *, secure: bool) -> Door | None:
    if address.startswith("unix:"):
        return Door(address, socket=config.parent / address.removeprefix("unix:"))
    reached = on_loopback(address)
    if reached is None:
        return None  # a key belongs on loopback: a public listener is for clients that check certificates
    host, port = reached
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Door(shown, base=f"{'https' if secure else 'http'}://{shown}")


def on_loopback(address: str) -> tuple[str, int] | None:
    """Return host and port under which this machine reaches a listener, or None where that is not loopback."""
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    if parsed.is_unspecified:
        parsed = ipaddress.ip_address("::1" if parsed.version == 6 else "127.0.0.1")
    if not parsed.is_loopback or not port.isdecimal():
        return None
    return str(parsed), int(port)


class Daemon:
    """The running daemon, for one command. Every method raises ``NotRunning`` or ``Denied``."""

    def __init__(self, config: Path, door: Door | None = None, key: str | None = None) -> None:
        self.config = config
        self.key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self._door = door  # the one that answered last, or the only one to be asked

    def data(
        self, method: str, path: str, body: Body | None = None, *, timeout_s: float = ANSWER_S, **query: object
    ) -> Any:
        """Return ``data`` of the answer."""
        return self.body(method, path, body, timeout_s=timeout_s, **query).get("data")

    def body(
        self, method: str, path: str, body: Body | None = None, *, timeout_s: float = ANSWER_S, **query: object
    ) -> Body:
        """Return the whole answer, for pages. Query parameters that are None or empty are left out."""
        return asyncio.run(self.request(method, path, body, timeout_s=timeout_s, **query))

    def file(self, path: str, **query: object) -> bytes:
        """Return an answer that is a file, as it came."""
        return asyncio.run(self._first("GET", path, None, ANSWER_S, query, _read_file))

    async def request(
        self, method: str, path: str, body: Body | None = None, *, timeout_s: float = ANSWER_S, **query: object
    ) -> Body:
        """Return the whole answer of the first door that accepts a connection."""
        return await self._first(method, path, body, timeout_s, query, _read)

    async def _first(
        self,
        method: str,
        path: str,
        body: Body | None,
        timeout_s: float,
        query: Mapping[str, object],
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        known = {name: _text(value) for name, value in query.items() if value is not None and value != ""}
        tried = []
        for door in [self._door] if self._door else doors(self.config):
            if door.socket is None and not self.key:
                continue  # without a key nobody but the socket would believe us
            try:
                answer = await self._ask(door, method, path, body, known, timeout_s, read)
            except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, OSError) as error:
                tried.append(f"{door.shown}: {_reason(error)}")
                continue
            self._door = door
            return answer
        hint = f"start it: systemctl start arkrelay, or arkrelay serve -c {self.config}"
        if any(os.strerror(errno.EACCES) in reason for reason in tried):
            hint = _advice(403)
        raise NotRunning(f"the daemon does not answer ({'; '.join(tried)})", hint)

    async def _ask(
        self,
        door: Door,
        method: str,
        path: str,
        body: Body | None,
        query: Mapping[str, str],
        timeout_s: float,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        connector = aiohttp.UnixConnector(str(door.socket)) if door.socket else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = URL(door.base + path, encoded=True).update_query(query)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            try:
                # A loopback listener shows the public name's certificate, or a self-signed one: no name to check.
                async with session.request(method, url, json=body, headers=headers, ssl=False) as response:
                    return await read(response)
            except aiohttp.ConnectionTimeoutError:
                raise
            except TimeoutError:
                raise Failed(
                    f"the daemon took {method} {path} and did not answer within {timeout_s:g} s",
                    "it may still finish: look at arkrelay status and its log",
                ) from None


async def _read_file(response: aiohttp.ClientResponse) -> bytes:
    if response.status >= 400:
        await _read(response)  # raises what it says
    return await response.read()


async def _read(response: aiohttp.ClientResponse) -> Body:
    try:
        body = await response.json(content_type=None)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Denied(response.status, f"the daemon answered {response.status} without JSON", _advice(response.status))
    if response.status < 400:
        return body
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or f"the daemon answered {response.status}")
    if error.get("field"):
        message = f"{error['field']}: {message}"
    hint = str(error.get("suggestion") or error.get("hint") or _advice(response.status))
    problems = body.get("problems") or error.get("problems") or ()
    raise Denied(response.status, message, hint, problems, str(error.get("code", "")))


def _advice(status: int) -> str:
    if status in {401, 403}:
        return f"run this as root or as the service's user, or set ${KEY_VARIABLE} to an organisation key"
    return "the daemon's log says more" if status >= 500 else ""


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _reason(error: Exception) -> str:
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
