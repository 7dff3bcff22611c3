"""Usage as a file, for billing and spreadsheets (Ark contract §17.3)."""

import csv
import io
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from aiohttp import web

from arkrelay.api.ask import Ask
from arkrelay.api.model import Meta, Nothing
from arkrelay.api.operation import encode
from arkrelay.api.usage import (
    Snake,
    TenantsQuery,
    TenantStatus,
    TenantUsageItem,
    UsagePeriod,
    period_of,
    rows,
    shape_period,
)

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"
BOM: Final = "\ufeff"  # by which spreadsheets know UTF-8

# A spreadsheet takes a cell that begins so for a formula (OWASP, CSV Injection), and names of tenants come from
# people who sign up. Full-width signs are formulas in some locales.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 -- meant


class ExportQuery(TenantsQuery):
    """And as what."""

    format: Annotated[Literal["csv", "jsonl", "json"], Meta(description="The kind of file.")] = "csv"


class ExportRow(Snake):
    """What one of the tenants sent, as one line; its keys are the columns of the CSV file."""

    tenant_id: str
    tenant_name: str
    external_id: str | None
    status: TenantStatus
    sent: int
    delivered: int
    soft_failed: int
    hard_failed: int
    bounced: int
    held: int
    delivery_rate: float
    bounce_rate: float


COLUMNS: Final = (*ExportRow.__struct_fields__, "period_start", "period_end")


async def export(ask: Ask[ExportQuery, Nothing]) -> web.StreamResponse:
    """What each tenant sent in a time, as a file.

    CSV begins with a byte order mark, as Excel wants it. A text in it that a spreadsheet would take for a formula
    (it begins with =, +, - or @) has an apostrophe before it; jsonl and json have it as it is. An SDK gets a JSON
    array for jsonl: it cannot read several lines.
    """
    query, headers = ask.query, ask.request.headers
    period = period_of(query)
    found = [_row(one) for one in sorted(await rows(ask, query, period), key=lambda one: one.tenant_id)]
    kind = query.format
    accepts = headers.get("Accept", "")
    if kind == "jsonl" and "X-Stainless-Lang" in headers and JSON in accepts and NDJSON not in accepts:
        kind = "json"
    body, media = _written(found, kind, shape_period(period))
    name = f"usage-{period.first}_{period.last}.{kind}"
    return web.Response(
        body=body,
        content_type=media,
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _written(
    found: Sequence[ExportRow], kind: Literal["csv", "jsonl", "json"], period: UsagePeriod
) -> tuple[bytes, str]:
    match kind:
        case "csv":
            return render_csv(found, period).encode("utf-8", "replace"), CSV
        case "jsonl":
            return b"".join(encode(one) + b"\n" for one in found), NDJSON
        case "json":
            return encode(found), JSON


def render_csv(found: Sequence[ExportRow], period: UsagePeriod) -> str:
    """Return a table as RFC 4180 has it, with a byte order mark."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for one in found:
        values = (getattr(one, name) for name in ExportRow.__struct_fields__)
        table.writerow([_cell(value) for value in values] + [period.start, period.end])
    return BOM + text.getvalue()


def _cell(value: object) -> object:
    """Return a value that no spreadsheet calculates."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(item: TenantUsageItem) -> ExportRow:
    emails, rates = item.emails, item.rates
    return ExportRow(
        tenant_id=item.tenant_id,
        tenant_name=item.tenant_name,
        external_id=item.external_id,
        status=item.status,
        sent=emails.sent,
        delivered=emails.delivered,
        soft_failed=emails.soft_failed,
        hard_failed=emails.hard_failed,
        bounced=emails.bounced,
        held=emails.held,
        delivery_rate=rates.delivery_rate,
        bounce_rate=rates.bounce_rate,
    )
