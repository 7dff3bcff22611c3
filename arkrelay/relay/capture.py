"""``delivery.mode = "capture"``: mail ends as files in ``state_dir/capture`` and nothing leaves the machine.

For development and rehearsal: the whole path runs (admission, signature, queue, events), only the peer is
missing. A file is named by the message's public id and starts with the two envelope fields that a mail reader
understands.
"""

import os
from pathlib import Path

from arkrelay.model.message import Envelope, Recipient


class Capture:
    """The local capture box."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "capture"

    def keep(self, recipient: Recipient, envelope: Envelope, content: bytes) -> Path:
        """Return the file that now holds the message; it is on disk. Blocking: call it in a thread."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / f"{recipient.token}.eml"
        head = f"Return-Path: <{envelope.return_path or ''}>\r\nX-Original-To: {recipient.address}\r\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(head.encode() + content)
            file.flush()
            os.fsync(file.fileno())
        return path
