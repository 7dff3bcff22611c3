"""One message of the demonstration: composed, and judged where it arrived."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from arkrelay.cli.demo_peers import Delivered
from arkrelay.mail.dkim import verify


@dataclass(frozen=True, slots=True)
class Story:
    """One message from hand-over to arrival."""

    how: str
    id: str
    author: str
    recipient: str
    delivered: bool
    host: str
    tls: str
    dkim: bool
    dkim_text: str
    status: str
    why: str
    took_s: float

    @property
    def held(self) -> bool:
        """True when it arrived over TLS, with a good signature, and the relay knows it."""
        return self.delivered and bool(self.tls) and self.dkim and self.status == "sent"


def compose(author: str, recipient: str, how: str) -> bytes:
    """Return a small message with canonical line ends."""
    message = EmailMessage()
    message["From"] = f"Arkrelay demo <{author}>"
    message["To"] = recipient
    message["Subject"] = f"Hello by {how}"
    message["Date"] = formatdate(time.time())
    message["Message-ID"] = make_msgid(domain=author.partition("@")[2])
    message.set_content(f"This came in by {how} and went out by SMTP.\n")
    return message.as_bytes().replace(b"\n", b"\r\n")


def judge_dkim(arrived: Delivered | None, sender: str, fetch_txt: Callable[[str], Sequence[str]]) -> tuple[bool, str]:
    """Return whether the message has a signature of ``sender`` and all of them verify, and that in words."""
    if arrived is None:
        return False, "-"
    found = verify(arrived.content, fetch_txt)
    ours = [one for one in found if one.domain == sender]
    text = ", ".join(f"{one.domain} {one.selector}: {'ok' if one.ok else one.reason}" for one in found)
    return bool(ours) and all(one.ok for one in ours), text or "no signature"
