"""smtplib, the client below most Python programs: its choice of mechanism, both kinds of TLS, EmailMessage."""

import asyncio
import contextlib
import smtplib
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from peers.office import HOST, Door, Letter, Office, assert_clean, parse

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS = ["local", "submission", "submissions"]


@contextlib.contextmanager
def connected(office: Office, door: Door) -> Iterator[smtplib.SMTP]:
    context = ssl.create_default_context(cafile=office.ca_file)
    if door.tls == "implicit":
        with smtplib.SMTP_SSL(HOST, door.port, timeout=30, context=context) as client:
            yield client
        return
    with smtplib.SMTP(HOST, door.port, timeout=30) as client:
        if door.tls == "starttls":
            client.starttls(context=context)
        yield client


async def use(office: Office, door: Door, session: Callable[[smtplib.SMTP], Any], *, login: bool = True) -> Any:
    """Return what ``session`` returns; smtplib blocks, so it has a thread of its own."""

    def work() -> Any:
        with connected(office, door) as client:
            if door.username and login:
                client.login(door.username, door.password)
            return session(client)

    return await asyncio.to_thread(work)


def compose(letter: Letter) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"App <{letter.sender}>"
    message["To"] = letter.to
    message["Subject"] = letter.subject
    if letter.bcc:
        message["Bcc"] = letter.bcc
    for name, value in letter.headers.items():
        message[name] = value
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    message.add_attachment(
        letter.attachment, maintype="application", subtype="octet-stream", filename=letter.filename
    )
    return message


@pytest.mark.parametrize("name", DOORS)
async def test_send_message(office: Office, name: str) -> None:
    letter = Letter(office.recipient(), bcc=office.recipient("hidden"))
    refused = await use(office, office.door(name), lambda client: client.send_message(compose(letter)))
    assert refused == {}
    for recipient in (letter.to, letter.bcc):
        received = await office.check(letter, recipient)
        assert letter.bcc.encode() not in received.content


async def test_a_bcc_that_the_client_left_in_is_taken_out(office: Office) -> None:
    letter = Letter(office.recipient(), bcc=office.recipient("hidden"))
    raw = compose(letter).as_bytes()
    assert letter.bcc.encode() in raw
    await use(
        office,
        office.door("local"),
        lambda client: client.sendmail(letter.sender, [letter.to, letter.bcc], raw, mail_options=["BODY=8BITMIME"]),
    )
    for recipient in (letter.to, letter.bcc):
        received = await office.check(letter, recipient)
        assert letter.bcc.encode() not in received.content


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login", "auth_cram_md5"])
@pytest.mark.parametrize("name", ["submission", "submissions"])
async def test_each_mechanism(office: Office, name: str, mechanism: str) -> None:
    letter, door = Letter(office.recipient()), office.door(name)

    def session(client: smtplib.SMTP) -> tuple[int, bytes]:
        client.ehlo()
        client.user, client.password = door.username, door.password  # as login() sets them
        sasl = mechanism.removeprefix("auth_").upper().replace("_", "-")
        code = client.auth(sasl, getattr(client, mechanism), initial_response_ok=mechanism == "auth_plain")
        client.send_message(compose(letter))
        return code

    code, text = await use(office, door, session, login=False)
    assert (code, text.split()[0]) == (235, b"2.7.0")
    await office.check(letter)


async def test_a_mailbox_in_utf8(office: Office) -> None:
    to = office.recipient("jörg")
    letter = Letter(to)
    message = compose(letter)
    del message["To"]
    message["To"] = f"Jörg <{to}>"
    await use(office, office.door("submissions"), lambda client: client.send_message(message))
    received = await office.check(letter)
    assert "SMTPUTF8" in received.mail_parameters
    assert to.encode() in received.content  # as UTF-8, not encoded (RFC 6532)


async def test_several_messages_on_one_connection(office: Office) -> None:
    letters = [Letter(office.recipient()) for _ in range(4)]

    def session(client: smtplib.SMTP) -> None:
        client.send_message(compose(letters[0]))
        with contextlib.suppress(smtplib.SMTPSenderRefused):
            client.sendmail("ceo@other.test", [letters[0].to], b"Subject: no\r\n\r\nno\r\n")
        for letter in letters[1:]:
            client.send_message(compose(letter))

    await use(office, office.door("submission"), session)
    for letter in letters:
        await office.check(letter)


async def test_a_wrong_password_is_535(office: Office) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        await use(office, office.door("submission", password="wrong"), lambda client: client.noop())
    assert caught.value.smtp_code == 535
    assert b"5.7.8 " in caught.value.smtp_error


async def test_a_foreign_envelope_or_author_is_550(office: Office) -> None:
    to = office.recipient()
    foreign = Letter(to, sender="ceo@other.test")
    with pytest.raises(smtplib.SMTPSenderRefused) as envelope:
        await use(office, office.door("local"), lambda client: client.send_message(compose(foreign)))
    assert envelope.value.smtp_code == 550
    assert b"5.7.1 " in envelope.value.smtp_error
    with pytest.raises(smtplib.SMTPDataError) as author:
        await use(
            office,
            office.door("submission"),
            lambda client: client.send_message(compose(foreign), from_addr="app@sender.test"),
        )
    assert author.value.smtp_code == 550
    assert b"5.7.1 " in author.value.smtp_error
    assert not await office.known(to)


async def test_before_tls_there_is_no_auth(office: Office) -> None:
    door = office.door("submission")

    def work() -> tuple[str, int]:
        with smtplib.SMTP(HOST, door.port, timeout=30) as client:
            client.ehlo()
            return str(client.esmtp_features.get("auth", "")), client.docmd("AUTH", "PLAIN")[0]

    features, code = await asyncio.to_thread(work)
    assert features == ""
    assert code == 538  # RFC 4954 §6: encryption required


async def test_the_received_field_names_the_client_but_not_its_address(office: Office) -> None:
    to = office.recipient()
    raw = f"From: app@sender.test\r\nTo: {to}\r\nSubject: x\r\n\r\nHello\r\n".encode()
    await use(office, office.door("submissions"), lambda client: client.sendmail("app@sender.test", [to], raw))
    received = await office.arrived(to)
    assert_clean(received.content)
    assert " by relay.test with ESMTPSA id " in " ".join(parse(received.content)["Received"].split())
