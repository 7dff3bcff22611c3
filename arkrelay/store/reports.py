"""Reports that came back about recipients, kept for people: what was read of them, and how they began."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arkrelay.model.report import Finding, Report, ReportKind
from arkrelay.store.connection import text

CONTENT_BYTES = 32_768  # of a report; what explains it stands at its beginning
MOST = 20  # of each kind about one recipient, where they change nothing: who knows a return path can send any number
_COLUMNS = "id, at, kind, form, sender, subject, status, said, content"


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report as it is kept; ``content`` is empty when the time of contents is over (``[retention]``)."""

    id: int
    at: float
    kind: ReportKind
    form: str
    sender: str
    subject: str
    status: str
    said: str
    content: bytes


def has(conn: sqlite3.Connection, recipient_id: int, digest: bytes) -> bool:
    """Return whether this very report has come before."""
    # index reports_recipient
    found = conn.execute("SELECT 1 FROM reports WHERE recipient_id = ? AND digest = ?", (recipient_id, digest))
    return found.fetchone() is not None


def number(conn: sqlite3.Connection, recipient_id: int, kind: ReportKind) -> int:
    """Return how many reports of this kind about this recipient are kept."""
    # index reports_recipient
    row = conn.execute(
        "SELECT count(*) FROM reports WHERE recipient_id = ? AND kind = ?", (recipient_id, kind.value)
    ).fetchone()
    return int(row[0])


def insert(
    db: sqlite3.Connection,
    recipient_id: int,
    report: Report,
    kind: ReportKind,
    finding: Finding | None,
    digest: bytes,
    content: bytes,
    at: float,
) -> int:
    """Keep the report; return its number, which is never given twice."""
    said = finding.text if finding is not None and finding.text else report.explanation
    cursor = db.execute(
        "INSERT INTO reports (recipient_id, at, kind, digest, form, sender, subject, status, said, content)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            recipient_id,
            at,
            kind.value,
            digest,
            text(report.form),
            text(report.sender),
            text(report.subject),
            text(finding.status if finding is not None else ""),
            text(said),
            content[:CONTENT_BYTES],
        ),
    )
    if cursor.lastrowid is None:  # of an INSERT that succeeded
        raise sqlite3.DatabaseError("a report that was just written has no number")
    return cursor.lastrowid


def list_reports(conn: sqlite3.Connection, recipient_id: int) -> list[StoredReport]:
    """Return what came back about one recipient, oldest first."""
    # index reports_recipient
    rows = conn.execute(f"SELECT {_COLUMNS} FROM reports WHERE recipient_id = ? ORDER BY id", (recipient_id,))  # noqa: S608 -- our own columns
    return [_report(row) for row in rows]


def forget_contents(db: sqlite3.Connection, message_ids: Sequence[int]) -> None:
    """Drop what these messages' reports say, which quote them; that they came stays known."""
    # indexes recipients_message, reports_recipient
    db.executemany(
        "UPDATE reports SET content = NULL WHERE recipient_id IN (SELECT id FROM recipients WHERE message_id = ?)",
        [(one,) for one in message_ids],
    )


def _report(row: Sequence[Any]) -> StoredReport:
    id_, at, kind, form, sender, subject, status, said, content = row
    return StoredReport(id_, at, ReportKind(kind), form, sender, subject, status, said, content or b"")
