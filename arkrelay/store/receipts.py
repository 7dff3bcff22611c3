"""Stored answers, by which a repeated request has one effect (Ark contract §5)."""

import sqlite3

from arkrelay.model.receipt import Receipt, ReceiptKey


def insert(db: sqlite3.Connection, receipt: Receipt) -> None:
    """Keep an answer; one of the same key is past its time."""
    key = receipt.key
    db.execute(
        "INSERT OR REPLACE INTO receipts (owner, method, path, key, fingerprint, status, body, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (key.owner, key.method, key.path, key.key, receipt.fingerprint, receipt.status, receipt.body, receipt.at),
    )


def find(conn: sqlite3.Connection, key: ReceiptKey, since: float) -> Receipt | None:
    """Return the answer that was kept for this key after ``since``."""
    # index receipts_key
    row = conn.execute(
        "SELECT fingerprint, status, body, at FROM receipts"
        " WHERE owner = ? AND method = ? AND path = ? AND key = ? AND at > ?",
        (key.owner, key.method, key.path, key.key, since),
    ).fetchone()
    return None if row is None else Receipt(key, *row)


def prune(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Delete up to ``limit`` answers from before that time, and return how many went."""
    # index receipts_at
    return db.execute(
        "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts WHERE at < ? ORDER BY at LIMIT ?)", (before, limit)
    ).rowcount
