"""A real DNS server on loopback, UDP and TCP on one port, whose zone and whose manners a test changes as it runs.

Run it by hand from ``tests/`` with ``python -m peers.dns 5353 'example.test MX 10 mx.example.test.' …``.
"""

import asyncio
import contextlib
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

ANY = "*"
FAULTS = frozenset(
    {
        "servfail",
        "refused",
        "formerr",
        "nxdomain",
        "timeout",  # no answer at all, on UDP and on TCP
        "truncate",  # UDP says TC, TCP answers
        "tcp-hang",  # UDP says TC, TCP accepts and stays silent
        "tcp-close",  # UDP says TC, TCP hangs up
        "tcp-garbage",  # UDP says TC, TCP answers rubbish of the right length
        "garbage",
        "short",  # three bytes
        "wrong-id",
        "wrong-question",
        "not-a-response",  # the QR bit is missing
        "cname-loop",
        "formerr-with-edns",  # as servers from before RFC 6891 do; without EDNS they answer
        "spoof-first",  # rubbish, a wrong id and a wrong question come before the right answer
    }
)


@dataclass(frozen=True, slots=True)
class Query:
    """One question as it arrived; ``payload`` is the EDNS buffer size, None without EDNS."""

    name: str
    rdtype: str
    transport: str
    payload: int | None = None


class DnsServer:
    """``async with DnsServer() as dns:`` answers on ``dns.address`` from the zone that ``set`` fills.

    Names are written with or without the final dot. Unknown names are NXDOMAIN, known names without the type
    (and names above a known one) are NODATA, both with a SOA whose minimum is ``negative_ttl``.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, ad: bool = False, negative_ttl: int = 60) -> None:
        self.host, self.port = host, port
        self.ad = ad
        self.negative_ttl = negative_ttl
        self.queries: list[Query] = []
        self.arrived = asyncio.Event()  # set by each query; a test clears it to wait for the next
        self.gate: asyncio.Event | None = None  # when set to an Event, answers wait for it
        self._zone: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        self._names: set[dns.name.Name] = set()
        self._faults: dict[tuple[str, str], tuple[str, int | None]] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def set(self, name: str, rdtype: str, *values: str, ttl: int = 300) -> None:
        """Replace the records of this name and type; values are in zone file form, TXT with or without quotes."""
        kind = dns.rdatatype.from_text(rdtype)
        if kind == dns.rdatatype.TXT:
            values = tuple(value if value.startswith('"') else _quoted(value) for value in values)
        owner = _name(name)
        self._zone[owner, kind] = dns.rrset.from_text_list(owner, ttl, "IN", rdtype, values)
        self._names.update(_with_ancestors(owner))

    def remove(self, name: str, rdtype: str | None = None) -> None:
        """Take away one type of this name, or the whole name."""
        owner = _name(name)
        kind = None if rdtype is None else dns.rdatatype.from_text(rdtype)
        self._zone = {
            key: found for key, found in self._zone.items() if key[0] != owner or kind not in {None, key[1]}
        }
        self._index()

    def fail(self, name: str, rdtype: str, how: str, times: int | None = None) -> None:
        """Answer this question badly, ``times`` times or until ``heal``; ``"*"`` stands for any name or type."""
        assert how in FAULTS, how
        self._faults[_key(name), rdtype] = (how, times)

    def heal(self) -> None:
        """Answer well again."""
        self._faults.clear()

    def count(self, name: str | None = None, rdtype: str | None = None) -> int:
        """Return how many queries came, of this name and type where given."""
        wanted = None if name is None else _key(name)
        return sum(
            wanted in {None, query.name} and rdtype in {None, query.rdtype}  # None: any
            for query in self.queries
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on UDP and TCP at the same port."""
        loop = asyncio.get_running_loop()
        wanted = self.port
        for _ in range(50):  # another process may hold the TCP port that goes with a free UDP port
            udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(self.host, wanted))
            port = udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_tcp, self.host, port)
            except OSError:
                udp.close()
                if wanted:
                    raise
                continue
            self._udp, self.port = udp, port
            return
        raise OSError("no port is free for both UDP and TCP")

    async def stop(self) -> None:
        """Close the port; a later ``start`` listens on the same one."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def answer(self, wire: bytes, transport: str) -> list[bytes]:
        """Return the packets with which this query is answered: none, one, or several."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, rdtype, transport, query.payload if query.edns >= 0 else None))
        self.arrived.set()
        how = self._fault(name, rdtype)
        return self._misbehave(how, query, transport) if how else [self._wire(self._reply(query), transport, query)]

    def _fault(self, name: str, rdtype: str) -> str | None:
        for key in ((name, rdtype), (name, ANY), (ANY, rdtype), (ANY, ANY)):
            if key in self._faults:
                how, times = self._faults[key]
                if times is not None:
                    if times <= 1:
                        del self._faults[key]
                    else:
                        self._faults[key] = (how, times - 1)
                return how
        return None

    def _misbehave(self, how: str, query: dns.message.Message, transport: str) -> list[bytes]:
        if how in {"truncate", "tcp-hang", "tcp-close", "tcp-garbage"} and transport == "udp":
            return [_truncated(query)]
        if how == "tcp-close":
            raise ConnectionAbortedError
        good = self._reply(query)
        right = self._wire(good, transport, query)
        wrong_id = struct.pack("!H", (query.id + 1) % 65536) + right[2:]
        other = dns.message.make_query("other.invalid.", query.question[0].rdtype, id=query.id)
        wrong_question = _coded(other, dns.rcode.NXDOMAIN)
        answers: dict[str, list[bytes]] = {
            "timeout": [],
            "tcp-hang": [],
            "garbage": [b"\xff" * 64],
            "tcp-garbage": [b"\xff" * 64],
            "short": [b"\x00\x01\x02"],
            "cname-loop": [self._wire(_looped(good), transport, query)],
            "wrong-id": [wrong_id],
            "wrong-question": [wrong_question],
            "not-a-response": [query.to_wire()],
            "spoof-first": [b"\xff" * 40, b"", wrong_id, wrong_question, right],
            "truncate": [right],
            "formerr-with-edns": [_formerr_without_edns(query)] if query.edns >= 0 else [right],
        }
        return answers[how] if how in answers else [_coded(query, dns.rcode.from_text(how.upper()))]

    def _reply(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if self.ad:
            reply.flags |= dns.flags.AD
        question = query.question[0]
        owner = question.name.canonicalize()
        for _ in range(20):
            found = self._zone.get((owner, question.rdtype))
            alias = self._zone.get((owner, dns.rdatatype.CNAME))
            if found is not None:
                reply.answer.append(found)
                return reply
            if alias is None:
                break
            reply.answer.append(alias)
            owner = dns.name.from_text(alias[0].to_text().split()[-1]).canonicalize()
        if owner not in self._names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        soa = f"ns.invalid. admin.invalid. 1 3600 600 86400 {self.negative_ttl}"
        reply.authority.append(dns.rrset.from_text(_top(owner), self.negative_ttl, "IN", "SOA", soa))
        return reply

    def _wire(self, reply: dns.message.Message, transport: str, query: dns.message.Message) -> bytes:
        if transport == "tcp":
            return bytes(reply.to_wire(max_size=65535))
        try:
            return bytes(reply.to_wire(max_size=query.payload if query.edns >= 0 else 512))
        except dns.exception.TooBig:
            return _truncated(query)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                wire = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
                if self.gate is not None:
                    await self.gate.wait()
                for packet in self.answer(wire, "tcp"):
                    writer.write(struct.pack("!H", len(packet)) + packet)
                await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    def _index(self) -> None:
        self._names = {ancestor for owner, _ in self._zone for ancestor in _with_ancestors(owner)}


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        if self._server.gate is not None:
            task = asyncio.create_task(self._later(self._server.gate, data, addr))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
            return
        for packet in self._server.answer(data, "udp"):
            self._transport.sendto(packet, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._waiting:
            task.cancel()

    async def _later(self, gate: asyncio.Event, data: bytes, addr: tuple[str, int]) -> None:
        packets = self._server.answer(data, "udp")
        await gate.wait()
        assert self._transport is not None
        for packet in packets:
            self._transport.sendto(packet, addr)


def _name(name: str) -> dns.name.Name:
    return dns.name.from_text(name).canonicalize()


def _key(name: str) -> str:
    return name.rstrip(".").lower()


def _with_ancestors(name: dns.name.Name) -> Iterable[dns.name.Name]:
    yield name
    while name != dns.name.root:
        name = name.parent()
        yield name


def _top(name: dns.name.Name) -> dns.name.Name:
    return dns.name.Name(name.labels[-2:])


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return " ".join(f'"{escaped[start : start + 200]}"' for start in range(0, len(escaped) or 1, 200))


def _coded(query: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(rcode)
    return bytes(reply.to_wire())


def _formerr_without_edns(query: dns.message.Message) -> bytes:
    plain = dns.message.from_wire(query.to_wire())
    plain.use_edns(edns=False)
    return _coded(plain, dns.rcode.FORMERR)


def _looped(reply: dns.message.Message) -> dns.message.Message:
    owner = reply.question[0].name
    other = dns.name.Name((b"loop", *owner.labels))
    looped = dns.message.from_wire(dns.message.make_query(owner, reply.question[0].rdtype, id=reply.id).to_wire())
    looped.flags |= dns.flags.QR
    looped.answer = [
        dns.rrset.from_text(owner, 60, "IN", "CNAME", other.to_text()),
        dns.rrset.from_text(other, 60, "IN", "CNAME", owner.to_text()),
    ]
    return looped


def _truncated(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return bytes(reply.to_wire())


async def _main(port: str, records: list[str]) -> None:
    async with DnsServer(port=int(port)) as server:
        for record in records:
            name, rdtype, value = record.split(maxsplit=2)
            server.set(name, rdtype, value)
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1], sys.argv[2:]))
