"""``Mx``: an SMTP server on loopback that does as its script says, also rudely, and remembers what it saw.

    async with Mx(Script(rcpt={"bad@x.test": "550 5.1.1 no"})) as mx:
        ...  # deliver to 127.0.0.1:mx.port
        await mx.wait(1)
        assert mx.messages[0].content == b"..."

A stage of the script is an ``Act``, or a ``Turns`` of acts used one after the other (over all connections; the
last one repeats):

- ``"550 no"``, ``"250-a\\n250 b"``: a reply, each line gets its CRLF. ``b"..."``: these very octets.
- ``HANG``: say nothing more, keep the connection. ``CLOSE``, ``RESET``: end it by FIN or RST.
- ``Delay(0.5, act)``; ``Drip(b"...", every_s)``: an octet at a time; ``Flood(b"...")``: the same again and again
  until the client leaves; ``Then(act, act)``: one after the other at the same stage.

None at a stage: what a plain server does. A message counts as taken (``mx.messages``) when its final dot was seen
and the answer was 2xx, or no answer at all; others are in ``mx.refused``.
"""

import asyncio
import base64
import contextlib
import enum
import hashlib
import hmac
import random
import re
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


class End(enum.Enum):
    """What a peer may do instead of answering."""

    HANG = "hang"
    CLOSE = "close"
    RESET = "reset"


HANG, CLOSE, RESET = End.HANG, End.CLOSE, End.RESET


@dataclass(frozen=True)
class Delay:
    """Wait, then act."""

    seconds: float
    act: "Act"


@dataclass(frozen=True)
class Drip:
    """Send octet by octet."""

    data: bytes
    every_s: float = 0.02


@dataclass(frozen=True)
class Flood:
    """Send the same without end."""

    data: bytes


class Then:
    """Do one act after the other, at one stage."""

    def __init__(self, *acts: "Act") -> None:
        self.acts = acts


Act = str | bytes | End | Delay | Drip | Flood | Then | None


class Turns:
    """Another act each time the stage is reached; the last one repeats."""

    def __init__(self, *acts: Act) -> None:
        self._acts = list(acts)
        self.taken = 0  # how often the stage was reached

    def next(self) -> Act:
        """Return the act whose turn it is."""
        self.taken += 1
        return self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]


Stage = Act | Turns

PLAIN_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 52428800", "ENHANCEDSTATUSCODES")


@dataclass
class Script:
    """What to do at each stage; see the head of this file."""

    connect: Stage = None
    banner: Stage = None
    ehlo: Stage = None
    helo: Stage = None
    extensions: Sequence[str] = PLAIN_EXTENSIONS  # STARTTLS is added where ``tls`` is set, AUTH where ``users`` is
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    starttls: Stage = None
    handshake: Stage = None  # instead of the handshake
    after_tls_ehlo: Stage = None
    users: Mapping[str, str] = field(default_factory=dict)
    mechanisms: str = "PLAIN LOGIN CRAM-MD5"
    auth: Stage = None
    mail: Stage = None
    rcpt: Stage | Mapping[str, Stage] = None
    data: Stage = None
    upload: Stage = None  # after ``upload_after`` octets of content
    upload_after: int = 1
    read_rate: float = 0.0  # octets of content per second; 0: as fast as they come
    dot: Stage = None
    idle: Stage = None  # unasked for, after the answer to the dot
    rset: Stage = None
    quit: Stage = None
    unknown: Stage = None  # any other command


@dataclass
class Received:
    """One message as it came: ``content`` without dot-stuffing and without the final dot."""

    helo: str
    return_path: str
    mail_parameters: str
    recipients: list[str]
    recipient_parameters: list[str]
    content: bytes
    tls: bool
    username: str | None
    client: str
    connection: int
    at: float


class Gone(Exception):
    """The conversation is over."""


class _Conversation:
    def __init__(self, mx: "Mx", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.mx, self.reader, self.writer, self.number = mx, reader, writer, number
        self.script = mx.scripts.get(writer.get_extra_info("peername")[0], mx.script)
        self.raw = writer.transport  # below TLS
        self.buffer = b""
        self.segments: list[bytes] = []
        self.commands: list[str] = []
        self.helo = ""
        self.tls = False
        self.username: str | None = None
        self.envelope: tuple[str, str] | None = None
        self.recipients: list[tuple[str, str]] = []
        self.undecided: Received | None = None
        self.answered = 0  # the code of the last reply

    # octets

    async def more(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            raise Gone
        self.segments.append(data)
        self.buffer += data

    async def line(self) -> bytes:
        while b"\n" not in self.buffer:
            await self.more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        if not line.endswith(b"\r"):
            self.mx.violations.append(f"bare LF after {line!r}")
        return line.rstrip(b"\r")

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def act(self, stage: Stage, default: str) -> int:
        """Do what the stage says; return the code of the reply, or 0 when it was no reply."""
        match act := _plain(stage, default):
            case bytes():
                self.answered = _code(act)
                await self.write(act)
                return self.answered
            case End():
                return await self.end(act)
            case Delay(seconds, then):
                await asyncio.sleep(seconds)
                return await self.act(then, default)
            case Drip(data, every_s):
                for octet in data:
                    await self.write(bytes([octet]))
                    await asyncio.sleep(every_s)
                return _code(data)
            case Flood(data):
                while True:
                    await self.write(data)
                    await asyncio.sleep(0)
            case Then():
                return [await self.act(one, default) for one in act.acts][-1]
        raise AssertionError(act)

    async def end(self, how: End) -> int:
        self.decide()
        if how is RESET:
            reset(self.writer)
        while how is HANG and await self.reader.read(65536):
            pass
        raise Gone

    # the conversation

    async def run(self) -> None:
        script = self.script
        if script.connect is not None:
            await self.act(script.connect, "")
        if script.implicit_tls:
            await self.start_tls()
        if await self.act(script.banner, "220 mx.test ESMTP") >= 400:
            await self.until_quit()
        while True:
            line = await self.line()
            text = line.decode("utf-8", "surrogateescape")
            self.commands.append(text)
            verb = text[:4].upper()
            if self.buffer and (
                "PIPELINING" not in script.extensions or verb in {"EHLO", "DATA", "STAR", "AUTH", "QUIT"}
            ):
                self.mx.violations.append(f"octets waiting behind {text!r}")
            handler = {
                "EHLO": self.on_ehlo,
                "HELO": self.on_helo,
                "STAR": self.on_starttls,
                "AUTH": self.on_auth,
                "MAIL": self.on_mail,
                "RCPT": self.on_rcpt,
                "DATA": self.on_data,
                "RSET": self.on_rset,
                "QUIT": self.on_quit,
            }.get(verb)
            if handler is None:
                await self.act(self.script.unknown, "500 5.5.1 what?")
            else:
                await handler(text)

    async def until_quit(self) -> None:
        while (await self.line()).upper() != b"QUIT":
            pass
        await self.write(b"221 bye\r\n")
        raise Gone

    async def on_ehlo(self, text: str) -> None:
        self.helo = text[5:]
        lines = ["mx.test greets you", *self.script.extensions]
        if self.script.tls and not self.tls:
            lines.append("STARTTLS")
        if self.script.users:
            lines.append(f"AUTH {self.script.mechanisms}")
        default = "\n".join(f"250{'-' if n < len(lines) else ' '}{line}" for n, line in enumerate(lines, 1))
        stage = self.script.after_tls_ehlo if self.tls and self.script.after_tls_ehlo else self.script.ehlo
        await self.act(stage, default)

    async def on_helo(self, text: str) -> None:
        self.helo = text[5:]
        await self.act(self.script.helo, "250 mx.test")

    async def on_starttls(self, text: str) -> None:
        if await self.act(self.script.starttls, "220 2.0.0 go ahead") == 220:
            await self.start_tls()
            self.envelope, self.recipients, self.helo = None, [], ""

    async def start_tls(self) -> None:
        if self.script.handshake is not None:
            await self.act(self.script.handshake, "")
        assert self.script.tls is not None
        try:
            await self.writer.start_tls(self.script.tls)
        except OSError as error:  # ssl.SSLError among them
            self.mx.handshake_errors.append(str(error))
            raise Gone from error
        self.tls = True

    async def ask(self, prompt: bytes) -> bytes:
        await self.write(b"334 " + base64.b64encode(prompt) + b"\r\n")
        answer = await self.line()
        return base64.b64decode(answer) if answer != b"*" else b""

    async def on_auth(self, text: str) -> None:
        mechanism, _, response = text[5:].partition(" ")
        self.mx.mechanisms.append(mechanism)
        name = secret = ""
        ok = False
        if self.script.auth is None:
            if mechanism == "PLAIN":
                raw = base64.b64decode(response) if response else await self.ask(b"")
                _, name, secret = raw.decode().split("\0")
            elif mechanism == "LOGIN":
                name = (await self.ask(b"Username:")).decode()
                secret = (await self.ask(b"Password:")).decode()
            else:
                challenge = b"<1.2@mx.test>"
                name, _, digest = (await self.ask(challenge)).decode().rpartition(" ")
                wanted = self.script.users.get(name, "")
                ok = digest == hmac.new(wanted.encode(), challenge, hashlib.md5).hexdigest()
            ok = ok or (name in self.script.users and self.script.users[name] == secret)
        if await self.act(self.script.auth, "235 2.7.0 hello" if ok else "535 5.7.8 wrong") == 235:
            self.username = name

    async def on_mail(self, text: str) -> None:
        if self.envelope is not None:
            self.mx.violations.append(f"nested {text!r}")
            await self.write(b"503 5.5.1 nested MAIL\r\n")
            return
        found = re.match(r"MAIL FROM:<(.*?)>(?: (.*))?$", text)
        if found is None:
            self.mx.violations.append(f"syntax of {text!r}")
            await self.write(b"501 5.5.4 syntax\r\n")
        elif await self.act(self.script.mail, "250 2.1.0 sender ok") // 100 == 2:
            self.envelope = found[1], found[2] or ""

    async def on_rcpt(self, text: str) -> None:
        found = re.match(r"RCPT TO:<(.*?)>(?: (.*))?$", text)
        if self.envelope is None:
            await self.write(b"503 5.5.1 MAIL first\r\n")
        elif found is None:
            self.mx.violations.append(f"syntax of {text!r}")
            await self.write(b"501 5.5.4 syntax\r\n")
        else:
            rcpt = self.script.rcpt
            stage = rcpt.get(found[1]) if isinstance(rcpt, Mapping) else rcpt
            if await self.act(stage, "250 2.1.5 recipient ok") // 100 == 2:
                self.recipients.append((found[1], found[2] or ""))

    async def on_data(self, text: str) -> None:
        if not self.recipients and self.script.data is None:
            await self.write(b"503 5.5.1 RCPT first\r\n")
            return
        if await self.act(self.script.data, "354 go ahead") != 354:
            return
        stuffed = await self.content()
        content = re.sub(rb"(?m)^\.", b"", stuffed)
        if not self.recipients:
            self.mx.lone_dots += content == b""
            self.envelope = None
            await self.write(b"554 5.5.1 no recipients\r\n")
            return
        assert self.envelope is not None
        received = Received(
            helo=self.helo,
            return_path=self.envelope[0],
            mail_parameters=self.envelope[1],
            recipients=[address for address, _ in self.recipients],
            recipient_parameters=[parameters for _, parameters in self.recipients],
            content=content,
            tls=self.tls,
            username=self.username,
            client=self.writer.get_extra_info("peername")[0],
            connection=self.number,
            at=time.time(),
        )
        self.envelope, self.recipients = None, []
        self.undecided, self.answered = received, 0
        try:
            await self.act(self.script.dot, "250 2.0.0 queued")
        finally:  # also when the client leaves or the script ends it
            self.decide()
        if self.script.idle is not None:
            await self.act(self.script.idle, "")

    def decide(self) -> None:
        """Count the message: taken, unless the last answer was a refusal."""
        if self.undecided is not None:
            self.mx.note(self.undecided, taken=self.answered < 400)
            self.undecided = None

    async def content(self) -> bytes:
        """Return what came up to the final dot, still stuffed."""
        begun, stuffed, acted = time.monotonic(), bytearray(), False
        self.buffer = b"\r\n" + self.buffer  # the CRLF of DATA may be the first of CRLF.CRLF (RFC 5321 §4.1.1.4)
        searched = 0
        while (end := self.buffer.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self.buffer) - 4)
            if self.script.upload is not None and not acted and len(self.buffer) - 2 >= self.script.upload_after:
                acted = True
                await self.act(self.script.upload, "")
            if self.script.read_rate:
                data = await self.reader.read(int(self.script.read_rate / 20) or 1)
                if not data:
                    raise Gone
                self.buffer += data
                await asyncio.sleep(max(0.0, len(self.buffer) / self.script.read_rate - (time.monotonic() - begun)))
            else:
                await self.more()
        stuffed += self.buffer[2 : end + 2]
        self.buffer = self.buffer[end + 5 :]
        if re.search(rb"(?<!\r)\n|\r(?!\n)", bytes(stuffed)):
            self.mx.violations.append("bare CR or LF in the content")
        return bytes(stuffed)

    async def on_rset(self, text: str) -> None:
        self.envelope, self.recipients = None, []
        await self.act(self.script.rset, "250 2.0.0 forgotten")

    async def on_quit(self, text: str) -> None:
        await self.act(self.script.quit, "221 2.0.0 bye")
        raise Gone


def _plain(stage: Stage, default: str) -> Act:
    act = stage.next() if isinstance(stage, Turns) else stage
    if act is None:
        act = default
    return "".join(f"{line}\r\n" for line in act.split("\n")).encode() if isinstance(act, str) else act


def _code(reply: bytes) -> int:
    return int(reply[:3]) if reply[:3].isdigit() else 0


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Mx:
    """The server; ``script`` may be replaced between connections."""

    def __init__(self, script: Script | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script or Script()
        self.scripts: dict[str, Script] = {}  # instead, for clients at these addresses
        self.host, self.port = host, port
        self.messages: list[Received] = []
        self.refused: list[Received] = []
        self.conversations: list[_Conversation] = []
        self.violations: list[str] = []  # what a client must never do
        self.handshake_errors: list[str] = []
        self.mechanisms: list[str] = []  # of AUTH, as asked for
        self.lone_dots = 0
        self._open = 0
        self.most = 0  # the most connections at once
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=16384)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for conversation in self.conversations:
            conversation.raw.abort()  # also what still had something to say
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def shrink(self, octets: int = 16384) -> None:
        """Let the kernel keep only little of what later connections send."""
        for listener in self._server.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return len(self.conversations)

    @property
    def open(self) -> int:
        """How many there are now."""
        return self._open

    def note(self, received: Received, *, taken: bool) -> None:
        """Keep ``received`` and wake those who wait."""
        (self.messages if taken else self.refused).append(received)
        self._wake()

    async def wait(self, count: int = 1, timeout_s: float = 10.0) -> list[Received]:
        """Return the messages when there are ``count`` of them."""
        await self._until(lambda: len(self.messages) >= count, timeout_s)
        return self.messages

    async def wait_open(self, timeout_s: float = 10.0) -> None:
        """Return when a connection is open."""
        await self._until(lambda: self._open > 0, timeout_s)

    async def wait_closed(self, timeout_s: float = 10.0) -> None:
        """Return when no connection is open."""
        await self._until(lambda: self._open == 0, timeout_s)

    async def _until(self, predicate: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(predicate)

    def _wake(self) -> None:
        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        conversation = _Conversation(self, reader, writer, len(self.conversations))
        self.conversations.append(conversation)
        self._open += 1
        self.most = max(self.most, self._open)
        self._wake()
        try:
            await conversation.run()
        except (Gone, OSError, asyncio.CancelledError):
            pass  # cancelled: the test is over
        finally:
            self._open -= 1
            if asyncio.get_running_loop().is_running():
                self._wake()
            with contextlib.suppress(OSError):
                writer.close()
            self._tasks.discard(task)


@contextlib.asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """Give a port of 127.0.0.1 where a connection attempt is never answered: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port() -> int:
    """Return a port of 127.0.0.1 where nobody listens, also a while later.

    It is below those that the kernel gives out (32768 and up, by default), which somebody's next connection may get.
    """
    for _ in range(100):
        port = random.SystemRandom().randint(12_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port of 127.0.0.1 is free")
