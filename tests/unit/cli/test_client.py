"""Talking to the daemon: which door, whose word, and what its answers mean."""

import json
from pathlib import Path

import pytest
from aiohttp import web
from unit.cli.support import Double, Program, serving

from arkrelay.cli.client import Daemon, Denied, NotRunning, doors
from arkrelay.cli.state import Failed


def test_the_socket_comes_first_and_only_loopback_gets_the_key(home: Path) -> None:
    config = home / "arkrelay.toml"
    config.write_text(
        'hostname = "h.example"\nstate_dir = "/s"\n'
        '[[listen]]\nservice = "http"\naddress = "192.0.2.1:80"\n'
        '[[listen]]\nservice = "submission"\naddress = "127.0.0.1:2525"\n'
        '[[listen]]\nservice = "http"\naddress = "[::]:8025"\ntls = "required"\n'
        '[[listen]]\nservice = "http"\naddress = "unix:/run/x.sock"\n'
        '[[listen]]\nservice = "http"\naddress = "localhost"\n'
    )
    found = doors(config)
    assert [door.shown for door in found] == ["/s/arkrelay.sock", "[::1]:8025", "unix:/run/x.sock"]
    assert found[1].base == "https://[::1]:8025"


def test_without_listeners_the_default_one_is_tried(home: Path) -> None:
    assert [door.shown for door in doors(home / "arkrelay.toml")] == [
        str(home / "state" / "arkrelay.sock"),
        "127.0.0.1:8025",
    ]


def test_an_answer_is_its_data_and_the_query_is_sent(home: Path, daemon: Double) -> None:
    daemon.answers = {"GET /v1/why": {"sentences": []}}
    data = Daemon(home / "arkrelay.toml").data("GET", "/v1/why", q="a+b@x.test", page=None, empty="", flag=True)
    assert data == {"sentences": []}
    assert daemon.asked[0].query == {"q": "a+b@x.test", "flag": "true"}
    assert daemon.asked[0].key == ""


def test_nobody_at_the_socket_is_not_running(home: Path) -> None:
    with pytest.raises(NotRunning, match="No such file") as caught:
        Daemon(home / "arkrelay.toml").data("GET", "/v1/status")
    assert "arkrelay serve" in caught.value.hint


def test_with_a_key_the_loopback_listener_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARKRELAY_KEY", "ark_live_x")
    config = home / "arkrelay.toml"
    double = Double({"GET /v1/status": {"ready": True}})
    with serving(double) as server:
        listener = f'[[listen]]\nservice = "http"\naddress = "0.0.0.0:{server.port}"\n'
        config.write_text(config.read_text() + listener)
        assert Daemon(config).data("GET", "/v1/status") == {"ready": True}
    assert double.asked[0].key == "Bearer ark_live_x"


@pytest.mark.parametrize(
    ("status", "body", "message", "hint"),
    [
        (404, {"error": {"code": "not_found", "message": "no email x"}}, "no email x", ""),
        (422, {"error": {"message": "bad", "field": "to[0]", "hint": "write a@b"}}, "to[0]: bad", "write a@b"),
        (403, {"error": {"message": "no"}}, "no", "ARKRELAY_KEY"),
        (500, {}, "the daemon answered 500", "log"),
    ],
)
def test_a_refusal_is_told_in_the_daemons_words(
    home: Path, daemon: Double, status: int, body: dict[str, object], message: str, hint: str
) -> None:
    daemon.answers = {"GET /v1/x": (status, body)}
    with pytest.raises(Denied) as caught:
        Daemon(home / "arkrelay.toml").data("GET", "/v1/x")
    assert caught.value.status == status
    assert caught.value.message == message
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["", "<html>", "[]", '"x"', "{"])
def test_rubbish_is_a_refusal_and_no_traceback(program: Program, daemon: Double, text: str) -> None:
    daemon.answers = {"GET /v1/status": web.Response(text=text, status=200)}
    ran = program("status")
    assert ran.code == 1
    assert "Traceback" not in ran.err


def test_a_broken_tenant_file_does_not_stop_status(program: Program, daemon: Double, home: Path) -> None:
    (home / "tenants" / "bad.toml").write_text("nonsense")
    daemon.answers = {"GET /v1/status": {"ready": True}}
    assert program("status", "--json").code == 0


def test_a_configuration_that_is_no_toml_is_told_by_its_line(home: Path) -> None:
    (home / "arkrelay.toml").write_text("hostname = \n")
    with pytest.raises(Failed, match="line 1"):
        doors(home / "arkrelay.toml")


def test_a_key_is_never_printed(program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARKRELAY_KEY", "ark_live_hush")
    daemon.answers = {"GET /v1/status": (401, {"error": {"message": "This API key is not known."}})}
    ran = program("status")
    assert ran.code == 1
    assert "hush" not in ran.out + ran.err
    assert json.dumps(daemon.asked[0].key) == '"Bearer ark_live_hush"'
