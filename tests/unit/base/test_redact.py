"""Nothing secret is left of a body, however it is written, and what is left is still what was sent."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.base.redact import KEPT_BYTES, MARK, NOT_KEPT, PARSED_BYTES, body_text, clean, parameters, short

KEY = "ark_live_Abc-123_xyz"
OWN = "a-key-that-somebody-chose"
CONTENT = base64.b64encode(b"the content of a file, which is nobody's business but the recipient's").decode()
SIZED = "[69 bytes]"


def kept(value: object) -> Any:
    return json.loads(body_text(json.dumps(value).encode(), OWN))


@pytest.mark.parametrize(
    ("value", "left"),
    [
        pytest.param({"from": "a@b.test", "n": [1, 2.5, None, True]}, None, id="harmless"),
        pytest.param({"metadata": {"content": "x", "data": "y"}}, None, id="content-outside-attachments"),
        pytest.param({"success": True, "data": {"id": "x"}}, None, id="data-of-an-envelope"),
        pytest.param({"text": "grüße \u2028 \U0001f600"}, None, id="not-ascii"),
        pytest.param({"key": None}, None, id="a-key-that-is-not-shown"),
        pytest.param({"key": "x"}, {"key": "[redacted]"}, id="key"),
        pytest.param({"data": {"smtpUsername": "acme/x"}}, {"data": {"smtpUsername": "[redacted]"}}, id="username"),
        pytest.param([{"Password": {"x": 1}}], [{"Password": "[redacted]"}], id="any-case-any-type"),
        pytest.param({"rawMessage": CONTENT, "to": ["x"]}, {"rawMessage": SIZED, "to": ["x"]}, id="raw-message"),
        pytest.param({"rawMessage": [CONTENT]}, {"rawMessage": "[redacted]"}, id="raw-message-of-another-type"),
        pytest.param(
            {"attachments": [{"filename": "a", "contentType": "b/c", "content": CONTENT, "size": 3}]},
            {"attachments": [{"filename": "a", "contentType": "b/c", "content": SIZED, "size": 3}]},
            id="attachment",
        ),
        pytest.param(
            {"emails": [{"Attachments": {"Content": [CONTENT], "Other": {"x": CONTENT}, "name": "n"}}]},
            {"emails": [{"Attachments": {"Content": [SIZED], "Other": {"x": SIZED}, "name": "n"}}]},
            id="attachments-of-any-shape",
        ),
        pytest.param({"attachments": CONTENT}, {"attachments": SIZED}, id="attachments-as-a-string"),
        pytest.param({"text": f"it is {KEY}!"}, {"text": "it is [redacted]!"}, id="our-key-in-text"),
        pytest.param({KEY: f"{OWN}."}, {"[redacted]": "[redacted]."}, id="own-key-and-a-key-as-a-name"),
        pytest.param({"x": "sealed:v1:AbC+/="}, {"x": "[redacted]"}, id="sealed"),
    ],
)
def test_secrets_go_and_the_rest_stays(value: object, left: object) -> None:
    assert kept(value) == (value if left is None else left)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"\\u006bey": "SECRET-VALUE"}', id="escaped-name"),
        pytest.param(b'{"key": "SECRET-VALUE", "key": 1}', id="name-twice"),
        pytest.param(b'{"x": "\\u0061rk_live_SECRET-VALUE"}', id="escaped-key"),
        pytest.param(b"{'key': 'SECRET-VALUE'}", id="single-quotes"),
        pytest.param(b'{"rawMessage" "SECRET-VALUE"', id="broken"),
        pytest.param(b"from=a&rawMessage=SECRET-VALUE", id="form"),
        pytest.param(b'{"attachments": [{"content": "SECRET-VALUE"', id="cut-off"),
        pytest.param(b'\xff{"password": "SECRET-VALUE"}', id="not-utf-8"),
        pytest.param(b"[" * 100_000 + b'"SECRET-VALUE', id="deep"),
        pytest.param(b"x" * 120 + b"SECRET-VALUE", id="a-long-run-of-base64"),
        pytest.param(b'{"x": 1, "\\u006b\\u0065y": "SECRET-VALUE"', id="escaped-and-broken"),
        pytest.param(OWN.encode() + b" SECRET-VALUE token", id="own-key"),
        pytest.param(b"Authorization: Bearer SECRET-VALUE", id="header"),
    ],
)
def test_no_way_of_writing_hides_a_secret(raw: bytes) -> None:
    found = body_text(raw, OWN)
    assert "SECRET-VALUE" not in found or raw.startswith(OWN.encode())
    assert OWN not in found
    assert len(found) <= KEPT_BYTES + len(MARK)


@pytest.mark.parametrize("raw", [b"hello", b"a=1&b=2", b"{'to': 'x'}", b'{"to": ["x",]}', b"\x00\x01", b'"text"'])
def test_what_is_not_json_is_kept_as_it_came(raw: bytes) -> None:
    assert body_text(raw) == raw.decode()


def test_what_is_not_json_ends_where_it_gets_interesting() -> None:
    assert body_text(b"from=a&to=b&content=x") == f"from=a&to=b&{NOT_KEPT}"


def test_a_long_body_is_cut_and_says_so() -> None:
    found = body_text(json.dumps({"html": "ü" * 50_000, "to": "x"}).encode(), looked_at=True)
    assert found.endswith(MARK)
    assert KEPT_BYTES - 4 <= len(found.removesuffix(MARK).encode()) <= KEPT_BYTES
    assert found.startswith('{"html":"üü')
    found = body_text(b"no JSON " * 10_000)
    assert found.endswith(MARK)
    assert len(found) == KEPT_BYTES + len(MARK)


@pytest.mark.parametrize("at", range(KEPT_BYTES - 40, KEPT_BYTES + 10, 3))
def test_a_key_across_the_cut_is_not_kept_in_part(at: int) -> None:
    for raw in (
        json.dumps({"x": "-" * (at - 6) + KEY + "- " * 9000}).encode(),
        b" !" * (at // 2) + KEY.encode() * 999,
    ):
        assert "live" not in body_text(raw)


def test_a_large_attachment_leaves_an_object() -> None:
    raw = json.dumps({"attachments": [{"content": "A" * 5_000_000, "filename": "a.bin"}], "to": "x"}).encode()
    assert json.loads(body_text(raw, looked_at=True))["attachments"] == [
        {"content": "[3750000 bytes]", "filename": "a.bin"}
    ]


def test_a_large_body_that_nobody_has_looked_at_is_not_parsed() -> None:
    raw = b'{"a": [' + b"[]," * PARSED_BYTES + b"[]]}"
    assert body_text(raw).startswith('{"a": [[],[],')
    assert body_text(raw).endswith(MARK)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
places = st.sampled_from(["key", "KEY", "smtpUsername", "rawMessage", "secret", "password", "attachments", "api_key"])


@given(json_values, places, st.lists(st.sampled_from(["a", 0, "data"]), max_size=4))
def test_a_secret_is_found_wherever_it_stands(beside: Any, place: str, path: list[str | int]) -> None:
    value: Any = {place: "S3CR3T-V4LU3", "beside": beside}
    for step in path:
        value = [beside, value] if step == 0 else {str(step): value, "z": beside}
    raw = json.dumps(value).encode()
    found = body_text(raw)
    assert "S3CR3T" not in found
    json.loads(found)
    assert "S3CR3T" not in body_text(raw[:-1])  # nor where it is broken


@given(json_values)
def test_what_is_harmless_is_what_was_sent(value: Any) -> None:
    assert json.loads(body_text(json.dumps({"x": value}).encode())) == {"x": value} or "ark_" in repr(value)


@given(st.binary(max_size=300), st.booleans())
def test_no_body_raises(raw: bytes, looked_at: bool) -> None:
    body_text(raw, OWN, looked_at=looked_at)


def test_headers_and_parameters_are_cut_and_cleaned() -> None:
    assert short("x" * 2000) == "x" * 500
    assert short(f"agent {KEY}/{OWN}", OWN) == "agent [redacted]/[redacted]"
    assert short("x" * 495 + KEY) == "x" * 495 + "[reda"
    assert clean("mark_of ark_livestock", "") == "mark_of ark_livestock"
    assert clean("ark_other and ark_live_1", "ark_other") == "[redacted] and [redacted]"
    given_ = {"to": f"a{KEY}", "key": "secret", "Api_Key": "x", **{f"p{n}": "v" for n in range(100)}}
    found = parameters(given_, OWN)
    assert len(found) == 50
    assert (found["to"], found["key"], found["Api_Key"], found["p9"]) == (
        "a[redacted]",
        "[redacted]",
        "[redacted]",
        "v",
    )
