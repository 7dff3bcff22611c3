"""DANE towards MX hosts: a real validating resolver, signed zones, and hosts with every kind of certificate."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from peers import certificates
from peers.certificates import Pair
from peers.daemon import Relay
from peers.mx import Mx, Script, closed_port
from peers.policyhost import PolicyHost, policy
from peers.unbound import Record, Unbound

ZONE, INSECURE = "dane.test", "plain.test"
Shown = Callable[[str], Pair | None]  # host → what it shows; None: no TLS
RELAY = 'mta_sts_port = {port}\n\n[delivery.timeouts]\nconnect = "2s"\ncommand = "3s"\n'


def good(host: str) -> Pair:
    return certificates.authority().issue(host)


def self_signed(host: str) -> Pair:
    return certificates.authority().issue(host, self_signed=True)


def expired(host: str) -> Pair:
    return certificates.authority().issue(host, expired=True)


def other(_host: str) -> Pair:
    return certificates.authority().issue("elsewhere.test")


def of_domain(host: str) -> Pair:
    return certificates.authority().issue(host.partition(".")[2])


def no_tls(_host: str) -> None:
    return None


def with_chain(shown: Callable[[str], Pair]) -> Shown:
    def both(host: str) -> Pair:
        pair = shown(host)
        with pair.certificate.open("ab") as file:
            file.write(certificates.authority().ca_file.read_bytes())
        return pair

    return both


@dataclass(frozen=True)
class Row:
    """A domain; ``tlsa`` are its records as "usage selector matching of", of: leaf, ca or wrong."""

    id: str
    shows: tuple[Shown, ...]
    tlsa: tuple[str, ...]
    status: str
    policy: str = "dane"
    verified: bool = True
    words: str = ""
    counted: tuple[str, str] | None = None
    connections: int | None = None
    zone: str = ZONE
    broken: bool = False
    sts: bool = False  # an enforced MTA-STS policy that names another host


def _rows() -> list[Row]:
    mismatch = {"words": "no TLSA record matches its certificate", "counted": ("tlsa", "tlsa-invalid")}
    rows = [
        Row(f"ee-{selector}-{matching}", (self_signed,), (f"3 {selector} {matching} leaf",), "sent")
        for selector in (0, 1)
        for matching in (0, 1, 2)
    ]
    rows += [
        Row("ee-counted", (self_signed,), ("3 1 1 leaf",), "sent", counted=("tlsa", "")),
        Row("ee-expired", (expired,), ("3 1 1 leaf",), "sent"),
        Row("ee-other-name", (other,), ("3 1 1 leaf",), "sent"),
        Row("ee-one-of-two", (good,), ("3 1 1 wrong", "3 1 1 leaf"), "sent"),
        Row("ee-wrong", (good,), ("3 1 1 wrong",), "softfail", connections=1, **mismatch),  # type: ignore[arg-type]  # two fields of two types
        Row("ee-of-ca", (with_chain(good),), ("3 1 1 ca",), "softfail", **mismatch),  # type: ignore[arg-type]  # likewise
        Row("ee-no-tls", (no_tls,), ("3 1 1 leaf",), "softfail", words="does not offer STARTTLS", connections=1),
        Row("ta-shown", (with_chain(good),), ("2 0 1 ca",), "sent"),
        Row("ta-key", (with_chain(good),), ("2 1 2 ca",), "sent"),
        Row("ta-of-domain", (with_chain(of_domain),), ("2 0 1 ca",), "sent"),
        Row("ta-in-dns", (good,), ("2 0 0 ca",), "sent"),
        Row("ta-not-shown", (good,), ("2 0 1 ca",), "softfail", **mismatch),  # type: ignore[arg-type]  # likewise
        Row("ta-of-leaf", (with_chain(good),), ("2 0 1 leaf",), "softfail", **mismatch),  # type: ignore[arg-type]  # likewise
        Row(
            "ta-other-name", (with_chain(other),), ("2 0 1 ca",), "softfail", words="its certificate is not for mx0."
        ),
        Row("ta-expired", (with_chain(expired),), ("2 0 1 ca",), "softfail", words="has expired"),
        Row("ta-self-signed", (with_chain(self_signed),), ("2 0 1 ca",), "softfail", **mismatch),  # type: ignore[arg-type]  # likewise
        Row("pkix-only", (self_signed,), ("1 1 1 wrong", "0 0 1 wrong"), "sent", verified=False),
        Row("pkix-only-no-tls", (no_tls,), ("1 1 1 wrong",), "softfail", words="its DANE records demand TLS"),
        Row("pkix-and-ee", (self_signed,), ("1 1 1 wrong", "3 1 1 leaf"), "sent"),
        Row("malformed", (self_signed,), ("3 0 0 short", "2 1 0 short"), "sent", verified=False),
        Row("unknown-types", (self_signed,), ("3 1 9 wrong", "4 1 1 wrong", "3 7 1 wrong"), "sent", verified=False),
        Row("second-host", (good, self_signed), ("3 1 1 wrong", "3 1 1 leaf@1"), "sent"),
        Row("none", (self_signed,), (), "sent", policy="none", verified=False),
        Row("insecure", (self_signed,), ("3 1 1 wrong",), "sent", policy="none", verified=False, zone=INSECURE),
        Row(
            "bogus",
            (good,),
            ("3 1 1 leaf",),
            "softfail",
            words="its DANE records are not known: TLSA look-up of",
            counted=("tlsa", "dnssec-invalid"),
            connections=0,
            broken=True,
        ),
        Row("before-mta-sts", (self_signed,), ("3 1 1 leaf",), "sent", sts=True),
    ]
    return rows


ROWS = _rows()


@dataclass
class Seen:
    mxs: list[Mx] = field(default_factory=list)
    email: dict[str, Any] = field(default_factory=dict)
    counted: dict[tuple[str, str], int] = field(default_factory=dict)


def _record(spec: str, leaf: bytes | None) -> str:
    """Return the value of one TLSA record."""
    usage, selector, matching, of = spec.partition("@")[0].split(" ")
    if of in {"wrong", "short"} or leaf is None:
        return f"{usage} {selector} {matching} {'00' * (32 if of != 'short' else 5)}"
    pem = certificates.authority().ca_file.read_bytes() if of == "ca" else leaf
    certificate = x509.load_pem_x509_certificate(pem)
    data = certificate.public_bytes(Encoding.DER)
    if selector == "1":
        data = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching != "0":
        data = hashlib.new({"1": "sha256", "2": "sha512"}[matching], data).digest()
    return f"{usage} {selector} {matching} {data.hex()}"


def _domain(row: Row) -> str:
    return f"{row.id}.{row.zone}"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], Path]) -> dict[str, Seen]:
    """Send to all rows at once, and return what became of each."""
    return asyncio.run(_run(tmp_path_factory.mktemp("dane"), need("unbound")))


async def _run(folder: Path, program: Path) -> dict[str, Seen]:
    port, web_port = closed_port(), closed_port()
    seen = {row.id: Seen() for row in ROWS}
    records: dict[str, list[Record]] = {ZONE: [], INSECURE: []}
    broken: list[str] = []
    number = 1
    async with contextlib.AsyncExitStack() as stack:
        for row in ROWS:
            domain = _domain(row)
            for place, shows in enumerate(row.shows):
                host, address = f"mx{place}.{domain}", f"127.0.40.{number}"
                number += 1
                pair = shows(host)
                leaf = None if pair is None else pair.certificate.read_bytes()
                script = Script() if pair is None else Script(tls=pair.server_context())
                seen[row.id].mxs.append(await stack.enter_async_context(Mx(script, host=address, port=port)))
                records[row.zone] += [(domain, "MX", f"{place} {host}."), (host, "A", address)]
                mine = [spec for spec in row.tlsa if int(spec.partition("@")[2] or 0) == place]
                records[row.zone] += [(f"_{port}._tcp.{host}", "TLSA", _record(spec, leaf)) for spec in mine]
                broken += [f"_{port}._tcp.{host}"] if row.broken else []
            if row.sts:
                web = f"mta-sts.{domain}"
                served = PolicyHost(certificates.authority().issue(web).server_context(), "127.0.0.1", web_port)
                (await stack.enter_async_context(served)).files[web] = policy("enforce", "elsewhere.test")
                records[row.zone] += [(f"_mta-sts.{domain}", "TXT", '"v=STSv1; id=1;"'), (web, "A", "127.0.0.1")]
        resolver = Unbound(program, closed_port(), folder)
        resolver.add(ZONE, records[ZONE], broken=broken)
        resolver.add(INSECURE, records[INSECURE], signed=False)
        await stack.enter_async_context(resolver)
        relay = Relay(folder, dns=resolver.address, mx_port=port, delivery=RELAY.format(port=web_port))
        relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
        async with relay:
            tokens = {row.id: await relay.send(f"someone@{_domain(row)}") for row in ROWS}
            for row in ROWS:
                path = f"/v1/emails/{tokens[row.id]}?expand=deliveries"
                answer = await relay.until(path, lambda found: found["data"]["attempts"] > 0)
                seen[row.id].email = answer["data"]
        await relay.start()  # what was counted is on disk
        try:
            for row in ROWS:
                told = (await relay.get(f"/v1/control/tls?domain={_domain(row)}"))["data"]
                for one in told["sessions"]:
                    seen[row.id].counted[one["policy"], one["result"] or ""] = one["sessions"]
        finally:
            await relay.stop()
        assert [line for line in relay.lines() if line["event"] in {"task_crashed", "tls_broken"}] == []
    return seen


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_tlsa_records_decide_which_certificate_is_the_hosts(row: Row, outcomes: dict[str, Seen]) -> None:
    seen = outcomes[row.id]
    assert seen.email["status"] == row.status, seen.email
    arrived = [message for mx in seen.mxs for message in mx.messages]
    delivery = seen.email["deliveries"][-1]
    if row.status == "sent":
        assert [message.tls for message in arrived] == [True]
        assert (delivery["tls"]["policy"], delivery["tls"]["verified"]) == (row.policy, row.verified)
    else:
        assert arrived == []
        assert delivery["classification"] == "tls_required"
        assert row.words in delivery["details"], delivery
    if row.connections is not None:
        assert sum(mx.connections for mx in seen.mxs) == row.connections
    if row.counted is not None:
        assert seen.counted.get(row.counted) == 1, seen.counted
