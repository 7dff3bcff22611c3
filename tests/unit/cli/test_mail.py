"""queue, why, message, events, suppression, against a daemon's double on a real unix socket."""

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.cli.support import Double, Program, page

ROW = {
    "id": "tok1",
    "tenantId": "acme",
    "to": "bob@example.net",
    "from": "ann@example.com",
    "subject": "hi",
    "status": "softfail",
    "attempts": 2,
    "dueAt": 4_000_000_000.0,
    "dueAtIso": "2096-10-02T07:06:40Z",
    "reason": "451 4.7.1 greylisted\x1b[2J",
    "destination": "example.net",
    "acceptedAt": 1.0,
}
CONTENT = b"From: ann@example.com\r\nSubject: hi\r\n\r\nbody \xff\r\n"
DETAIL = {
    "id": "tok1",
    "tenantId": "acme",
    "from": "ann@example.com",
    "to": "bob@example.net",
    "subject": "hi",
    "status": "softfail",
    "timestamp": 1.0,
    "messageId": "<m@x>",
    "plainBody": "line one\nline \x1b two",
    "attachments": [{"filename": "a.pdf", "contentType": "application/pdf", "size": 1200, "hash": "", "data": ""}],
    "rawMessage": base64.b64encode(CONTENT).decode(),
    "deliveries": [
        {"id": "1", "status": "softfail", "timestamp": 2.0, "code": 451, "output": "4.7.1 later", "sentWithSsl": True}
    ],
}


def test_queue_list_shows_what_waits(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/queue": page([ROW], pages=3)}
    ran = program("queue", "list", "--tenant", "acme", "--domain", "example.net", "--status", "softfail")
    assert ran.code == 0
    assert daemon.asked[0].query == {
        "tenantId": "acme",
        "domain": "example.net",
        "status": "softfail",
        "page": "1",
        "perPage": "100",
    }
    assert "tok1" in ran.out
    assert "451 4.7.1 greylisted" in ran.out
    assert "\x1b" not in ran.out
    assert "page 1 of 3" in ran.err


def test_queue_list_as_json_is_the_page(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/queue": page([ROW])}
    shown = json.loads(program("queue", "list", "--json").out)
    assert shown == {"data": [ROW], "page": 1, "perPage": 100, "total": 1, "totalPages": 1}


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "delete"])
@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("tok1", "tok2"), {"ids": ["tok1", "tok2"]}),
        (("--tenant", "acme", "--status", "held"), {"tenantId": "acme", "status": "held", "all": True}),
        (("--all",), {"all": True}),
    ],
)
def test_a_verb_goes_to_exactly_these(
    program: Program, daemon: Double, verb: str, words: tuple[str, ...], body: dict[str, Any]
) -> None:
    daemon.answers = {f"POST /v1/queue/{verb}": {"count": 2}}
    ran = program("queue", verb, "--yes", *words)
    assert ran.code == 0
    assert ran.out.startswith("2 recipients ")
    assert daemon.asked[0].body == body


@pytest.mark.parametrize("words", [(), ("tok1", "--all"), ("tok1", "--domain", "x.test")])
def test_a_verb_never_takes_everything_by_accident(program: Program, daemon: Double, words: tuple[str, ...]) -> None:
    assert program("queue", "hold", *words).code == 2
    assert not daemon.asked


def test_delete_asks_first(program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answers = {"POST /v1/queue/delete": {"count": 1}}
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert program("queue", "delete", "tok1").code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert program("queue", "delete", "tok1").code == 1
    assert not daemon.asked
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert program("queue", "delete", "tok1").out == "1 recipient deleted\n"


def test_flush_makes_all_due(program: Program, daemon: Double) -> None:
    daemon.answers = {"POST /v1/queue/flush": {"count": 5}}
    assert program("queue", "flush", "--domain", "x.test").out == "5 recipients due now\n"
    assert daemon.asked[0].body == {"domain": "x.test", "all": True}


def test_queue_show_has_state_reason_and_attempts(program: Program, daemon: Double) -> None:
    sentence = {"id": "tok1", "subject": "bob@example.net", "sentence": "waits until noon"}
    daemon.answers = {"GET /v1/emails/tok1": DETAIL, "GET /v1/why": {"sentences": [sentence]}}
    ran = program("queue", "show", "tok1")
    assert ran.code == 0
    assert "waits until noon" in ran.out
    assert "4.7.1 later" in ran.out
    assert json.loads(program("queue", "show", "tok1", "--json").out)["why"] == [sentence]


def test_why_is_one_plain_sentence(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/why": {"sentences": [{"id": "t", "subject": "b@x", "sentence": "It was sent."}]}}
    ran = program("why", "b@x.test")
    assert (ran.code, ran.out) == (0, "It was sent.\n")


def test_why_shows_several_in_a_table(program: Program, daemon: Double) -> None:
    rows = [{"id": f"t{n}", "subject": "b@x", "sentence": f"Sentence {n}."} for n in range(2)]
    daemon.answers = {"GET /v1/why": {"sentences": rows}}
    assert len(program("why", "b@x.test").out.splitlines()) == 3


def test_why_of_the_unknown_fails_and_says_where_to_look(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/why": {"sentences": []}}
    ran = program("why", "nobody@x.test")
    assert ran.code == 1
    assert "nothing is known about nobody@x.test" in ran.err


def test_message_list_passes_the_filters(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/emails": page([{**DETAIL, "subject": "hé"}])}
    ran = program("message", "list", "--from", "a@x.test", "--to", "b@x.test", "--status", "sent", "--tag", "t")
    assert "hé" in ran.out
    assert daemon.asked[0].query == {
        "from": "a@x.test",
        "to": "b@x.test",
        "status": "sent",
        "tag": "t",
        "page": "1",
        "perPage": "30",
    }


def test_message_show_for_a_person(program: Program, daemon: Double) -> None:
    report = {"at": "2026-01-01", "kind": "unknown", "sender": "Bob", "subject": "Hm\x1b[2J", "said": "What is this?"}
    daemon.answers = {"GET /v1/emails/tok1": DETAIL, "GET /v1/emails/tok1/reports": {"reports": [report]}}
    ran = program("message", "show", "tok1")
    for text in ("<m@x>", "a.pdf (1.2 kB)", "line one", "4.7.1 later", "unknown", "What is this?"):
        assert text in ran.out
    assert "\x1b" not in ran.out
    assert json.loads(program("message", "show", "--json", "tok1").out) == DETAIL


@pytest.mark.parametrize(
    ("flag", "wanted"), [("--raw", CONTENT), ("--headers", b"From: ann@example.com\r\nSubject: hi\r\n")]
)
def test_message_show_raw_is_byte_for_byte(
    program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch, flag: str, wanted: bytes
) -> None:
    daemon.answers = {"GET /v1/emails/tok1": DETAIL}
    buffer = io.BytesIO()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=buffer, flush=lambda: None, isatty=lambda: False))
    assert program("message", "show", flag, "tok1").code == 0
    assert buffer.getvalue() == wanted


def test_dropped_content_is_told(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/emails/tok1": {**DETAIL, "rawMessage": None}}
    ran = program("message", "show", "--raw", "tok1")
    assert ran.code == 1
    assert "no longer kept" in ran.err


def test_an_id_cannot_leave_its_path(program: Program, daemon: Double) -> None:
    assert program("message", "show", "../tenants?x=y#z").code == 1
    assert daemon.asked[0].path == "/v1/emails/..%2Ftenants%3Fx%3Dy%23z"


def event(seq: int, tenant: str = "acme", kind: str = "MessageSent") -> dict[str, Any]:
    return {"seq": seq, "event": kind, "at": 1.0, "tenantId": tenant, "emailId": "tok", "data": {"to": "b@x"}}


def log_of(events: list[dict[str, Any]]) -> Any:
    """Answer GET /v1/events as the daemon does, from these events; a wait ends with 503, as when it stops."""

    def answer(query: dict[str, str]) -> Any:
        after = int(query["after"])
        found = [one for one in events if one["seq"] > after][: int(query["limit"])]
        if query.get("wait") and not found:
            return (503, {"error": {"message": "stopping"}})
        return {"events": found, "next": found[-1]["seq"] if found else after}

    return answer


def seqs(text: str) -> list[int]:
    return [json.loads(line)["seq"] for line in text.splitlines()]


def test_events_are_read_to_the_end_page_by_page(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/events": log_of([event(n) for n in range(1, 1203)])}
    assert seqs(program("events", "--json").out) == list(range(1, 1203))
    assert [asked.query["after"] for asked in daemon.asked] == ["0", "500", "1000", "1202"]
    assert seqs(program("events", "--json", "--after", "1200").out) == [1201, 1202]


@pytest.mark.parametrize("numbers", [[], [1], list(range(1, 40)), [7, 900, 90_000, 4_000_000, 4_000_001]])
@pytest.mark.parametrize("last", [0, 1, 3, 100])
def test_the_last_events_are_found_without_reading_all(
    program: Program, daemon: Double, numbers: list[int], last: int
) -> None:
    daemon.answers = {"GET /v1/events": log_of([event(n) for n in numbers])}
    assert seqs(program("events", "--json", "--last", str(last)).out) == (numbers[-last:] if last else [])
    assert len(daemon.asked) < 80


def test_events_can_be_filtered(program: Program, daemon: Double) -> None:
    events = [event(1), event(2, "beta"), event(3, kind="MessageHeld"), event(4)]
    daemon.answers = {"GET /v1/events": log_of(events)}
    ran = program("events", "--tenant", "acme", "--event", "MessageSent", "--last", "1")
    assert ran.out.split()[0] == "4"
    assert len(ran.out.splitlines()) == 1
    assert program("events", "--after", "9").err == "no events\n"


def test_following_goes_on_after_the_last_until_the_daemon_ends(program: Program, daemon: Double) -> None:
    events = [event(n) for n in range(1, 31)]
    answer = log_of(events)

    def then_one_more(query: dict[str, str]) -> Any:
        if query.get("wait") and len(events) == 30:
            events.append(event(31))
        return answer(query)

    daemon.answers = {"GET /v1/events": then_one_more}
    ran = program("events", "--follow", "--json")
    assert ran.code == 1
    assert seqs(ran.out) == list(range(21, 32))
    assert daemon.asked[-1].query["after"] == "31"


PATH = "/v1/tenants/acme/suppressions"


@pytest.mark.usefixtures("tenant_file")
class TestSuppression:
    def test_add_check_remove(self, program: Program, daemon: Double) -> None:
        daemon.answers = {
            f"POST {PATH}": {"id": "1", "address": "b@x.test"},
            f"GET {PATH}/b%40x.test": [
                {"address": "b@x.test", "suppressed": True, "reason": "asked", "createdAt": "2026-01-01"},
                {"address": "b@x.test", "suppressed": False},
            ],
            f"DELETE {PATH}/b%40x.test": {"message": "gone"},
        }
        assert program("suppression", "add", "b@X.test", "--reason", "asked").code == 0
        assert daemon.asked[0].body == {"address": "b@x.test", "reason": "asked"}
        assert "is suppressed since 2026-01-01: asked" in program("suppression", "check", "b@x.test").out
        assert program("suppression", "check", "b@x.test").out == "b@x.test is not suppressed\n"
        assert program("suppression", "remove", "b@x.test").code == 0

    def test_list_shows_a_page(self, program: Program, daemon: Double) -> None:
        row = {"id": "1", "address": "b@x.test", "reason": "asked", "createdAt": "2026-01-01"}
        daemon.answers = {f"GET {PATH}": page([row], pages=2)}
        ran = program("suppression", "list", "--page", "1")
        assert "b@x.test  2026-01-01  asked" in ran.out
        assert "page 1 of 2" in ran.err
        assert json.loads(program("suppression", "list", "--json").out)["data"] == [row]

    def test_a_bad_address_never_leaves(self, program: Program, daemon: Double) -> None:
        assert program("suppression", "add", "b@x@y").code == 1
        assert not daemon.asked

    def test_check_tells_every_stream(self, program: Program, daemon: Double) -> None:
        entries = [{"createdAt": "2026-01-01", "reason": "x", "stream": one} for one in ("news", "promo")]
        daemon.answers = {
            f"GET {PATH}/b%40x.test": {"suppressed": True, "stream": "news", "entries": entries},
            f"DELETE {PATH}/b%40x.test": {"message": "gone"},
        }
        assert program("suppression", "check", "b@x.test").out.splitlines() == [
            "b@x.test is suppressed for mail with the tag news since 2026-01-01: x",
            "b@x.test is suppressed for mail with the tag promo since 2026-01-01: x",
        ]
        ran = program("suppression", "remove", "--stream", "news", "b@x.test")
        assert (ran.code, daemon.asked[-1].query) == (0, {"stream": "news"})

    def test_export_reads_every_page(self, program: Program, daemon: Double) -> None:
        row = {
            "id": "1",
            "address": "b@x.test",
            "reason": 'said "no", twice',
            "createdAt": "2026-01-01",
            "cause": "hand",
        }
        full = [{**row, "address": f"a{number:02}@x.test"} for number in range(99)] + [row]
        daemon.answers = {f"GET {PATH}": [page(full), page([{**row, "address": "c@x.test"}])]}
        lines = program("suppression", "export").out.splitlines()
        assert (lines[0], len(lines)) == ("address,reason,createdAt,stream,cause,classification", 102)
        assert lines[-2:] == [
            'b@x.test,"said ""no"", twice",2026-01-01,,hand,',
            'c@x.test,"said ""no"", twice",2026-01-01,,hand,',
        ]
        assert daemon.asked[1].query == {"sort": "address", "perPage": "100", "afterAddress": "b@x.test"}
        daemon.answers = {f"GET {PATH}": page([row])}
        assert json.loads(program("suppression", "export", "--format", "json").out)[0]["cause"] == "hand"

    @pytest.mark.parametrize(
        "text",
        [
            "address,reason\nb@x.test,why\nc@x.test,\n",
            "\ufeffreason;x,Email\nwhy,b@x.test\n\n,c@x.test\n",
            "b@x.test,why\r\nc@x.test\r\n",
        ],
    )
    def test_import_reads_what_others_export(self, program: Program, daemon: Double, home: Path, text: str) -> None:
        (home / "list.csv").write_text(text.replace("reason;x", "reason"), encoding="utf-8", newline="")
        daemon.answers = {f"POST {PATH}/import": {"added": 1, "present": 1}}
        ran = program("suppression", "import", str(home / "list.csv"))
        assert (ran.code, ran.out) == (0, "added: 1, on the list before: 1, lines skipped: 0 (csv)\n")
        assert daemon.asked[0].body["entries"] == [
            {"address": "b@x.test", "reason": "why"},
            {"address": "c@x.test", "reason": "imported"},
        ]

    def test_one_bad_line_imports_nothing(self, program: Program, daemon: Double, home: Path) -> None:
        (home / "list.csv").write_text("address\nb@x.test\nnonsense\n")
        ran = program("suppression", "import", str(home / "list.csv"))
        assert ran.code == 1
        assert "line 3" in ran.err
        assert "nothing was imported" in ran.err
        assert not daemon.asked

    def test_a_refusal_in_the_middle_says_how_far_it_came(self, program: Program, daemon: Double, home: Path) -> None:
        (home / "list.csv").write_text("".join(f"b{n}@x.test\n" for n in range(600)))
        full = (507, {"error": {"message": "the disk is full"}})
        daemon.answers = {f"POST {PATH}/import": [{"added": 500, "present": 0}, full]}
        ran = program("suppression", "import", str(home / "list.csv"))
        assert ran.code == 1
        assert "line 501 and the following: the disk is full (500 imported before)" in ran.err

    def test_bad_lines_can_be_skipped_and_are_named(self, program: Program, daemon: Double, home: Path) -> None:
        (home / "list.csv").write_text("address\nb@x.test\nnonsense\nc@@x.test\nd@x.test\n")
        daemon.answers = {f"POST {PATH}/import": {"added": 2, "present": 0}}
        dry = program("suppression", "import", "--dry-run", str(home / "list.csv"))
        assert dry.out == "to import: 2, lines skipped: 2 (csv)\n"
        assert not daemon.asked
        ran = program("suppression", "import", "--skip-bad", "--reason", "old list", str(home / "list.csv"))
        assert ran.code == 0
        assert "line 3" in ran.err
        assert "line 4" in ran.err
        assert [one["reason"] for one in daemon.asked[0].body["entries"]] == ["old list"] * 2

    def test_undo_names_what_it_takes_off(self, program: Program, daemon: Double) -> None:
        daemon.answers = {f"POST {PATH}/undo": {"removed": 3, "addresses": ["b@x.test"], "dryRun": True}}
        ran = program("suppression", "undo", "--class", "invalid_recipient", "--since", "2026-01-31", "--dry-run")
        assert (ran.code, ran.out) == (0, "b@x.test\n")
        assert "and 2 more\nwould be taken off the list: 3" in ran.err
        assert daemon.asked[0].body == {
            "classification": "invalid_recipient", "since": "2026-01-31", "dryRun": True,
        }  # fmt: skip
        assert program("suppression", "undo").code == 2
        daemon.answers = {f"POST {PATH}/undo": {"removed": 0, "addresses": [], "dryRun": False}}
        assert program("suppression", "undo", "--cause", "import").code == 0

    def test_an_unknown_tenant_is_told_with_those_that_are(self, program: Program) -> None:
        ran = program("suppression", "list", "--tenant", "nobody")
        assert ran.code == 1
        assert "there is: acme" in ran.err


def test_message_show_prints_what_was_said_with_its_times(program: Program, daemon: Double) -> None:
    said = [
        {"ms": 0, "who": "note", "line": "connecting to mx.example.net, 192.0.2.1 port 25"},
        {"ms": 12, "who": "peer", "line": "220 mx \x1b[2J"},
        {"ms": 1512, "who": "we", "line": "EHLO relay.example.com"},
    ]
    tried = {**DETAIL["deliveries"][0], "remoteHost": "mx.example.net", "transcript": said}  # type: ignore[index]  # a row of our own
    daemon.answers = {"GET /v1/emails/tok1": {**DETAIL, "deliveries": [tried, {**tried, "transcript": None}]}}
    ran = program("message", "show", "tok1", "--transcript")
    assert ran.code == 0
    assert daemon.asked[0].query == {"expand": "deliveries"}
    head, columns, *lines, empty, _, not_kept = ran.out.splitlines()
    assert head.endswith("softfail  451  mx.example.net")
    assert columns.split() == ["MS", "TOOK"]
    assert lines == [
        "        0        0    connecting to mx.example.net, 192.0.2.1 port 25",
        "       12       12  < 220 mx \ufffd[2J",
        "     1512     1500  > EHLO relay.example.com",
    ]
    assert empty == ""
    assert "not kept" in not_kept


@pytest.mark.parametrize("flags", [("--raw", "--transcript"), ("--json", "--transcript")])
def test_message_show_does_one_thing_at_a_time(program: Program, flags: tuple[str, ...]) -> None:
    assert program("message", "show", "tok1", *flags).code == 2


def test_explain_asks_the_daemon_and_answers_alone_without_one(program: Program, daemon: Double) -> None:
    daemon.answers = {"GET /v1/explain": (403, {"success": False, "error": {"code": "x", "message": "not you"}})}
    denied = program("explain", "--provider", "google", "550 5.7.1", "spam")
    assert denied.code == 1
    assert "not you" in denied.err
    assert daemon.asked[0].query == {"reply": "550 5.7.1 spam", "provider": "google"}
    alone = program("explain", "-c", "/nonexistent/arkrelay.toml", "550 5.1.1 no such user")
    assert alone.code == 0
    assert "counts need the daemon" in alone.out
    assert "There is no such address: refused for good, by the fault of the recipient's address." in alone.out
    assert program("explain", "250 ok").code == 1
    assert program("explain", "--host", "a", "--provider", "b", "550").code == 2
