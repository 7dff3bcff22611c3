"""JSON of strangers: taken when there is no doubt, refused with a sentence otherwise, and never our surprise."""

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api import body
from arkrelay.api.body import parse_object, read
from arkrelay.api.refusal import ApiError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), children, max_size=4)
    ),
    max_leaves=15,
)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        pytest.param(b"[1, 2]", "object", id="top-level-array"),
        pytest.param(b'"text"', "object", id="top-level-string"),
        pytest.param(b"null", "object", id="top-level-null"),
        pytest.param(b'{"a": 1', "not JSON", id="cut-off"),
        pytest.param(b'{"a": "', "not JSON", id="open-string"),
        pytest.param(b'{"a": "\\', "not JSON", id="open-escape"),
        pytest.param(b"{'a': 1}", "not JSON", id="python"),
        pytest.param(b'{"a": 1} x', "not JSON", id="extra"),
        pytest.param(b"a=1&b=2", "not JSON", id="form"),
        pytest.param(b'{"a": "\x01"}', "not JSON", id="raw-control-character"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', "not JSON", id="byte-order-mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), "UTF-8", id="utf-16"),
        pytest.param(b'{"a": "\xff"}', "UTF-8", id="latin-1"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', "UTF-8", id="cesu-8"),
        pytest.param(b'{"a": "\\ud800"}', "surrogate", id="lone-surrogate"),
        pytest.param(b'{"\\uDFFF": 1}', "surrogate", id="lone-surrogate-in-a-key"),
        pytest.param(b'{"a": NaN}', "NaN", id="nan"),
        pytest.param(b'{"a": -Infinity}', "Infinity", id="infinity"),
        pytest.param(b'{"a": 1e999}', "too large", id="overflow"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "too long", id="5000-digits"),
        pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper", id="deep"),
        pytest.param(b'{"a":' * 100_000, "deeper", id="deep-and-cut-off"),
        pytest.param(b'{"a": [' + b"[]," * 200_000 + b"[]]}", "too many", id="a-million-lists"),
        pytest.param(b'{"b": 1, "a": 1, "a": 2}', "'a'", id="key-twice"),
        pytest.param(b'{"x": {"a": 1, "\\u0061": 2}}', "'a'", id="key-twice-by-escape"),
    ],
)
def test_doubtful_json_is_refused_with_a_sentence(raw: bytes, word: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(raw)
    assert caught.value.status == 400
    assert word in caught.value.message


def test_a_key_that_stands_twice_is_named() -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(b'{"from": "a@x.test", "from": "b@x.test"}')
    assert caught.value.field == "from"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"a": "' + b'\\"' * 2_000_000, id="escaped-quotes-without-end"),
        pytest.param(b'{"a": ' + b'"x",' * 500_000, id="many-strings"),
        pytest.param(b"{" + b",".join(b'"k%d":1' % i for i in range(30_000)) + b',"k29999":1}', id="last-key-twice"),
        pytest.param(b'{"a": "' + b"[{" * 5_000_000 + b"", id="brackets-in-an-open-string"),
    ],
)
def test_a_refusal_costs_little_time(raw: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ApiError):
        parse_object(raw)
    assert time.process_time() - began < 2.0  # quadratic work would be minutes


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=5))
def test_what_a_client_writes_is_what_is_read(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False, indent=2).encode()) == value


@given(st.binary() | st.text(alphabet='{}[]":,\\u0dD8 1e-.tnf\n').map(str.encode))
def test_rubbish_is_an_object_or_an_api_error(raw: bytes) -> None:
    try:
        assert isinstance(parse_object(raw), dict)
    except ApiError:
        pass


def test_brackets_in_strings_are_no_depth_and_no_values() -> None:
    html = "[" * 300_000 + "," * 300_000 + '\\"'
    assert parse_object(json.dumps({"html": html}).encode()) == {"html": html}


@pytest.mark.parametrize("raw", [b"", b" \r\n"])
def test_an_empty_body_is_an_empty_object(raw: bytes) -> None:
    assert parse_object(raw) == {}


def request_with(*, headers: dict[str, str] | None = None) -> tuple[web.Request, StreamReader]:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()  # connected
    stream = StreamReader(protocol, 2**16, loop=loop)
    return make_mocked_request("POST", "/", headers=headers or {}, payload=stream), stream


async def test_a_declared_length_over_the_limit_is_refused_before_it_comes() -> None:
    request, _ = request_with(headers={"Content-Length": "11"})
    with pytest.raises(ApiError) as caught:
        await read(request, 10)
    assert (caught.value.status, caught.value.close) == (413, True)


async def test_a_body_over_the_limit_is_refused_while_it_comes() -> None:
    request, stream = request_with(headers={"Transfer-Encoding": "chunked"})
    stream.feed_data(b"x" * 11)  # and no end
    with pytest.raises(ApiError) as caught:
        await read(request, 10)
    assert caught.value.status == 413


async def test_a_body_within_the_limit_is_read_whole() -> None:
    request, stream = request_with()
    stream.feed_data(b"x" * 6)
    stream.feed_data(b"y" * 4)
    stream.feed_eof()
    assert await read(request, 10) == b"xxxxxxyyyy"


async def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "READ_S", 0.01)
    request, stream = request_with()
    stream.feed_data(b"x")
    with pytest.raises(ApiError) as caught:
        await read(request, 10)
    assert (caught.value.status, caught.value.code, caught.value.close) == (408, "request_timeout", True)


async def test_broken_chunks_are_the_clients_fault() -> None:
    request, stream = request_with()
    stream.set_exception(web.RequestPayloadError("bad chunk"))
    with pytest.raises(ApiError) as caught:
        await read(request, 10)
    assert caught.value.status == 400
