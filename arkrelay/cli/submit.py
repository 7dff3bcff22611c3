"""Hand one message to the daemon: by REST as its administrator, or through a local SMTP door as anybody."""

import asyncio
import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosmtplib

from arkrelay.cli.client import Daemon, NotRunning, on_loopback, read_settings
from arkrelay.model.errors import ArkrelayError

DEFAULT_SUBMISSION = "127.0.0.1:2525"  # where a configuration without [[listen]] listens
ANSWER_S = 600.0  # RFC 5321 §4.5.3.2.6: the longest wait, for the reply to the final dot


class Rejected(ArkrelayError):
    """The SMTP door answered no; ``code`` is its reply, and ``recipient`` whom it would not take, if one."""

    def __init__(self, code: int, text: str, recipient: str = "") -> None:
        code = code if 400 <= code < 600 else 451  # an answer that makes no sense: later, perhaps
        self.code, self.recipient = code, recipient
        super().__init__(f"{recipient}: {code} {text}" if recipient else f"{code} {text}")


@dataclass(frozen=True, slots=True)
class SmtpDoor:
    """A submission listener that this machine can reach; ``open``: it asks for no password."""

    shown: str
    socket: Path | None = None
    host: str = ""
    port: int = 0
    tls: str = "required"
    open: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message ready to go: canonical line ends, the return path (None: null), and its recipients."""

    content: bytes
    author: str
    return_path: str | None
    recipients: tuple[str, ...]
    notify: str = ""  # RFC 3461 §4.1
    ret: str = ""
    envid: str = ""


def smtp_doors(config: Path) -> list[SmtpDoor]:
    """Return the local submission listeners, those without a password first, sockets before ports."""
    raw = read_settings(config)
    listeners = raw.get("listen", [{"service": "submission", "address": DEFAULT_SUBMISSION, "tls": "optional"}])
    found = []
    for listener in listeners if isinstance(listeners, list) else []:
        if isinstance(listener, dict) and listener.get("service") == "submission":
            door = _door(listener, config)
            found += [door] if door else []
    return sorted(found, key=lambda door: (not door.open, door.socket is None))


def _door(listener: dict[str, Any], config: Path) -> SmtpDoor | None:
    address, tls = str(listener.get("address", "")), str(listener.get("tls") or "required")
    bound = bool(listener.get("tenant"))
    if address.startswith("unix:"):
        return SmtpDoor(address, socket=config.parent / address.removeprefix("unix:"), tls=tls, open=bound)
    reached = on_loopback(address)
    return None if reached is None else SmtpDoor(address, host=reached[0], port=reached[1], tls=tls, open=bound)


def rest_body(parcel: Parcel, tenant: str | None) -> dict[str, Any]:
    """Return the body of POST /v1/emails/raw (Ark contract §8.1, RawBody)."""
    body: dict[str, Any] = {
        "from": parcel.return_path or parcel.author,
        "to": list(parcel.recipients),
        "rawMessage": base64.b64encode(parcel.content).decode("ascii"),
    }
    if parcel.return_path is None:
        body["bounce"] = True
    if tenant:
        body["tenantId"] = tenant
    return body


def by_rest(daemon: Daemon, parcel: Parcel, tenant: str | None) -> dict[str, Any]:
    """Return what REST says about the accepted message (Ark contract §8.1, SendResult)."""
    data = daemon.data("POST", "/v1/emails/raw", rest_body(parcel, tenant), timeout_s=ANSWER_S)
    return data if isinstance(data, dict) else {}


def by_smtp(door: SmtpDoor, parcel: Parcel, login: tuple[str, str] | None = None) -> str:
    """Return the reply to the final dot; raise Rejected, or NotRunning when nobody answers.

    A message is taken for all its recipients or for none: with one refused, nothing is sent to the others,
    as a caller with a single exit status can report no half.
    """
    return asyncio.run(send_smtp(door, parcel, login))


async def send_smtp(door: SmtpDoor, parcel: Parcel, login: tuple[str, str] | None = None) -> str:
    """Do the same as ``by_smtp``, in a running loop."""
    context = ssl.create_default_context()
    context.check_hostname = False  # the way to ourselves over loopback: the certificate names the public host
    context.verify_mode = ssl.CERT_NONE
    client = aiosmtplib.SMTP(
        hostname=None if door.socket else door.host,
        port=None if door.socket else door.port,
        socket_path=str(door.socket) if door.socket else None,
        start_tls=door.tls == "required",
        tls_context=context,
        timeout=ANSWER_S,
    )
    try:
        await client.connect()
    except (OSError, aiosmtplib.SMTPConnectError, aiosmtplib.SMTPTimeoutError) as error:
        raise NotRunning(f"{door.shown}: {error}", "is the daemon running? see arkrelay status") from None
    except aiosmtplib.SMTPException as error:
        client.close()
        raise Rejected(451, f"no TLS came about: {error}") from None
    try:
        if login:
            await client.login(*login)
        return await _transaction(client, parcel)
    except aiosmtplib.SMTPResponseException as error:
        raise Rejected(error.code, error.message.replace("\n", " ")) from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Rejected(451, f"the conversation broke off: {error}") from None
    finally:
        client.close()


async def _transaction(client: aiosmtplib.SMTP, parcel: Parcel) -> str:
    wide = not all(text.isascii() for text in (parcel.return_path or "", *parcel.recipients))
    await client.ehlo()
    mail = [f"FROM:<{parcel.return_path or ''}>"]
    mail += ["SMTPUTF8"] if wide else []
    mail += [] if parcel.content.isascii() else ["BODY=8BITMIME"]
    dsn = client.supports_extension("dsn")  # RFC 3461 §4: said only to who understands it
    mail += [f"RET={parcel.ret}"] if parcel.ret and dsn else []
    mail += [f"ENVID={parcel.envid}"] if parcel.envid and dsn else []
    await _command(client, "MAIL", mail)
    for recipient in parcel.recipients:
        notify = [f"NOTIFY={parcel.notify}"] if parcel.notify and dsn else []
        await _command(client, "RCPT", [f"TO:<{recipient}>", *notify], recipient)
    reply = await client.data(parcel.content)
    await client.quit()
    return f"{reply.code} {reply.message}"


async def _command(client: aiosmtplib.SMTP, verb: str, words: list[str], recipient: str = "") -> None:
    reply = await client.execute_command(verb.encode(), *(word.encode() for word in words))
    if not 200 <= reply.code < 300:
        raise Rejected(reply.code, reply.message.replace("\n", " "), recipient)
