"""The rest of the world for ``arkrelay demo``, on loopback: a DNS server, and a recipient's MX with STARTTLS."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from aiosmtpd.smtp import SMTP, Envelope, Session

LOOPBACK = "127.0.0.1"
TTL_S = 60


class Zone:
    """The records that our DNS server knows; every name that it does not know does not exist."""

    def __init__(self) -> None:
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], list[str]] = {}

    def add(self, name: str, kind: str, *values: str) -> None:
        """Serve these values, spelled as in a zone file."""
        self._records.setdefault((_name(name), dns.rdatatype.from_text(kind)), []).extend(values)

    def add_text(self, name: str, text: str) -> None:
        """Serve a TXT record of any length, in strings of 255 octets (RFC 1035 §3.3.14)."""
        parts = [text[at : at + 255] for at in range(0, len(text), 255)]
        quoted = ('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
        self.add(name, "TXT", " ".join(quoted))

    def texts(self, name: str) -> Sequence[str]:
        """Return the TXT records of ``name``, each joined, as a verifier of DKIM wants them."""
        found = self._records.get((_name(name), dns.rdatatype.TXT), [])
        sets = [dns.rrset.from_text(_name(name), TTL_S, "IN", "TXT", value) for value in found]
        return [b"".join(rdata.strings).decode() for one in sets for rdata in one]

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """Return the authoritative answer, following CNAMEs within the zone."""
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AA
        question = query.question[0]
        name = question.name.canonicalize()
        for _ in range(8):  # longer than any chain in a demonstration
            values = self._records.get((name, question.rdtype))
            if values:
                reply.answer.append(dns.rrset.from_text(name, TTL_S, "IN", question.rdtype, *values))
                return reply
            alias = self._records.get((name, dns.rdatatype.CNAME))
            if not alias:
                break
            reply.answer.append(dns.rrset.from_text(name, TTL_S, "IN", dns.rdatatype.CNAME, *alias))
            name = _name(alias[0])
        if not any(known == name or known.is_subdomain(name) for known, _ in self._records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text).canonicalize()


class DnsServer(asyncio.DatagramProtocol):
    """A DNS server for one zone, over UDP; ``await DnsServer.start(zone)``, then ``port``."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0

    @classmethod
    async def start(cls, zone: Zone) -> "DnsServer":
        """Listen on a free port of loopback."""
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(lambda: cls(zone), local_addr=(LOOPBACK, 0))
        server._transport, server.port = transport, transport.get_extra_info("sockname")[1]  # noqa: SLF001 -- own
        return server

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        """Answer one query; what is no query gets silence."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        if self._transport is not None and len(query.question) == 1:
            self._transport.sendto(self._zone.answer(query).to_wire(), addr)

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message as the MX got it."""

    return_path: str
    recipient: str
    content: bytes
    tls: str  # "TLSv1.3", or "" in clear text


class Mx:
    """A mail server that takes everything for its recipients, one by one, into ``arrived``."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Delivered] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd
        """Keep the message, once for each recipient."""
        content = envelope.original_content or b""
        for recipient in envelope.rcpt_tos:
            delivered = Delivered(envelope.mail_from or "", recipient, content, _version(server.transport))
            self.arrived.put_nowait(delivered)
        return "250 2.0.0 thank you"

    async def start(self, hostname: str, context: ssl.SSLContext) -> None:
        """Listen on a free port of loopback, offering STARTTLS."""
        loop = asyncio.get_running_loop()

        def session() -> SMTP:
            return SMTP(self, hostname=hostname, tls_context=context, enable_SMTPUTF8=True, loop=loop, ident="demo")

        self._server = await loop.create_server(session, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


def _version(transport: asyncio.BaseTransport | None) -> str:
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    return str(found.version()) if found is not None else ""
