"""webhook set, show, test, deliveries, replay, rotate-key: real files, and a daemon's double."""

import json
import time
from typing import Any

import pytest
from unit.cli.support import Double, Program, page

from arkrelay.config.load import load

STATE = {
    "waiting": 12, "parked": 3, "failures": 4, "statusCode": 503, "error": "It answered 503",
    "answeredAt": "2026-01-31T12:00:00.000Z", "nextAt": None, "restUntil": None, "goneAt": None, "enabled": True,
}  # fmt: skip
DELIVERY = {
    "id": "whr_1", "webhookId": "7", "event": "MessageSent", "url": "https://x.test/", "attempt": 2,
    "statusCode": None, "success": False, "willRetry": True, "timestamp": "2026-01-31T12:00:00.000Z",
    "error": "No answer within 5 s",
}  # fmt: skip


@pytest.fixture
def acme(program: Program) -> Program:
    assert program("tenant", "add", "acme").code == 0
    return program


def added(program: Program, *words: str) -> str:
    ran = program("webhook", "add", "https://app.example.com/hooks", *words)
    assert ran.code == 0, ran.err
    return ran.out.strip()


def test_a_webhook_is_changed_in_its_file_without_a_daemon(acme: Program) -> None:
    id_ = added(acme)
    assert acme("webhook", "set", id_, "--url", "https://new.test/", "--event", "MessageSent", "--disable").code == 0
    (one,) = load(acme.config).tenants["acme"].webhooks
    assert (one.url, one.events, one.enabled) == ("https://new.test/", ("MessageSent",), False)
    assert acme("webhook", "set", id_, "--all-events", "--enable", "--name", "New").code == 0
    (one,) = load(acme.config).tenants["acme"].webhooks
    assert (one.takes_all, one.enabled, one.name) == (True, True, "New")
    central = added(acme, "--platform")
    assert acme("webhook", "set", central, "--platform", "--event", "MessageHeld").code == 0
    assert load(acme.config).platform.webhooks[0].events == ("MessageHeld",)
    shown = json.loads(acme("webhook", "show", id_, "--json").out)
    assert (shown["name"], shown["enabled"]) == ("New", True)
    assert "waiting" not in shown


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("set", "7"), 1, "no webhook 7"),
        (("set", "ID"), 2, "Nothing to change"),
        (("set", "ID", "--event", "MessageSent", "--all-events"), 2, "not both"),
        (("show", "7"), 1, "no webhook 7"),
        (("replay", "ID"), 2, "a DELIVERY"),
        (("replay", "--failed", "ID", "whr_1"), 2, "not both"),
        (("replay", "--failed", "--since", "yesterday"), 2, "ISO 8601"),
        (("deliveries", "ID"), 1, "does not answer"),
        (("test", "ID"), 1, "does not answer"),
    ],
)
def test_what_cannot_be_done_is_said(acme: Program, words: tuple[str, ...], code: int, says: str) -> None:
    id_ = added(acme)
    ran = acme("webhook", *(id_ if word == "ID" else word for word in words))
    assert (ran.code, says in ran.err) == (code, True), ran.err


NEVER_POSTED_TO = ["https://127.0.0.1/", "https://[::1]/", "https://app.example.com:22/", "https://localhost/"]


@pytest.mark.parametrize("url", NEVER_POSTED_TO)
def test_what_nothing_would_be_posted_to_is_not_written(acme: Program, url: str) -> None:
    id_ = added(acme)
    before = load(acme.config)
    for words in (("add", url), ("add", "--platform", url), ("set", id_, "--url", url)):
        ran = acme("webhook", *words)
        assert (ran.code, "nothing would ever be posted there: " in ran.err) == (1, True), ran.err
        assert "allow_destinations" in ran.err
    ran = acme("webhook", "add", "https://user:secret@x.test/")
    assert (ran.code, "secret" in ran.err, "allow_" in ran.err) == (1, False, False)
    assert load(acme.config) == before
    with acme.config.open("a") as file:
        file.write('[webhooks]\nallow_destinations = ["127.0.0.1/32", "::1/128"]\n')
    assert acme("webhook", "set", id_, "--url", url).code == 0


@pytest.mark.parametrize("url", NEVER_POSTED_TO)
def test_check_warns_of_what_is_there_already(acme: Program, url: str) -> None:
    id_ = added(acme)
    (file,) = (acme.home / "tenants").glob("*.toml")
    file.write_text(file.read_text().replace("https://app.example.com/hooks", url))
    ran = acme("check")
    assert ran.code == 0, "a relay that runs must start again"
    assert f"warning: {file}: webhooks[0].url: nothing is posted there: " in ran.err
    assert len(json.loads(acme("check", "--json").out)["warnings"]) == 1
    assert acme("webhook", "set", id_, "--disable").code == 0
    ran = acme("check")
    assert (ran.code, ran.err) == (0, "")


def test_the_list_shows_how_each_fares(acme: Program, daemon: Double) -> None:
    daemon.answers["POST /v1/control/reload"] = {"restart": []}
    id_ = added(acme)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 600))
    state: dict[str, Any] = {"id": id_, "tenantId": "acme", **STATE, "nextAt": soon}
    daemon.answers["GET /v1/control/webhooks"] = {"webhooks": [state]}
    out = acme("webhook", "list").out
    assert all(text in out for text in ("12", "3", "503", "in 9m"))
    state |= {"goneAt": "2026-01-31T12:00:00.000Z", "nextAt": None}
    assert "gone (410)" in acme("webhook", "list").out
    assert "it answered 410 at 2026-01-31" in acme("webhook", "show", id_).out


def test_enabling_reaches_what_a_410_disabled(acme: Program, daemon: Double) -> None:
    daemon.answers["POST /v1/control/reload"] = {"restart": []}
    id_ = added(acme)
    path = f"/v1/tenants/acme/webhooks/{id_}"
    daemon.answers[f"PATCH {path}"] = {}
    assert acme("webhook", "set", id_, "--enable").code == 0
    assert (daemon.asked[-1].method, daemon.asked[-1].path, daemon.asked[-1].body) == (
        "PATCH",
        path,
        {"enabled": True},
    )


def test_deliveries_are_listed_and_posted_again(acme: Program, daemon: Double) -> None:
    path = "/v1/tenants/acme/webhooks/7/deliveries"
    daemon.answers[f"GET {path}"] = page([DELIVERY])
    out = acme("webhook", "deliveries", "7", "--failed", "--event", "MessageSent").out
    assert all(text in out for text in ("whr_1", "no answer", "yes", "No answer within 5 s"))
    assert daemon.asked[-1].query == {"page": "1", "event": "MessageSent", "success": "false"}
    answer = {"success": True, "newDeliveryId": "whr_2", "statusCode": 200}
    daemon.answers[f"POST {path}/whr_1/replay"] = [answer, {**answer, "success": False, "statusCode": None}]
    assert acme("webhook", "replay", "7", "whr_1").out == "whr_2: 200\n"
    assert acme("webhook", "replay", "7", "whr_1").code == 1
    central = "/v1/platform/webhooks/deliveries"
    daemon.answers[f"GET {central}"] = page([DELIVERY])
    daemon.answers[f"POST {central}/whr_1/replay"] = answer
    assert acme("webhook", "deliveries", "--platform", "pwh_1").code == 0
    assert daemon.asked[-1].query["webhookId"] == "pwh_1"
    assert acme("webhook", "replay", "--platform", "pwh_1", "whr_1", "--json").code == 0


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ((), {"platform": False, "webhookId": None}),
        (("7",), {"platform": False, "webhookId": "7", "tenantId": "acme"}),
        (("--tenant", "acme"), {"platform": False, "webhookId": None, "tenantId": "acme"}),
        (("--platform", "pwh_1"), {"platform": True, "webhookId": "pwh_1"}),
    ],
)
def test_what_was_given_up_is_put_back(
    acme: Program, daemon: Double, words: tuple[str, ...], body: dict[str, Any]
) -> None:
    daemon.answers["POST /v1/control/webhooks/replay"] = {"replayed": 5}
    ran = acme("webhook", "replay", "--failed", "--since", "2h", *words)
    assert ran.out == "5 events wait again\n"
    asked = daemon.asked[-1].body
    assert abs(asked.pop("since") - (time.time() - 7200)) < 60
    assert asked == body
    acme("webhook", "replay", "--failed", "--since", "2026-01-31")
    assert daemon.asked[-1].body["since"] == 1769817600.0


def test_a_test_says_what_came_back(acme: Program, daemon: Double) -> None:
    answers = [
        {"success": True, "statusCode": 204, "error": None},
        {"success": False, "statusCode": None, "error": "No answer within 5 s"},
    ]
    daemon.answers["POST /v1/tenants/acme/webhooks/7/test"] = answers
    assert acme("webhook", "test", "7", "--event", "MessageHeld").out == "taken: 204\n"
    assert daemon.asked[-1].body == {"event": "MessageHeld"}
    ran = acme("webhook", "test", "7")
    assert (ran.code, "No answer within 5 s" in ran.err) == (1, True)


def test_a_new_key_signs_and_nothing_else_is_printed(acme: Program) -> None:
    first = acme("webhook", "rotate-key")
    second = acme("webhook", "rotate-key", "--revoke")
    folder = load(acme.config).settings.state_dir / "keys" / "webhooks"
    assert len(list(folder.iterdir())) == 1
    assert "published for 7 days" in first.out
    assert "gone" in second.out
    assert first.out.count("\n") == second.out.count("\n") == 1


def test_what_the_relay_holds_is_shown_and_released(acme: Program, daemon: Double) -> None:
    daemon.answers["POST /v1/control/reload"] = {"restart": []}
    assert acme("credential", "add", "app").code == 0
    (one,) = load(acme.config).tenants["acme"].credentials
    base = "/v1/tenants/acme/credentials"
    why = "60 of 80 recipients within an hour were addresses that do not exist"
    daemon.answers[f"GET {base}"] = page([{"id": one.id, "holdReason": why}])
    assert why in acme("credential", "list").out
    assert why in acme("credential", "show", "app").out
    shown = json.loads(acme("credential", "list", "--json").out)["data"][0]
    assert (shown["hold"], shown["holdReason"]) == (True, why)
    daemon.answers[f"PATCH {base}/{one.id}"] = {"hold": False}
    assert acme("credential", "release", "app").code == 0
    assert daemon.asked[-1].body == {"hold": False}
    assert acme("credential", "release", "nobody").code == 1
