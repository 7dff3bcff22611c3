"""The tables, and how an older database becomes a newer one.

``MIGRATIONS`` is append-only: each entry is one transaction, and ``schema_versions`` records when it ran. A
database with a version above ours was made by a newer arkrelay and is refused, never guessed at.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from arkrelay.model.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x41524B52  # "ARKR", so that another program's database is not taken for ours
PAGE_BYTES = 4096  # with 8192 a 4 KB message filled a page alone: 1.7 times the disk, 0.88 times the rate

_FIRST = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # one row per accepted submission; large: its content is a file
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, door TEXT NOT NULL, credential TEXT,
        accepted_at REAL NOT NULL, message_id TEXT NOT NULL, author TEXT NOT NULL, author_domain TEXT NOT NULL,
        return_path TEXT, subject TEXT NOT NULL, tag TEXT, metadata TEXT, size_bytes INTEGER NOT NULL,
        eight_bit INTEGER NOT NULL, smtputf8 INTEGER NOT NULL, ret TEXT, envid TEXT, expires_at REAL,
        large INTEGER NOT NULL)""",
    "CREATE INDEX messages_author ON messages (tenant_id, author, accepted_at)",
    "CREATE INDEX messages_large ON messages (id) WHERE large",
    "CREATE INDEX messages_tag ON messages (tenant_id, tag, accepted_at) WHERE tag IS NOT NULL",
    # one row per address of a message: what is queued; tenant_id and accepted_at are the message's, for lists
    """CREATE TABLE recipients (
        id INTEGER PRIMARY KEY, message_id INTEGER NOT NULL, tenant_id TEXT NOT NULL, accepted_at REAL NOT NULL,
        token TEXT NOT NULL, address TEXT NOT NULL, address_key TEXT NOT NULL, domain TEXT NOT NULL,
        destination TEXT NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL, due_at REAL,
        lease INTEGER NOT NULL, changed_at REAL NOT NULL, reason TEXT NOT NULL, hold_reason TEXT,
        bounce_class TEXT, notify TEXT, orcpt TEXT, uncertain INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX recipients_token ON recipients (token)",
    "CREATE INDEX recipients_message ON recipients (message_id)",
    "CREATE INDEX recipients_due ON recipients (destination, due_at) WHERE lease = 0 AND due_at IS NOT NULL",
    "CREATE INDEX recipients_leased ON recipients (lease) WHERE lease != 0",
    "CREATE INDEX recipients_held ON recipients (changed_at) WHERE status = 'held'",
    "CREATE INDEX recipients_tenant ON recipients (tenant_id, accepted_at)",
    "CREATE INDEX recipients_status ON recipients (tenant_id, status, accepted_at)",
    "CREATE INDEX recipients_address ON recipients (address_key)",
    # one row per try, and per decision that REST shows among the deliveries (held)
    """CREATE TABLE attempts (
        id INTEGER PRIMARY KEY, recipient_id INTEGER NOT NULL, started_at REAL NOT NULL, duration_s REAL NOT NULL,
        status TEXT NOT NULL, stage TEXT, failure TEXT, code INTEGER, enhanced TEXT, output TEXT NOT NULL,
        details TEXT NOT NULL, bounce_class TEXT, past_dot INTEGER NOT NULL, host TEXT, address TEXT, port INTEGER,
        tls_version TEXT, tls_cipher TEXT, tls_verified INTEGER)""",
    "CREATE INDEX attempts_recipient ON attempts (recipient_id)",
    # AUTOINCREMENT: a sequence number is never given twice, also after the newest rows were deleted
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at REAL NOT NULL, tenant_id TEXT,
        message_id INTEGER, recipient_id INTEGER, data TEXT NOT NULL)""",
    "CREATE INDEX events_tenant ON events (tenant_id)",
    "CREATE INDEX events_message ON events (message_id) WHERE message_id IS NOT NULL",
    # what usage.py counts, per tenant, time and item; ``hour`` is renamed below
    """CREATE TABLE counters (
        name TEXT, tenant_id TEXT, hour INTEGER, item TEXT, n INTEGER NOT NULL,
        PRIMARY KEY (name, tenant_id, hour, item)) WITHOUT ROWID""",
    """CREATE TABLE suppressions (
        id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, stream TEXT NOT NULL, address_key TEXT NOT NULL,
        address TEXT NOT NULL, reason TEXT NOT NULL, created_at REAL NOT NULL, automatic INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX suppressions_key ON suppressions (tenant_id, address_key, stream)",
    "CREATE INDEX suppressions_tenant ON suppressions (tenant_id, created_at)",
    """CREATE TABLE domain_states (
        tenant_id TEXT, domain TEXT, spf TEXT, spf_error TEXT, dkim TEXT, dkim_error TEXT, return_path TEXT,
        return_path_error TEXT, checked_at REAL, verified_at REAL, PRIMARY KEY (tenant_id, domain)) WITHOUT ROWID""",
    """CREATE TABLE credential_uses (
        tenant_id TEXT, name TEXT, used_at REAL, PRIMARY KEY (tenant_id, name)) WITHOUT ROWID""",
    "CREATE TABLE clear_text_hosts (host TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # last, so that a check with little time has seen everything else
    "CREATE TABLE bodies (message_id INTEGER PRIMARY KEY, content BLOB NOT NULL)",
)


def _first(database: "Database") -> None:
    for statement in _FIRST:
        database.execute(statement)


# what the REST API keeps
_SECOND = (
    "ALTER TABLE messages ADD COLUMN test INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE messages ADD COLUMN tell_at REAL",
    # expires_at is the message's, so that what waits beyond its end is found; delay_at: when a delay notice is due
    "ALTER TABLE recipients ADD COLUMN expires_at REAL",
    "ALTER TABLE recipients ADD COLUMN delay_at REAL",
    """CREATE INDEX recipients_expiring ON recipients (expires_at)
        WHERE expires_at IS NOT NULL AND status IN ('pending', 'softfail', 'held')""",
    # what is due, for a lane's tenants in turn; bulk is the message's, and goes last
    "ALTER TABLE messages ADD COLUMN bulk INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE recipients ADD COLUMN bulk INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX recipients_due",
    """CREATE INDEX recipients_due ON recipients (destination, tenant_id, bulk, due_at)
        WHERE lease = 0 AND due_at IS NOT NULL""",
    "CREATE TABLE lanes (lane TEXT PRIMARY KEY, learned TEXT NOT NULL) WITHOUT ROWID",
    # answers of requests with an Idempotency-Key
    """CREATE TABLE receipts (
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL,
        fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL, at REAL NOT NULL)""",
    "CREATE UNIQUE INDEX receipts_key ON receipts (owner, method, path, key)",
    "CREATE INDEX receipts_at ON receipts (at)",
    "ALTER TABLE counters RENAME COLUMN hour TO start",
    # what DNS says of each track domain, by its full name
    """CREATE TABLE track_states (
        tenant_id TEXT, name TEXT, status TEXT, error TEXT, checked_at REAL,
        PRIMARY KEY (tenant_id, name)) WITHOUT ROWID""",
    # one row per attempt to post to a webhook; owner: the tenant whose webhook it is, empty for the platform's
    """CREATE TABLE hook_deliveries (
        id INTEGER PRIMARY KEY, public_id TEXT NOT NULL, owner TEXT NOT NULL, webhook_id TEXT NOT NULL,
        webhook_name TEXT NOT NULL, tenant_id TEXT NOT NULL, event TEXT NOT NULL, url TEXT NOT NULL,
        attempt INTEGER NOT NULL, will_retry INTEGER NOT NULL, at REAL NOT NULL, duration_s REAL NOT NULL,
        status INTEGER, success INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL, answer TEXT NOT NULL,
        error TEXT)""",
    "CREATE UNIQUE INDEX hook_deliveries_public ON hook_deliveries (public_id)",
    # one row per request to the API, with what lists are filtered by; see requests.py
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, tenant_id TEXT NOT NULL, credential_id TEXT NOT NULL,
        endpoint TEXT NOT NULL, status INTEGER NOT NULL, batch_id INTEGER NOT NULL, place INTEGER NOT NULL)""",
    "CREATE INDEX requests_public ON requests (request_id)",
    "CREATE INDEX requests_tenant ON requests (tenant_id, id, status, endpoint, credential_id)",
    "CREATE INDEX requests_credential ON requests (credential_id)",
    "CREATE INDEX requests_endpoint ON requests (endpoint)",
    "CREATE INDEX requests_status ON requests (status)",
    "CREATE INDEX requests_failed ON requests (id) WHERE status >= 400",
    "CREATE TABLE request_batches (id INTEGER PRIMARY KEY, described BLOB NOT NULL, bodies BLOB)",
    "ALTER TABLE attempts ADD COLUMN tls_policy TEXT",
    # MTA-STS policies of recipient domains, kept for their max_age; see peertls.py
    """CREATE TABLE sts_policies (
        domain TEXT PRIMARY KEY, id TEXT NOT NULL, mode TEXT NOT NULL, mx TEXT NOT NULL, max_age_s REAL NOT NULL,
        fetched_at REAL NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX sts_policies_end ON sts_policies (fetched_at + max_age_s)",
    # sessions with peers per UTC day: how their TLS came out, under which policy
    """CREATE TABLE tls_results (
        day INTEGER, domain TEXT, policy TEXT, said TEXT, host TEXT, address TEXT, result TEXT, n INTEGER NOT NULL,
        PRIMARY KEY (day, domain, policy, said, host, address, result)) WITHOUT ROWID""",
    "CREATE INDEX hook_deliveries_owner ON hook_deliveries (owner, at, webhook_id, tenant_id, event, success)",
)


def _second(database: "Database") -> None:
    for statement in _SECOND:
        database.execute(statement)


_THIRD = (
    "ALTER TABLE attempts ADD COLUMN source TEXT",
    # what addresses that are warming up have carried; see policy.warmup
    """CREATE TABLE warmups (
        lane TEXT PRIMARY KEY, step INTEGER NOT NULL, day INTEGER NOT NULL, sent INTEGER NOT NULL,
        deferred INTEGER NOT NULL) WITHOUT ROWID""",
    # what was said in an attempt (policy/transcript.py), apart from it: it is forgotten earlier, and read seldom
    "CREATE TABLE transcripts (attempt_id INTEGER PRIMARY KEY, at REAL NOT NULL, said TEXT NOT NULL)",
    # what comes back about recipients, and why each suppression was made
    "ALTER TABLE suppressions ADD COLUMN cause TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE suppressions ADD COLUMN bounce_class TEXT",
    "ALTER TABLE suppressions ADD COLUMN recipient_id INTEGER",
    "UPDATE suppressions SET cause = CASE WHEN automatic THEN 'failure' ELSE 'hand' END",
    # AUTOINCREMENT: webhooks name a report by its number
    """CREATE TABLE reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT, recipient_id INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
        digest BLOB NOT NULL, form TEXT NOT NULL, sender TEXT NOT NULL, subject TEXT NOT NULL, status TEXT NOT NULL,
        said TEXT NOT NULL, content BLOB)""",
    "CREATE UNIQUE INDEX reports_recipient ON reports (recipient_id, digest)",
    # events on their way to webhooks, first-time recipients, credentials that the relay itself put on hold
    # one row per webhook, as somebody who answers; owner: the tenant whose it is, empty for the platform's
    """CREATE TABLE hook_endpoints (
        id INTEGER PRIMARY KEY, owner TEXT NOT NULL, webhook_id TEXT NOT NULL, url TEXT NOT NULL,
        waiting INTEGER NOT NULL DEFAULT 0, parked INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        rest_until REAL, answered_at REAL, status INTEGER, error TEXT, gone_at REAL)""",
    "CREATE UNIQUE INDEX hook_endpoints_key ON hook_endpoints (owner, webhook_id)",
    # one row per event that some webhook is still to be told; AUTOINCREMENT: ids outlive rows, see hook_parked
    """CREATE TABLE hook_jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint INTEGER NOT NULL, seq INTEGER NOT NULL, recipient_id INTEGER,
        uuid BLOB NOT NULL, attempts INTEGER NOT NULL, made_at REAL NOT NULL, due_at REAL NOT NULL)""",
    "CREATE INDEX hook_jobs_due ON hook_jobs (endpoint, due_at)",
    "CREATE INDEX hook_jobs_order ON hook_jobs (endpoint, recipient_id)",
    # those whose schedule is over, under their old ids
    """CREATE TABLE hook_parked (
        id INTEGER PRIMARY KEY, endpoint INTEGER NOT NULL, seq INTEGER NOT NULL, recipient_id INTEGER,
        uuid BLOB NOT NULL, attempts INTEGER NOT NULL, made_at REAL NOT NULL)""",
    "CREATE INDEX hook_parked_endpoint ON hook_parked (endpoint, made_at)",
    # to whom each tenant with a budget for that has written, as hashes; see known.py
    """CREATE TABLE known_recipients (
        tenant INTEGER, address INTEGER, PRIMARY KEY (tenant, address)) WITHOUT ROWID""",
    # recipients per day that their tenant had never written to: let through, and held because they were too many
    """CREATE TABLE first_times (
        tenant_id TEXT, day INTEGER, credential TEXT, passed INTEGER NOT NULL, held INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, day, credential)) WITHOUT ROWID""",
    # credentials that the relay itself put on hold, by their numbers
    """CREATE TABLE suspicions (
        tenant_id TEXT, credential INTEGER, reason TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (tenant_id, credential)) WITHOUT ROWID""",
    # when a domain that fails was last told of
    "ALTER TABLE domain_states ADD COLUMN told_at REAL",
    "ALTER TABLE messages ADD COLUMN stream TEXT",
    # the links of a submission, in their order, for the recipients from first_id to last_id; see engagement.py
    """CREATE TABLE links (
        first_id INTEGER PRIMARY KEY, last_id INTEGER NOT NULL, accepted_at REAL NOT NULL, urls BLOB NOT NULL)""",
    "CREATE TABLE activity (recipient_id INTEGER PRIMARY KEY, opens INTEGER NOT NULL, clicks INTEGER NOT NULL)",
)


def _third(database: "Database") -> None:
    for statement in _THIRD:
        database.execute(statement)


_FOURTH = (
    # recipients that were held from the start, and took no place of their tenant's limits yet; see granted.py
    "CREATE TABLE ungranted (recipient_id INTEGER PRIMARY KEY)",
    # of those that are there, what was held for this surely was so from the start; index recipients_held
    """INSERT INTO ungranted SELECT id FROM recipients INDEXED BY recipients_held
        WHERE status = 'held' AND hold_reason IN ('send_limit', 'new_recipients')""",
    # what sites have said of recipients within the hour; see policy.burst
    "CREATE TABLE bursts (site TEXT PRIMARY KEY, at REAL NOT NULL, counted TEXT NOT NULL) WITHOUT ROWID",
    # what lapses where [suppression] keep says so
    "CREATE INDEX suppressions_failure ON suppressions (created_at) WHERE cause = 'failure'",
)


def _fourth(database: "Database") -> None:
    for statement in _FOURTH:
        database.execute(statement)


MIGRATIONS: tuple[Callable[["Database"], None], ...] = (_first, _second, _third, _fourth)
VERSION = len(MIGRATIONS)


def version_of(db: sqlite3.Connection) -> int:
    """Return the schema version of an open database, 0 for an empty one.

    Raises ``StoreError`` for a database that is not ours, and ``sqlite3.DatabaseError`` for a file that is none.
    """
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if tables and (application != APPLICATION_ID or "schema_versions" not in tables):
        raise StoreError("this is a database of another program")
    if "schema_versions" not in tables:
        return 0
    version: int = db.execute("SELECT max(version) FROM schema_versions").fetchone()[0] or 0
    return version


def refuse_foreign(db: sqlite3.Connection) -> int:
    """Return the schema version, or raise ``StoreError`` when the database is another program's or a newer one's."""
    found = version_of(db)
    if found > VERSION:
        raise StoreError(f"its schema is version {found}, made by a newer arkrelay; this one knows up to {VERSION}")
    return found


def migrate(db: sqlite3.Connection) -> int:
    """Bring the open database to ``VERSION``, each step in one transaction; return the version it had.

    Raises ``StoreError`` when it is newer than this program, and leaves it untouched.
    """
    found = refuse_foreign(db)
    if found == VERSION:
        return found
    from sqlite_utils import Database  # noqa: PLC0415 -- 90 ms, and needed only when there is something to migrate

    database = Database(db)
    for version in range(found + 1, VERSION + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            if version == 1:
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(
                    "CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
                )
            MIGRATIONS[version - 1](database)
            database.execute("INSERT INTO schema_versions VALUES (?, ?)", (version, time.time()))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    return found
