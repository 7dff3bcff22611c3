"""A rotation that goes on by itself, against a real DNS server and real files: never a key that nobody finds."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.configuration import Folder
from peers.dns import DnsServer

from arkrelay.config import tenants
from arkrelay.config.live import Live
from arkrelay.mail.dkim import public_record
from arkrelay.model.tenant import Domain
from arkrelay.policy.rotation import RETIRE_S, SEEN_S
from arkrelay.relay.rotation import Rotations
from arkrelay.wire.dns import Resolver


class Rig:
    """One domain of one tenant, and a clock that runs ahead."""

    def __init__(self, root: Path, server: DnsServer, managed: str = "api") -> None:
        self.folder, self.server = Folder(root), server
        self.folder.tenant("acme", f'managed = "{managed}"\n')
        self.ahead_s = 0.0
        self.reloads = 0

    def begin(self) -> None:
        tenants.add_domain(self.folder.path, "acme", "example.com", algorithms=["ed25519-sha256"])
        tenants.change_domain(self.folder.path, "acme", "example.com", {"rotation": "auto"})
        tenants.rotate_dkim(self.folder.path, "acme", "example.com", "publish")
        self.start()

    def start(self) -> None:
        self.live = Live(self.folder.path)
        self.resolver = Resolver([self.server.address], 2)
        self.rotations = Rotations(
            self.live, self.resolver, self.reload, asyncio.Lock(), clock=lambda: time.time() + self.ahead_s
        )

    async def reload(self) -> None:
        self.reloads += 1
        self.live.reload()

    @property
    def domain(self) -> Domain:
        return self.live.snapshot.tenants["acme"].domains[0]

    @property
    def states(self) -> list[str]:
        return [f"{key.state}{' seen' if key.seen else ''}" for key in self.domain.dkim]

    def publish(self) -> None:
        for loaded in self.live.snapshot.dkim_keys.values():
            signer = loaded.signer
            self.server.set(f"{signer.selector}._domainkey.example.com", "TXT", public_record(signer.key))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with DnsServer() as server:
        made = Rig(tmp_path, server)
        made.begin()
        yield made
        await made.resolver.close()


async def test_each_step_is_taken_when_it_is_due_and_not_before(rig: Rig) -> None:
    assert await rig.rotations.look() == 0  # DNS has nothing
    assert rig.states == ["active", "published"]
    rig.publish()
    assert await rig.rotations.look() == 1
    assert rig.states == ["active", "published seen"]
    assert await rig.rotations.look() == 0  # the overlap
    rig.ahead_s = SEEN_S + 1
    new = rig.domain.dkim[1].selector
    assert await rig.rotations.look() == 1
    assert rig.states == ["retired", "active"]
    assert [one.selector for one in rig.live.snapshot.signers("acme", "example.com")] == [new]
    rig.ahead_s = RETIRE_S - 60
    assert await rig.rotations.look() == 0
    rig.ahead_s = RETIRE_S + 60
    assert await rig.rotations.look() == 1
    assert rig.states == ["active"]
    assert await rig.rotations.look() == 0  # no new one is begun
    assert len(list((rig.folder.state / "keys" / "dkim").iterdir())) == 1


async def test_a_key_that_was_seen_and_went_away_does_not_sign(rig: Rig) -> None:
    rig.publish()
    await rig.rotations.look()
    rig.server.remove(f"{rig.domain.dkim[1].selector}._domainkey.example.com")
    rig.ahead_s = SEEN_S + 1
    assert await rig.rotations.look() == 0
    rig.server.fail("*", "*", "servfail")
    assert await rig.rotations.look() == 0
    assert rig.states == ["active", "published seen"]


async def test_a_rotation_by_hand_and_a_file_by_hand_are_left_alone(rig: Rig) -> None:
    rig.publish()
    tenants.change_domain(rig.folder.path, "acme", "example.com", {"rotation": None})
    rig.live.reload()
    assert await rig.rotations.look() == 0
    tenants.change_domain(rig.folder.path, "acme", "example.com", {"rotation": "auto"})
    file = rig.folder.root / "tenants" / "acme.toml"
    file.write_text(file.read_text().replace('managed = "api"', 'managed = "file"'))
    rig.live.reload()
    before = file.read_bytes()
    assert await rig.rotations.look() == 0
    assert file.read_bytes() == before
