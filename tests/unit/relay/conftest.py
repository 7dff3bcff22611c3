"""An open rig, closed again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.configuration import Folder
from unit.relay.rig import Rig, Stub


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    folder = Folder(tmp_path)
    folder.tenant("acme", '[[domains]]\nname = "sender.test"\ntrusted = true\n')
    opened = Rig(folder)
    Stub.error = None
    yield opened
    for connection in opened.connections:
        connection.ends.set()
    await opened.queue.stop(5.0)
    await opened.settler.drained(5.0)
    opened.signing.close()
    opened.store.close()
