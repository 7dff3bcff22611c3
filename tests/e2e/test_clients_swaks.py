"""swaks, as an admin tries out a server: every mechanism, both kinds of TLS, raw octets, and its exit codes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from peers.office import HOST, Door, Office, assert_clean, parse
from peers.processes import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL_REFUSED, DATA_REFUSED, AUTH_REFUSED = 23, 26, 28  # exit codes of swaks

RAW = (
    b"From: App <app@sender.test>\r\nTo: %TO%\r\nBcc: secret@rcpt.test\r\nSubject: raw\r\nX-Ark-Tag: swaks\r\n"
    b"X-Ark-Metadata-Run: 7\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
)


@pytest.fixture(scope="module")
def swaks(need: Callable[[str], Path]) -> Path:
    return need("swaks")


def tls(office: Office, door: Door) -> list[str]:
    option = {"none": [], "starttls": ["--tls"], "implicit": ["--tlsc"]}[door.tls]
    return [*option, "--tls-verify", "--tls-ca-path", str(office.ca_file)] if option else []


def auth(door: Door, mechanism: str) -> list[str]:
    return ["--auth", mechanism, "--auth-user", door.username, "--auth-password", door.password]


async def send(office: Office, swaks: Path, door: Door, to: str, *more: str, sender: str = "app@sender.test") -> Ran:
    return await office.run(
        swaks, "--server", HOST, "--port", str(door.port), "--helo", "client.test", "--timeout", "30",
        "--from", sender, "--to", to, *tls(office, door), *more,
    )  # fmt: skip


async def test_a_local_app_sends_without_a_password(office: Office, swaks: Path) -> None:
    to = office.recipient()
    ran = await send(office, swaks, office.door("local"), to, "--header", "Subject: from swaks", "--body", "Hello")
    assert ran.status == 0, ran.said
    received = await office.arrived(to)
    assert parse(received.content)["Subject"] == "from swaks"
    assert b"\r\n\r\nHello\r\n" in received.content
    assert_clean(received.content)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"])
@pytest.mark.parametrize("name", ["submission", "submissions"])
async def test_each_mechanism_opens_the_doors_with_tls(
    office: Office, swaks: Path, name: str, mechanism: str
) -> None:
    to, door = office.recipient(), office.door(name)
    ran = await send(office, swaks, door, to, *auth(door, mechanism))
    assert ran.status == 0, ran.said
    assert f"AUTH {mechanism}" in ran.out
    received = await office.arrived(to)
    assert_clean(received.content)
    assert "with ESMTPSA" in " ".join(parse(received.content)["Received"].split())


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"])
async def test_a_wrong_password_is_535_and_nothing_is_sent(office: Office, swaks: Path, mechanism: str) -> None:
    to, door = office.recipient(), office.door("submission", password="wrong")
    ran = await send(office, swaks, door, to, *auth(door, mechanism))
    assert ran.status == AUTH_REFUSED, ran.said
    assert " 535 5.7.8 " in ran.out
    assert not await office.known(to)


async def test_no_password_is_asked_for_in_clear_text(office: Office, swaks: Path) -> None:
    to, door = office.recipient(), office.door("submission")
    ran = await office.run(
        swaks, "--server", HOST, "--port", str(door.port), "--from", "app@sender.test", "--to", to,
        *auth(door, "PLAIN"),
    )  # fmt: skip
    assert ran.status == AUTH_REFUSED, ran.said
    assert "250-AUTH" not in ran.out
    assert "~> AUTH" not in ran.out  # swaks saw that it is not offered, and kept the password


async def test_without_auth_the_public_doors_refuse(office: Office, swaks: Path) -> None:
    to = office.recipient()
    ran = await send(office, swaks, office.door("submissions"), to)
    assert ran.status == MAIL_REFUSED, ran.said
    assert " 530 5.7.0 " in ran.out
    assert not await office.known(to)


@pytest.mark.parametrize("name", ["local", "submission"])
async def test_a_foreign_sender_is_550_at_mail(office: Office, swaks: Path, name: str) -> None:
    to, door = office.recipient(), office.door(name)
    credentials = auth(door, "PLAIN") if door.username else []
    ran = await send(office, swaks, door, to, *credentials, sender="ceo@other.test")
    assert ran.status == MAIL_REFUSED, ran.said
    assert " 550 5.7.1 " in ran.out
    assert "other.test" in ran.out.split(" 550 5.7.1 ")[1]
    assert not await office.known(to)


async def test_a_foreign_author_is_550_after_the_dot(office: Office, swaks: Path) -> None:
    to = office.recipient()
    ran = await send(office, swaks, office.door("local"), to, "--header", "From: ceo@other.test")
    assert ran.status == DATA_REFUSED, ran.said
    assert " 550 5.7.1 " in ran.out
    assert not await office.known(to)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_eight_bit_octets_pass_unchanged(office: Office, swaks: Path, *, pipelined: bool) -> None:
    body = bytes(octet for octet in range(1, 256) if octet not in b"\r\n.") + b"\r\n..dots\r\n\r\n. \r\nend  \r\n"
    to, data = office.recipient(), office.folder / f"raw-{pipelined}.eml"
    data.write_bytes(RAW.replace(b"%TO%", to.encode()) + body.removesuffix(b"\r\n"))  # swaks adds its own
    ran = await send(
        office, swaks, office.door("local"), to, "--data", f"@{data}", *(["--pipeline"] if pipelined else [])
    )
    assert ran.status == 0, ran.said
    received = await office.arrived(to)
    assert received.content.partition(b"\r\n\r\n")[2] == body
    assert "BODY=8BITMIME" in received.mail_parameters
    assert_clean(received.content)
    shown = await office.shown(to)
    assert shown["tag"] == "swaks"
    assert shown["metadata"] == {"Run": "7"}


async def test_an_attachment_arrives_octet_by_octet(office: Office, swaks: Path) -> None:
    to, file, door = office.recipient(), office.folder / "table.bin", office.door("submissions")
    file.write_bytes(bytes(range(256)) * 400)
    ran = await send(
        office, swaks, door, to, *auth(door, "PLAIN"), "--attach-name", "table.bin", "--attach", f"@{file}"
    )
    assert ran.status == 0, ran.said
    received = await office.arrived(to)
    (attached,) = parse(received.content).iter_attachments()
    assert attached.get_filename() == "table.bin"
    assert attached.get_payload(decode=True) == file.read_bytes()
    assert_clean(received.content)
