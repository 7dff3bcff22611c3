"""Handing a message to a submission listener, against a scripted peer on a real socket."""

import ssl
from pathlib import Path

import pytest
from peers.mx import CLOSE, Mx, Script

from arkrelay.cli.client import NotRunning
from arkrelay.cli.submit import Parcel, Rejected, SmtpDoor, send_smtp, smtp_doors
from arkrelay.wire.tls import self_signed

CONTENT = b"From: ann@example.com\r\n\r\n.dot\r\nbody\r\n"
PARCEL = Parcel(CONTENT, "ann@example.com", "ann@example.com", ("bob@example.net", "carl@example.net"))


def door(mx: Mx, tls: str = "none") -> SmtpDoor:
    return SmtpDoor("peer", host="127.0.0.1", port=mx.port, tls=tls)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    paths = (tmp_path / "cert.pem", tmp_path / "key.pem")
    for path, pem in zip(paths, self_signed("relay.example.com"), strict=True):
        path.write_bytes(pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*paths)
    return made


async def test_the_message_arrives_byte_for_byte() -> None:
    async with Mx() as mx:
        assert (await send_smtp(door(mx), PARCEL)).startswith("250")
        assert mx.messages[0].content == CONTENT
        assert mx.messages[0].recipients == ["bob@example.net", "carl@example.net"]
        assert mx.messages[0].return_path == "ann@example.com"


async def test_notification_options_go_to_who_understands_them() -> None:
    parcel = Parcel(CONTENT, "a@x.test", None, ("bob@example.net",), notify="NEVER", ret="HDRS", envid="id7")
    async with Mx(Script(extensions=("DSN",))) as knows, Mx(Script(extensions=("SIZE",))) as not_:
        await send_smtp(door(knows), parcel)
        await send_smtp(door(not_), parcel)
        assert "RET=HDRS" in knows.messages[0].mail_parameters
        assert "ENVID=id7" in knows.messages[0].mail_parameters
        assert "NOTIFY=NEVER" in knows.messages[0].recipient_parameters[0]
        assert knows.messages[0].return_path == ""
        assert "RET" not in not_.messages[0].mail_parameters
        assert "NOTIFY" not in not_.messages[0].recipient_parameters[0]


async def test_a_password_goes_over_tls_only(context: ssl.SSLContext) -> None:
    async with Mx(Script(tls=context, users={"acme/first": "secret"})) as mx:
        await send_smtp(door(mx, "required"), PARCEL, ("acme/first", "secret"))
        assert mx.messages[0].tls
        assert mx.messages[0].username == "acme/first"
    async with Mx(Script(users={"acme/first": "secret"})) as clear:
        with pytest.raises((NotRunning, Rejected)):
            await send_smtp(door(clear, "required"), PARCEL, ("acme/first", "secret"))
        assert not clear.messages


async def test_an_internationalised_address_needs_smtputf8() -> None:
    parcel = Parcel(CONTENT, "ä@example.com", "ä@example.com", ("bob@example.net",))
    async with Mx(Script(extensions=("SMTPUTF8", "8BITMIME"))) as mx:
        await send_smtp(door(mx), parcel)
        assert "SMTPUTF8" in mx.messages[0].mail_parameters
        assert mx.messages[0].return_path == "ä@example.com"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Script(mail="452 4.3.1 full"), 452),
        (Script(rcpt={"carl@example.net": "550 5.1.1 nobody"}), 550),
        (Script(data="554 5.6.0 no"), 554),
        (Script(dot="451 4.3.0 later"), 451),
        (Script(dot=CLOSE), 451),
        (Script(mail=CLOSE), 451),
        (Script(mail="garbage"), 451),
    ],
    ids=["mail", "rcpt", "data", "dot", "dot-closed", "mail-closed", "garbage"],
)
async def test_a_refusal_or_a_broken_conversation_is_told(script: Script, code: int) -> None:
    async with Mx(script) as mx:
        with pytest.raises(Rejected) as caught:
            await send_smtp(door(mx), PARCEL)
    assert 400 <= caught.value.code < 600
    assert caught.value.code // 100 == code // 100
    assert caught.value.recipient == ("carl@example.net" if code == 550 else "")


async def test_nobody_there_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        await send_smtp(SmtpDoor("unix", socket=tmp_path / "none.sock", tls="none"), PARCEL)


def test_listeners_without_a_password_come_first(home: Path) -> None:
    config = home / "arkrelay.toml"
    assert [found.shown for found in smtp_doors(config)] == ["127.0.0.1:2525"]
    config.write_text(
        config.read_text()
        + '[[listen]]\nservice = "submission"\naddress = "203.0.113.1:587"\n'
        + '[[listen]]\nservice = "submission"\naddress = "0.0.0.0:2587"\n'
        + '[[listen]]\nservice = "submissions"\naddress = "127.0.0.1:465"\n'
        + '[[listen]]\nservice = "submission"\naddress = "127.0.0.1:2525"\ntls = "none"\ntenant = "acme"\n'
        + '[[listen]]\nservice = "submission"\naddress = "unix:/run/s.sock"\ntls = "none"\ntenant = "acme"\n'
    )
    found = smtp_doors(config)
    assert [(one.shown, one.open) for one in found] == [
        ("unix:/run/s.sock", True),
        ("127.0.0.1:2525", True),
        ("0.0.0.0:2587", False),
    ]
    assert found[2].host == "127.0.0.1"
