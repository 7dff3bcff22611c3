"""What a Postal (2 and 3) keeps, read from dumps of its databases: the main one, and ``postal-server-N`` for lists.

Postal's organisation is a name before our tenants, its mail server is our tenant. Column names are those of its
``db/schema.rb`` and, for suppressions, of its message database.
"""

import contextlib
import gzip
import io
import json
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, BinaryIO

from arkrelay.cli import foreign
from arkrelay.cli.foreign import Left
from arkrelay.cli.import_plan import excluded_hosts
from arkrelay.cli.sqldump import Dump, Row
from arkrelay.cli.state import Failed
from arkrelay.cli.suppression_files import Passed, parse_row
from arkrelay.cli.suppression_files import Row as Address
from arkrelay.config.checktenants import CREDENTIAL_NAME, TENANT_NAME_CHARS
from arkrelay.config.load import TENANT_ID
from arkrelay.config.takeover import SigningKey
from arkrelay.model.tenant import WEBHOOK_EVENTS

KEPT = frozenset(
    {"organizations", "servers", "domains", "credentials", "webhooks", "webhook_events", "track_domains", "ip_pools",
     "ip_addresses"}
)  # fmt: skip
COUNTED = frozenset({"routes", "http_endpoints", "smtp_endpoints", "address_endpoints", "users", "queued_messages"})
LIST_DATABASE = re.compile(r".*-server-(\d+)")  # Postal's message databases: prefix, "server", the server's id
GZIP = b"\x1f\x8b"
MEMORY_BYTES = 1_000_000  # of one server's list; longer ones wait in a temporary file
PART = 500  # addresses in one request
NO_SERVER = ""
OF_SERVER = frozenset({"id", "server_id"})
NEEDED = {  # what tells a table of Postal from another program's of that name
    "organizations": frozenset({"id", "name", "permalink"}),
    "servers": frozenset({"id", "organization_id", "permalink", "name"}),
    "domains": frozenset({"id", "name", "owner_type", "owner_id", "dkim_private_key", "dkim_identifier_string"}),
    "credentials": frozenset({"id", "server_id", "key", "type", "name"}),
    "webhook_events": frozenset({"id", "webhook_id", "event"}),
    "ip_pools": frozenset({"id", "name"}),
    "ip_addresses": frozenset({"id", "ip_pool_id"}),
    "suppressions": frozenset({"type", "address", "keep_until"}),
    "users": frozenset({"email_address", "password_digest"}),
}
OF_ALL = "it is of the whole organisation, and has one tenant here: run this with --server for that one first"


class PostalList:
    """The suppressions of one server, put aside while the dump is read: it may be a pipe."""

    def __init__(self, aside: IO[bytes]) -> None:
        self.count = 0
        self._file = aside

    def add(self, row: Row) -> None:
        """Put one row aside."""
        self.count += 1
        self._file.write(
            json.dumps([row.get(one) or "" for one in ("type", "address", "reason", "timestamp")]).encode()
        )
        self._file.write(b"\n")

    def parts(self) -> Iterator[tuple[list[Address], list[Passed]]]:
        """Yield the addresses to be taken, and what is none."""
        self._file.seek(0)
        rows: list[Address] = []
        passed: list[Passed] = []
        for number, line in enumerate(self._file, 1):
            kind, address, reason, at = json.loads(line)
            cells = {"type": kind or "recipient", "address": address, "reason": reason, "timestamp": at}
            found = parse_row(number, cells, "postal")
            (rows if isinstance(found, Address) else passed).append(found)  # type: ignore[arg-type]
            if number % PART == 0:
                yield rows, passed
                rows, passed = [], []
        yield rows, passed


class Tables:
    """The rows of Postal's tables that matter, by table; others are counted by server."""

    def __init__(self, now: float, stack: contextlib.ExitStack) -> None:
        self.now, self._stack = now, stack
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lists: dict[str, PostalList] = {}
        self.expired: Counter[str] = Counter()
        self._indices: dict[tuple[str, tuple[str, ...]], dict[tuple[str | None, ...], list[Row]]] = {}

    def read(self, dump: Dump) -> None:
        """Take in one dump."""
        for database, table, row in dump.rows(_wanted):
            if not NEEDED.get(table, OF_SERVER) <= row.keys():
                continue  # another program's, in a dump of all databases
            if table == "suppressions":
                self._suppression(database, row)
            elif table in KEPT:
                self.rows[table].append(row)
            else:
                self.counts[table, row.get("server_id") or ""] += 1

    def _suppression(self, database: str, row: Row) -> None:
        found = LIST_DATABASE.fullmatch(database)
        server = found[1] if found else NO_SERVER
        if 0 < _number(row, "keep_until") < self.now:
            self.expired[server] += 1  # Postal does not heed it any more
        else:
            if server not in self.lists:
                aside = self._stack.enter_context(tempfile.SpooledTemporaryFile(MEMORY_BYTES))  # noqa: SIM115 -- it is one
                self.lists[server] = PostalList(aside)
            self.lists[server].add(row)

    def of(self, table: str, **which: str | None) -> list[Row]:
        """Return the rows with these values, by id."""
        columns = tuple(which)
        if (index := self._indices.get((table, columns))) is None:
            index = self._indices[table, columns] = defaultdict(list)
            for row in sorted(self.rows[table], key=lambda row: _number(row, "id")):
                index[tuple(row.get(name) for name in columns)].append(row)
        return index.get(tuple(which.values()), [])


def _wanted(database: str, table: str) -> bool:
    if LIST_DATABASE.fullmatch(database):
        return table == "suppressions"
    return table in KEPT or table in COUNTED or table == "suppressions"


def open_dump(raw: io.RawIOBase) -> BinaryIO:
    """Return the dump itself, unpacked where it is gzip."""
    buffered = io.BufferedReader(raw)
    start = buffered.peek(4)[:4]
    if start[:2] == GZIP:
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]  # it reads like one
    if start in {b"\xfd7zX", b"\x28\xb5\x2f\xfd"} or start[:3] == b"BZh":
        raise Failed("the dump is packed with xz, zstd or bzip2", "unpack it: xzcat DUMP | arkrelay import postal -")
    return buffered


def read_postal(
    dumps: Iterable[Dump],
    organization: str | None,
    servers: Sequence[str],
    selector: str,
    stack: contextlib.ExitStack,
) -> foreign.Foreign:
    """Return what the dumps hold of the chosen servers, all unless some are named; Failed for what is no Postal.

    Lists are there until ``stack`` is closed.
    """
    tables = Tables(time.time(), stack)
    for dump in dumps:
        tables.read(dump)
    if not tables.rows["servers"]:
        raise Failed(
            "there are no mail servers in it", "dump Postal's main database, and the postal-server-N for lists"
        )
    return _Reader(tables, selector).read(organization, servers)


class _Reader:
    """From rows to tenants."""

    def __init__(self, tables: Tables, selector: str) -> None:
        self.tables, self.selector = tables, selector
        self.organizations = {row["id"]: row for row in tables.rows["organizations"]}
        self.found = foreign.Foreign("Postal")
        alive = [row for row in tables.of("servers") if not row.get("deleted_at")]
        self.permalinks = Counter(_text(row, "permalink") for row in alive)
        self.servers = alive

    def read(self, organization: str | None, names: Sequence[str]) -> foreign.Foreign:
        chosen = [row for row in self.servers if self._chosen(row, organization, names)]
        if not chosen:
            known = ", ".join(self._path(row) for row in self.servers[:20])
            raise Failed("no mail server is called so", f"there are: {known}")
        per_organization = Counter(row.get("organization_id") for row in chosen)
        for row in chosen:
            self.found.tenants.append(self._tenant(row, alone=per_organization[row.get("organization_id")] == 1))
        for owner in [owner for owner, count in per_organization.items() if count > 1]:
            for one in self.tables.of("domains", owner_type="Organization", owner_id=owner):
                self.found.left.append(Left("domain", _text(one, "name"), OF_ALL))
        self._rest()
        return self.found

    def _chosen(self, row: Row, organization: str | None, names: Sequence[str]) -> bool:
        owner = self._organization(row)
        if organization and organization not in {_text(owner, "permalink"), _text(owner, "name")}:
            return False
        return not names or bool({_text(row, "permalink"), _text(row, "name"), self._path(row)} & set(names))

    def _organization(self, row: Row) -> Row:
        return self.organizations.get(row.get("organization_id"), {})

    def _path(self, row: Row) -> str:
        return f"{_text(self._organization(row), 'permalink')}/{_text(row, 'permalink')}"

    def _tenant(self, row: Row, *, alone: bool) -> foreign.Tenant:
        server, owner = row["id"], self._organization(row)
        tenant = foreign.Tenant(self._id(row), _text(row, "name")[:TENANT_NAME_CHARS])
        if row.get("suspended_at") or owner.get("suspended_at") or owner.get("deleted_at"):
            tenant.status, tenant.note = "suspended", "it is suspended there"
        elif row.get("mode") == "Development":
            tenant.status = "suspended"
            tenant.note = f"in development mode, which held its mail: arkrelay tenant set {tenant.id} --status active"
        tenant.hourly = int(_number(row, "send_limit"))
        domains = [*self.tables.of("domains", owner_type="Server", owner_id=server)]
        if alone:
            domains += self.tables.of("domains", owner_type="Organization", owner_id=row.get("organization_id"))
        domains += [one for one in self.tables.of("domains", server_id=server) if not one.get("owner_type")]
        self._domains(tenant, domains)
        self._credentials(tenant, self.tables.of("credentials", server_id=server))
        self._webhooks(tenant, self.tables.of("webhooks", server_id=server))
        self._tracks(tenant, row, {one["id"]: _text(one, "name").lower() for one in domains})
        self._uncopied(tenant, str(server))
        return tenant

    def _id(self, row: Row) -> str:
        """Return the server's permalink, or both where two organisations have a server of that name."""
        link = _text(row, "permalink")
        made = link if self.permalinks[link] == 1 else self._path(row).replace("/", "-")
        made = re.sub(r"[^a-z0-9_-]+", "-", made.lower()).strip("-_")[:63]
        return made if TENANT_ID.fullmatch(made) else f"postal-{row['id']}"

    def _domains(self, tenant: foreign.Tenant, rows: Iterable[Row]) -> None:
        for row in rows:
            name = _text(row, "name").lower()
            if row.get("outgoing") == "0":
                tenant.left.append(Left("domain", name, "it only receives there"))
                continue
            pem, identifier = row.get("dkim_private_key"), row.get("dkim_identifier_string")
            key = SigningKey(f"{self.selector}-{identifier}", pem.encode()) if pem and identifier else None
            tenant.domains.append(foreign.Domain(name, key))
            if row.get("use_for_any") == "1":
                tenant.left.append(
                    Left("domain", f"{name} for any sender", "each sender domain is to be its own here")
                )

    def _credentials(self, tenant: foreign.Tenant, rows: Iterable[Row]) -> None:
        used: set[str] = set()
        for row in rows:
            theirs, kind = _text(row, "name"), _text(row, "type")
            if kind not in {"SMTP", "API"}:
                note = (
                    f"{row.get('key')} sends without a password: give apps of this machine a [[listen]] with tenant ="
                )
                tenant.left.append(Left("credential", theirs, note))
                continue
            name = _credential_name(theirs, used)
            used.add(name)
            note = "" if name == theirs else f"it was called {theirs} there"
            if kind == "API":
                note = "; ".join(filter(None, (note, "for this REST API, which is not Postal's")))
            tenant.credentials.append(
                foreign.Credential(name, kind.lower(), row.get("hold") == "1", row.get("key") or None, note)
            )

    def _webhooks(self, tenant: foreign.Tenant, rows: Iterable[Row]) -> None:
        for row in rows:
            listed = [_text(one, "event") for one in self.tables.of("webhook_events", webhook_id=row["id"])]
            unknown = [one for one in listed if one not in WEBHOOK_EVENTS]
            every = row.get("all_events") == "1"
            note = f"without {', '.join(unknown)}" if unknown and not every else ""
            events = tuple(one for one in dict.fromkeys(listed) if one in WEBHOOK_EVENTS and not every)
            tenant.webhooks.append(
                foreign.Webhook(_text(row, "name"), _text(row, "url"), events, every, row.get("enabled") != "0", note)
            )

    def _tracks(self, tenant: foreign.Tenant, server: Row, domains: dict[str | None, str]) -> None:
        for row in self.tables.of("track_domains", server_id=server["id"]):
            domain = domains.get(row.get("domain_id"))
            if domain is None:
                tenant.left.append(Left("track domain", _text(row, "name"), "its domain is not one of this tenant"))
                continue
            hosts = f"{_text(row, 'excluded_click_domains')}\n{_text(server, 'domains_not_to_click_track')}"
            tenant.track_domains.append(
                foreign.TrackDomain(
                    _text(row, "name"),
                    domain,
                    ssl=row.get("ssl_enabled") != "0",
                    clicks=row.get("track_clicks") != "0",
                    opens=row.get("track_loads") != "0",
                    excluded=excluded_hosts(hosts),
                )
            )

    def _uncopied(self, tenant: foreign.Tenant, server: str) -> None:
        counts = self.tables.counts
        endpoints = sum(counts[f"{kind}_endpoints", server] for kind in ("http", "smtp", "address"))
        for what, count, why in (
            ("routes", counts["routes", server], "this relay takes in no mail for people"),
            ("endpoints", endpoints, "this relay takes in no mail for people"),
            (
                "queue",
                counts["queued_messages", server],
                "Postal goes on sending it: leave it running until it is empty",
            ),
            ("suppressions", self.tables.expired[server], "they have expired there"),
        ):
            if count:
                tenant.left.append(Left(what, str(count), why))
        tenant.suppressions = self.tables.lists.get(server)
        if tenant.suppressions is None and not self.tables.expired[server]:
            note = f"its list is in the database postal-server-{server}: give that dump too"
            tenant.left.append(Left("suppressions", "", note))

    def _rest(self) -> None:
        tables, left = self.tables, self.found.left
        users = sum(count for (table, _), count in tables.counts.items() if table == "users")
        if users:
            left.append(
                Left("users", str(users), "who may do what here is a matter of keys and of this machine's users")
            )
        unclaimed = tables.lists.get(NO_SERVER)
        if unclaimed is not None:
            note = "the dump does not say of which server: dump that database without --skip-comments"
            left.append(Left("suppressions", str(unclaimed.count), note))
        for pool in tables.of("ip_pools"):
            addresses = tables.of("ip_addresses", ip_pool_id=pool["id"])
            shown = [one for row in addresses for one in (row.get("ipv4"), row.get("ipv6")) if one]
            left.append(Left("ip pool", _text(pool, "name"), f"{', '.join(shown)}: [[source]] of arkrelay.toml"))
        if tables.rows["ip_pools"]:
            self.found.advice.append("addresses to send from are [[source]] with a pool, which a tenant's pool names")
        if any(one.credentials for one in self.found.tenants):
            self.found.advice.append("apps that use Postal's HTTP API need this one, or SMTP, which is as it was")


def _credential_name(theirs: str, used: set[str]) -> str:
    """Return their name in the letters that ours may have, told apart from those in use."""
    made = re.sub(r"[^A-Za-z0-9_-]+", "-", theirs).strip("-")[:50] or "credential"
    name, number = made, 1
    while name in used or not CREDENTIAL_NAME.fullmatch(name):
        number += 1
        name = f"{made[:46]}-{number}"
    return name


def _text(row: Row, name: str) -> str:
    return (row.get(name) or "").strip()


def _number(row: Row, name: str) -> float:
    try:
        return float(row.get(name) or 0)
    except ValueError:
        return 0.0
