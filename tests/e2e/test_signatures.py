"""Signatures of delivered messages, judged by others than ourselves.

dkimpy checks RSA and Ed25519. libopendkim checks them twice. ``opendkim-testmsg`` asks the DNS for the keys, through
a resolv.conf of its own in a mount namespace: that needs root, and the test is skipped where namespaces are not
allowed. ``opendkim -t`` takes the keys from a file, needs neither, and so always runs; it reads its message as text
lines, so it gets only messages whose lines have a usual length.

Each message has gone the whole way: through the SMTP door (or REST, where SMTP could not carry it), the store, the
signer and the wire. A message whose octet was changed afterwards must fail, or the judges would prove nothing.
"""

import asyncio
import base64
import os
import random
import smtplib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from peers.dns import DnsServer
from peers.mx import Mx, Script
from peers.office import HOST, Office, open_office, parse, record, verdicts

from arkrelay.mail.dkim import ED25519, generate_key, load_key, public_record

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESOLVER = f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}"  # where opendkim-testmsg asks, at port 53
SEVEN_BIT_HOST = "127.53.0.2"

BODIES = {
    "empty": b"",
    "one-line": b"Hello\r\n",
    "only-blank-lines": b"\r\n\r\n\r\n",
    "only-spaces": b"   \r\n \t \r\n",
    "trailing-blank-lines": b"Hello\r\n\r\n\r\n\r\n",
    "trailing-blanks": b"Hello  \r\n\tb\t \r\n  c  d \r\n \r\n",
    "leading-blank-lines": b"\r\n\r\n\r\nHello\r\n",
    "dot-lines": b".\r\n..\r\n...\r\n.a\r\n. \r\n.\r\n",
    "eight-bit": bytes(range(128, 256)) + b"\r\n\xff \xfe\r\n",
    "controls": bytes(octet for octet in range(1, 32) if octet not in b"\r\n") + b"\x7f\r\n",
    "bare-lf": b"one\ntwo\r\n\nthree\n\n\r\n",
    "long-lines": b"x" * 5000 + b"\r\n" + b" y" * 4000 + b"\r\n",
    "large": (b"0123456789abcdef" * 4 + b" \r\n") * 6000,  # its body is kept in a file
}
LONG = {"long-lines"}
HEADERS = {
    "folded": b"Subject: a\r\n\tfolded\r\n   subject \r\nX-Other:\r\n  late\r\n",
    "empty-fields": b"Subject:\r\nReply-To: \r\nX-Empty:   \r\n",
    "encoded": b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nCC: Bob <bob@rcpt.test>\r\n",
    "list": b"subject: s\r\nList-Unsubscribe: <mailto:u@sender.test>\r\nList-Id: <l.sender.test>\r\n",
    "mime": b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """Give a relay that signs twice; selector e1 is Ed25519."""
    folder = tmp_path_factory.mktemp("signatures")
    key = folder / "ed25519.pem"
    key.write_bytes(generate_key(ED25519))
    key.chmod(0o600)
    tenant = f'[[domains.dkim]]\nselector = "e1"\nprivate_key = "{key}"\nalgorithm = "{ED25519}"\n'
    async with open_office(folder, tenant=tenant) as opened:
        yield opened


@pytest.fixture(scope="module")
def records(office: Office) -> dict[str, str]:
    key = load_key((office.folder / "ed25519.pem").read_bytes(), ED25519)
    return {"s1": record(), "e1": public_record(key)}


async def deliver(office: Office, header: bytes, body: bytes, *, domain: str = "rcpt.test") -> bytes:
    """Return the message as the MX got it."""
    to = f"{office.recipient().partition('@')[0]}@{domain}"
    message = b"From: app@sender.test\r\nTo: %s\r\n%s\r\n%s" % (to.encode(), header, body)

    def submit() -> None:
        with smtplib.SMTP(HOST, office.door("local").port, timeout=30) as client:
            client.sendmail("app@sender.test", [to], message)

    await asyncio.to_thread(submit)
    return (await office.arrived(to)).content


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def delivered(office: Office) -> dict[str, bytes]:
    """Give every message of the tables as it was delivered, by its name."""
    plain = {name: (b"Subject: body\r\n", body) for name, body in BODIES.items()}
    found = {name: (header, b"Hello\r\n") for name, header in HEADERS.items()}
    return {name: await deliver(office, header, body) for name, (header, body) in (plain | found).items()}


@pytest.mark.parametrize("name", [*BODIES, *HEADERS])
async def test_dkimpy_believes_both_signatures(
    delivered: Mapping[str, bytes], records: Mapping[str, str], name: str
) -> None:
    content = delivered[name]
    body = BODIES.get(name, b"Hello\r\n").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert content.partition(b"\r\n\r\n")[2] == body
    assert [signature.split("a=")[1].split(";")[0] for signature in signatures(content)] == ["rsa-sha256", ED25519]
    assert verdicts(content, records) == [True, True]


async def test_dkimpy_sees_each_change(delivered: Mapping[str, bytes], records: Mapping[str, str]) -> None:
    content = delivered["one-line"]
    for changed in (
        content.replace(b"Hello", b"Hallo"),
        content.replace(b"Subject: body", b"Subject: bod"),
        content.replace(b"To: ", b"To: x"),
        content.replace(b"Subject: body", b"Subject: body\r\nReply-To: ceo@other.test"),  # oversigned
        content.replace(b"Subject: body", b"Subject: body\r\nFrom: ceo@other.test"),
        content + b"more\r\n",
    ):
        assert changed != content
        assert verdicts(changed, records) == [False, False]


async def test_a_message_without_a_last_line_end_is_signed_as_it_leaves(
    office: Office, records: Mapping[str, str]
) -> None:
    to = office.recipient()
    raw = f"From: app@sender.test\r\nTo: {to}\r\nSubject: x\r\n\r\nno end".encode()
    await office.relay.call(
        "POST",
        "/v1/emails/raw",
        {
            "tenantId": "acme",
            "from": "app@sender.test",
            "to": [to],
            "rawMessage": base64.b64encode(raw).decode(),
        },
    )
    content = (await office.arrived(to)).content
    assert content.endswith(b"\r\n\r\nno end\r\n")
    assert verdicts(content, records) == [True, True]


async def test_what_is_recoded_for_a_peer_of_seven_bits_is_signed_afterwards(
    office: Office, records: Mapping[str, str]
) -> None:
    office.dns.set("seven.test", "MX", "10 mx.seven.test.")
    office.dns.set("mx.seven.test", "A", SEVEN_BIT_HOST)
    async with Mx(Script(extensions=["PIPELINING"]), host=SEVEN_BIT_HOST, port=office.mx.port) as seven:
        header = b"Subject: s\r\n" + HEADERS["mime"]
        message = b"From: app@sender.test\r\nTo: ann@seven.test\r\n%s\r\nna\xc3\xafve\r\n" % header

        def submit() -> None:
            with smtplib.SMTP(HOST, office.door("local").port, timeout=30) as client:
                client.sendmail("app@sender.test", ["ann@seven.test"], message)

        await asyncio.to_thread(submit)
        content = (await seven.wait(1, 30.0))[0].content
        assert seven.violations == []
    assert content.isascii()
    assert parse(content).get_content().rstrip() == "naïve"
    assert verdicts(content, records) == [True, True]


async def test_opendkim_believes_them_with_the_keys_from_a_file(
    office: Office,
    need: Callable[[str], Path],
    delivered: Mapping[str, bytes],
    records: Mapping[str, str],
) -> None:
    opendkim = need("opendkim")
    keys, config, tested = office.folder / "keys.txt", office.folder / "opendkim.conf", office.folder / "tested"
    keys.write_text("".join(f"{name}._domainkey.sender.test {value}\n" for name, value in records.items()))
    config.write_text(f"Mode v\nSyslog no\nTestPublicKeys {keys}\n")
    tested.mkdir()
    files = {name: content for name, content in delivered.items() if name not in LONG}
    files["changed"] = delivered["one-line"].replace(b"Hello", b"Hallo")
    for name, content in files.items():
        (tested / name).write_bytes(content)
        ran = await office.run(opendkim, "-x", config, "-v", "-v", "-t", tested / name)
        assert ran.status == 0, ran.said
        passed = [part.split("header.a=")[1].split()[0] for part in ran.said.split("dkim=pass")[1:]]
        assert passed == ([] if name == "changed" else ["rsa-sha256", ED25519]), (name, ran.said)


async def test_opendkim_testmsg_believes_them_with_the_keys_from_the_dns(
    office: Office,
    need: Callable[[str], Path],
    delivered: Mapping[str, bytes],
    records: Mapping[str, str],
) -> None:
    testmsg, unshare = need("opendkim-testmsg"), need("unshare")
    if os.geteuid() != 0 or (await office.run(unshare, "--mount", "true")).status != 0:
        pytest.skip("no mount namespace of its own is allowed here")
    resolv = office.folder / "resolv.conf"
    resolv.write_text(f"nameserver {RESOLVER}\n")

    async def judge(content: bytes) -> int:
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$1" -C'
        ran = await office.run(unshare, "--mount", "sh", "-c", script, resolv, testmsg, stdin=content)
        return ran.status

    async with DnsServer(RESOLVER, 53) as dns:
        for name, value in records.items():
            dns.set(f"{name}._domainkey.sender.test", "TXT", value)
        for name, content in delivered.items():
            assert await judge(content) == 0, name
        assert await judge(delivered["one-line"].replace(b"Hello", b"Hallo")) != 0
        assert dns.count("s1._domainkey.sender.test", "TXT") > 0
        assert dns.count("e1._domainkey.sender.test", "TXT") > 0


def signatures(content: bytes) -> list[str]:
    """Return the values of the signature fields, from the top."""
    return [str(value) for value in parse(content).get_all("DKIM-Signature", [])]
