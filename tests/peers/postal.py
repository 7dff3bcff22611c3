"""Dumps as mariadb-dump writes them of a Postal, with the tables and columns of its schema that matter to us."""

from collections.abc import Mapping, Sequence

COLUMNS: Mapping[str, Sequence[str]] = {
    "organizations": ("id", "uuid", "name", "permalink", "suspended_at", "deleted_at"),
    "servers": ("id", "organization_id", "uuid", "name", "mode", "permalink", "send_limit", "deleted_at",
                "suspended_at", "domains_not_to_click_track"),
    "domains": ("id", "server_id", "name", "verified_at", "dkim_private_key", "outgoing", "owner_type", "owner_id",
                "dkim_identifier_string", "use_for_any"),
    "credentials": ("id", "server_id", "key", "type", "name", "options", "hold"),
    "webhooks": ("id", "server_id", "name", "url", "all_events", "enabled", "sign"),
    "webhook_events": ("id", "webhook_id", "event"),
    "track_domains": ("id", "server_id", "domain_id", "name", "ssl_enabled", "track_clicks", "track_loads",
                      "excluded_click_domains"),
    "routes": ("id", "server_id", "name"),
    "http_endpoints": ("id", "server_id", "url"),
    "users": ("id", "email_address", "password_digest"),
    "queued_messages": ("id", "server_id", "message_id"),
    "ip_pools": ("id", "name", "default"),
    "ip_addresses": ("id", "ip_pool_id", "ipv4", "ipv6"),
    "suppressions": ("id", "type", "address", "reason", "timestamp", "keep_until"),
    "messages": ("id", "subject"),
}  # fmt: skip

Value = str | int | float | None


def dump(database: str, **tables: Sequence[Mapping[str, Value]]) -> bytes:
    """Return a dump of these rows; what a row does not name is NULL."""
    parts = [f"/*M!999999\\- enable the sandbox mode */ \n-- Host: localhost    Database: {database}\n-- ---\n"]
    for table, rows in tables.items():
        columns = COLUMNS[table]
        lines = ",\n".join(f"  `{name}` varchar(255) DEFAULT NULL" for name in columns)
        parts.append(
            f"DROP TABLE IF EXISTS `{table}`;\nCREATE TABLE `{table}` (\n{lines},\n  PRIMARY KEY (`id`)\n);\n"
        )
        values = ",\n".join(
            "("
            + ",".join(_quoted(number if name == "id" and "id" not in row else row.get(name)) for name in columns)
            + ")"
            for number, row in enumerate(rows, 1)
        )
        parts.append(f"LOCK TABLES `{table}` WRITE;\nINSERT INTO `{table}` VALUES\n{values};\nUNLOCK TABLES;\n")
    return "".join([*parts, "-- Dump completed on 2026-01-31 12:00:00\n"]).encode()


def _quoted(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    return str(value)
