"""msmtp, as the ``sendmail`` of a machine without a mail server: GnuTLS and GNU SASL on the other side."""

from collections.abc import Callable
from pathlib import Path

import pytest
from peers.office import HOST, Door, Office, assert_clean, parse
from peers.processes import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")

EX_DATAERR, EX_NOPERM = 65, 77  # sysexits.h
BODY = b"Hello\r\n.\r\n..dots\r\n.leading\r\n\r\ntrailing  \r\n\r\nend\r\n"


@pytest.fixture(scope="module")
def msmtp(need: Callable[[str], Path]) -> Path:
    return need("msmtp")


def message(to: str, more: str = "") -> bytes:
    """Return what an app writes into its sendmail: lines end in LF."""
    header = (
        f"From: App <app@sender.test>\nTo: {to}\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nX-Ark-Tag: msmtp\n"
        f"X-Ark-Metadata-run: 7\n{more}\n"
    )
    return header.encode() + BODY.replace(b"\r\n", b"\n")


def config(office: Office, door: Door, mechanism: str = "on") -> str:
    """Return a configuration file as msmtp's manual writes it."""
    tls = {"none": "tls off", "starttls": "tls on\ntls_starttls on", "implicit": "tls on\ntls_starttls off"}
    text = f"defaults\nhost {HOST}\nport {door.port}\ntimeout 30\n{tls[door.tls]}\n"
    if door.tls != "none":
        text += f"tls_trust_file {office.ca_file}\n"
    if door.username:
        text += f"auth {mechanism}\nuser {door.username}\npassword {door.password}\n"
    file = office.folder / f"msmtprc-{door.name}-{mechanism}-{len(door.password)}"
    file.write_text(f"{text}\naccount default\nfrom app@sender.test\n")
    file.chmod(0o600)  # msmtp refuses a password that others can read
    return str(file)


async def send(office: Office, msmtp: Path, file: str, stdin: bytes, *more: str) -> Ran:
    return await office.run(msmtp, "-C", file, *more, stdin=stdin)


@pytest.mark.parametrize(
    ("name", "mechanism"),
    [
        ("local", "off"),
        *[
            (name, mechanism)
            for name in ("submission", "submissions")
            for mechanism in ("on", "plain", "login", "cram-md5", "scram-sha-256", "digest-md5")
        ],
    ],
)
async def test_each_mechanism_and_door(office: Office, msmtp: Path, name: str, mechanism: str) -> None:
    to = office.recipient()
    file = config(office, office.door(name), mechanism)
    ran = await send(office, msmtp, file, message(to), "--", to)
    assert ran.status == 0, ran.said
    received = await office.arrived(to)
    assert parse(received.content)["Subject"] == "Grüße"
    assert received.content.partition(b"\r\n\r\n")[2] == BODY
    assert_clean(received.content)
    shown = await office.shown(to)
    assert shown["tag"] == "msmtp"
    assert shown["metadata"] == {"run": "7"}


async def test_as_sendmail_it_reads_the_recipients_and_bcc_stays_hidden(office: Office, msmtp: Path) -> None:
    to, bcc = office.recipient(), office.recipient("hidden")
    file = config(office, office.door("submission"))
    stdin = message(to, f"Bcc: {bcc}\n")
    ran = await send(office, msmtp, file, stdin, "-t", "-oi", "-i", "--remove-bcc-headers=off")
    assert ran.status == 0, ran.said
    for recipient in (to, bcc):
        received = await office.arrived(recipient)
        assert bcc.encode() not in received.content
        assert received.content.partition(b"\r\n\r\n")[2] == BODY
        assert_clean(received.content)


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5", "scram-sha-256", "digest-md5"])
async def test_a_wrong_password_is_535(office: Office, msmtp: Path, mechanism: str) -> None:
    to = office.recipient()
    file = config(office, office.door("submission", password="wrong"), mechanism)
    ran = await send(office, msmtp, file, message(to), "--", to)
    assert ran.status == EX_NOPERM, ran.said
    assert "535 5.7.8" in ran.err
    assert not await office.known(to)


async def test_a_foreign_sender_is_550(office: Office, msmtp: Path) -> None:
    to = office.recipient()
    file = config(office, office.door("submissions"))
    ran = await send(office, msmtp, file, message(to), "--from=ceo@other.test", "--", to)
    assert ran.status == EX_DATAERR, ran.said
    assert "550 5.7.1" in ran.err
    assert "other.test" in ran.err
    assert not await office.known(to)
