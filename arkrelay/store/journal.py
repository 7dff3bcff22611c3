"""Which recipient is being talked about, and how far: remembered across ``kill -9`` without a system call.

A mapped file of 16-byte slots. What a process wrote into the mapping belongs to the page cache at once and
outlives the process; it does not outlive the machine, so after a reboot the file proves nothing (``rebooted``).

    header  magic 8 · version 4 · zero 4 · epoch 8 · boot id 40            64 bytes
    slot    recipient id 8 · phase 1 · zero 7                              16 bytes

The id is written before the phase, and the phase alone says whether a slot counts: a process killed between
the two leaves a free slot. A slot is freed only when the outcome is in the database, so a recipient that a
peer took is found here until that is on disk.
"""

import mmap
import os
import struct
from array import array
from enum import IntEnum
from pathlib import Path
from typing import Self

from arkrelay.model.errors import StoreError

SLOTS = 65536
_MAGIC = b"ARKJRNL1"
_HEADER = struct.Struct("<8sIIQ40s")
_ID = struct.Struct("<Q")
_SLOT_BYTES = 16
_PHASE = 8  # offset of the phase in a slot


class Phase(IntEnum):
    """How far a transaction for one recipient had come."""

    FREE = 0
    TALKING = 1  # it may be repeated: the final dot was not written
    DOT = 2  # the final dot was written; nobody knows
    TAKEN = 3  # the peer answered 2xx: it must not be repeated


class Journal:
    """The open journal. Used from one thread, the event loop's."""

    def __init__(self, handle: int, mapping: mmap.mmap, left: dict[int, Phase], boot_id: str, epoch: int) -> None:
        self._handle = handle
        self._map = mapping
        self._stamp = (boot_id, epoch)
        self._old: list[int] = []
        slots = range(self._slots() - 1, -1, -1)
        if left:
            self._old = [slot for slot in slots if self._phase(slot)]
        # 4 bytes a slot where a list has 40: these are the largest numbers of anything in an idle process
        self._free = array("I", (slot for slot in slots if not self._phase(slot)) if left else slots)

    @classmethod
    def open(cls, path: Path, boot_id: str, epoch: int = 0) -> tuple[Self, dict[int, Phase], bool]:
        """Return the journal, what the process before left in it, and whether the machine was started since.

        What was left stays in the file until ``recovered``: a second crash before that finds it again. A file
        that is missing or none of ours counts as a reboot: it proves nothing.
        """
        size = _HEADER.size + SLOTS * _SLOT_BYTES
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                found = os.fstat(handle).st_size
                known = _known_boot(os.pread(handle, _HEADER.size, 0), found)
                if known is None:
                    os.ftruncate(handle, 0)
                if known is None or found < size:
                    # allocated, not sparse: writing into a hole of a full disk would kill the process (SIGBUS)
                    os.posix_fallocate(handle, 0, size)
                mapping = mmap.mmap(handle, 0)
            except BaseException:
                os.close(handle)
                raise
        except OSError as exc:
            raise StoreError(f"{path}: {exc.strerror}") from exc
        rebooted = known is None or not boot_id or known != boot_id  # a kernel that does not tell proves nothing
        left = _left(mapping)
        journal = cls(handle, mapping, left, boot_id, epoch)
        if known is None:
            journal.recovered()
        return journal, left, rebooted

    def begin(self, recipient_id: int) -> int:
        """Remember that a transaction for this recipient begins; return its slot."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        offset = _HEADER.size + slot * _SLOT_BYTES
        _ID.pack_into(self._map, offset, recipient_id)
        self._map[offset + _PHASE] = 1
        return slot

    def dot(self, slot: int) -> None:
        """Remember that the final dot is about to be written."""
        self._map[_HEADER.size + slot * _SLOT_BYTES + _PHASE] = 2

    def taken(self, slot: int) -> None:
        """Remember that the peer has taken the message."""
        self._map[_HEADER.size + slot * _SLOT_BYTES + _PHASE] = 3

    def end(self, slot: int) -> None:
        """Forget the slot: what became of the recipient is in the database."""
        offset = _HEADER.size + slot * _SLOT_BYTES + _PHASE
        if self._map[offset]:
            self._map[offset] = 0
            self._free.append(slot)

    def recovered(self) -> None:
        """Forget what the process before left: all of it is in the database now."""
        for slot in self._old:
            self._map[_HEADER.size + slot * _SLOT_BYTES + _PHASE] = 0
        self._free.extend(self._old)
        self._old.clear()
        boot_id, epoch = self._stamp
        _HEADER.pack_into(self._map, 0, _MAGIC, 1, 0, epoch, boot_id.encode("ascii", "replace")[:40])

    @property
    def busy(self) -> int:
        """How many recipients are in hand."""
        return self._slots() - len(self._free) - len(self._old)

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._handle >= 0:
            self._map.close()
            os.close(self._handle)
            self._handle = -1

    def _slots(self) -> int:
        return (len(self._map) - _HEADER.size) // _SLOT_BYTES

    def _phase(self, slot: int) -> int:
        return self._map[_HEADER.size + slot * _SLOT_BYTES + _PHASE]

    def _grow(self) -> None:
        """Double the number of slots."""
        before = self._slots()
        size = _HEADER.size + 2 * before * _SLOT_BYTES
        try:
            os.posix_fallocate(self._handle, 0, size)
            self._map.resize(size)
        except OSError as exc:
            raise StoreError(f"the journal cannot grow beyond {before} recipients: {exc.strerror}") from exc
        self._free.extend(range(2 * before - 1, before - 1, -1))


def _known_boot(header: bytes, size: int) -> str | None:
    """Return the boot id of a journal of ours, or None."""
    if len(header) < _HEADER.size or (size - _HEADER.size) % _SLOT_BYTES:
        return None
    magic, version, _, _, boot = _HEADER.unpack(header)
    return boot.rstrip(b"\0").decode("ascii", "replace") if magic == _MAGIC and version == 1 else None


def _left(mapping: mmap.mmap) -> dict[int, Phase]:
    """Return the slots that count; of two for one recipient the one further on."""
    left: dict[int, Phase] = {}
    phases = mapping[_HEADER.size + _PHASE :: _SLOT_BYTES]
    if not phases.strip(b"\0"):
        return left
    for slot, phase in enumerate(phases):
        if phase:
            # a phase we do not know is a torn or foreign byte: the careful reading of it is "nobody knows"
            found = Phase(phase) if phase in (1, 2, 3) else Phase.DOT
            (recipient_id,) = _ID.unpack_from(mapping, _HEADER.size + slot * _SLOT_BYTES)
            left[recipient_id] = max(found, left.get(recipient_id, Phase.FREE))
    return left
