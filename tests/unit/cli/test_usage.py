"""usage: what was sent, by tenant and by time, against a daemon's double on a real unix socket."""

import json
from typing import Any

import pytest
from aiohttp import web
from unit.cli.support import Double, Program, page

PERIOD = {"start": "2026-07-01T00:00:00.000Z", "end": "2026-07-31T23:59:59.999Z"}
EMAILS = {"sent": 10, "delivered": 6, "soft_failed": 1, "hard_failed": 1, "bounced": 1, "held": 1}
RATES = {"delivery_rate": 0.6, "bounce_rate": 0.2}
WHOLE = {
    "period": PERIOD,
    "emails": EMAILS,
    "rates": RATES,
    "tenants": {"total": 2, "active": 2, "withActivity": 1},
}
ROWS: list[dict[str, Any]] = [
    {
        "tenantId": id_,
        "tenantName": name,
        "externalId": None,
        "status": "active",
        "emails": EMAILS,
        "rates": RATES,
    }
    for id_, name in (("acme", "Acme Inc"), ("other", "Other\x1b[2J Ltd"))
]
TENANT = {"tenant_id": "acme", "tenant_name": "Acme Inc", "external_id": "c-7", "period": PERIOD}
POINT = {"timestamp": "2026-07-01T00:00:00.000Z", **EMAILS}


def test_each_tenant_is_a_line_and_all_pages_are_read(program: Program, daemon: Double) -> None:
    daemon.answers = {
        "GET /v1/usage": WHOLE,
        "GET /v1/usage/tenants": lambda query: page([ROWS[int(query["page"]) - 1]], int(query["page"]), pages=2),
    }
    ran = program("usage", "--status", "active", "--min-sent", "0", "--sort", "tenant_name")
    assert ran.code == 0, ran.err
    heading, *lines = ran.out.splitlines()
    assert heading.split()[:4] == ["TENANT", "NAME", "STATUS", "SENT"]
    assert [line.split()[0] for line in lines] == ["acme", "other"]
    assert lines[0].split()[-8:] == ["10", "6", "1", "1", "1", "1", "60.0", "20.0"]
    assert "\x1b" not in ran.out
    assert "from 2026-07-01T00:00:00.000Z to 2026-07-31T23:59:59.999Z" in ran.err
    assert "all 2 tenants, of which 1 sent something: 10 sent, 6 delivered, 1 soft failed" in ran.err
    time = {"period": "this_month", "timezone": "UTC"}
    assert [one.query for one in daemon.asked] == [
        time,
        *(
            {**time, "status": "active", "minSent": "0", "sort": "tenant_name", "page": str(n), "perPage": "100"}
            for n in (1, 2)
        ),
    ]


def test_it_is_json_on_request(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/usage": WHOLE, "GET /v1/usage/tenants": page(ROWS)}
    ran = program("usage", "--json", "-p", "2026-07", "--timezone", "Europe/Berlin")
    assert json.loads(ran.out) == {"organisation": WHOLE, "tenants": ROWS}
    assert {one.query["timezone"] for one in daemon.asked} == {"Europe/Berlin"}
    assert {one.query["period"] for one in daemon.asked} == {"2026-07"}


def test_a_csv_file_comes_through_as_it_is(program: Program, daemon: Double) -> None:
    text = "\ufefftenant_id,tenant_name\r\nacme,Zoë\r\n"
    daemon.answers = {"GET /v1/usage/export": web.Response(body=text.encode(), content_type="text/csv")}
    ran = program("usage", "--csv", "--min-sent", "5")
    assert (ran.code, ran.out) == (0, text)
    assert daemon.asked[0].query == {"period": "this_month", "timezone": "UTC", "minSent": "5"}


def test_one_tenant_is_shown_by_name(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/tenants/acme/usage": {**TENANT, "emails": EMAILS, "rates": RATES}}
    ran = program("usage", "--tenant", "acme")
    assert ran.code == 0, ran.err
    shown = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert {name.strip(): value.strip() for name, value in shown.items()} == {
        "tenant": "acme", "name": "Acme Inc", "known as": "c-7", "from": PERIOD["start"], "to": PERIOD["end"],
        "sent": "10", "delivered": "6", "softfail": "1", "hardfail": "1", "bounced": "1", "held": "1",
        "delivered %": "60.0", "bounced %": "20.0",
    }  # fmt: skip
    assert json.loads(program("usage", "--tenant", "acme", "--json").out)["emails"] == EMAILS


def test_its_time_is_a_line_for_each_part(program: Program, daemon: Double) -> None:
    series = {**TENANT, "granularity": "week", "data": [POINT, {**POINT, "timestamp": "2026-07-06T00:00:00.000Z"}]}
    daemon.answers = {"GET /v1/tenants/a%2Fb/usage/timeseries": series}
    ran = program("usage", "-t", "a/b", "--by", "week", "-p", "last_month")
    heading, *lines = ran.out.splitlines()
    assert heading.startswith("WEEK FROM")
    assert [line.split() for line in lines] == [
        [stamp, "10", "6", "1", "1", "1", "1"] for stamp in ("2026-07-01T00:00:00.000Z", "2026-07-06T00:00:00.000Z")
    ]
    assert daemon.asked[0].query == {"period": "last_month", "timezone": "UTC", "granularity": "week"}
    assert json.loads(program("usage", "-t", "a/b", "--by", "week", "--json").out) == series


@pytest.mark.parametrize("words", [("--csv",), ()])
def test_a_period_that_is_none_is_said_by_name(program: Program, daemon: Double, words: tuple[str, ...]) -> None:
    error = {"code": "validation_error", "message": "period must be today", "field": "period"}
    daemon.answers = {
        f"GET /v1/usage{'/export' if words else ''}": (400, {"success": False, "error": error}),
    }
    ran = program("usage", "-p", "soon", *words)
    assert ran.code == 1
    assert "period must be today" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--csv", "--json"),
        ("--csv", "-t", "acme"),
        ("--csv", "--sort", "sent"),
        ("--by", "day"),
        ("-t", "acme", "--min-sent", "0"),
        ("-t", "acme", "--status", "active"),
        ("-t", "acme", "--sort", "sent"),
        ("--by", "minute", "-t", "acme"),
        ("--min-sent", "-1"),
    ],
)
def test_words_that_do_not_go_together_are_not_understood(
    program: Program, daemon: Double, words: tuple[str, ...]
) -> None:
    assert program("usage", *words).code == 2
    assert not daemon.asked
