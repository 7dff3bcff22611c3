from typing import Any

import pytest

from arkrelay.policy.metadata import BYTES, faults


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"text": "x" * 500, "int": 1, "float": -1.5, "yes": True, "null": None, "": ""},
        {"k" * 40: "ü" * 500},
        {f"k{number}": number for number in range(50)},
        {f"k{number:02}": "x" * 490 for number in range(16)},  # 16 x 498 bytes and two braces
    ],
)
def test_what_the_contract_allows_has_no_fault(metadata: dict[str, Any]) -> None:
    assert list(faults(metadata)) == []


@pytest.mark.parametrize(
    ("metadata", "keys"),
    [
        ({"a": {}, "b": [], "c": (), "d": b"x"}, ["a", "b", "c", "d"]),
        ({"a": float("inf"), "b": float("nan")}, ["a", "b"]),
        ({"k" * 41: 1}, ["k" * 41]),
        ({"k" * 9000: 1}, ["k" * 41, ""]),
        ({"a\u001b\u202e": []}, ["a??"]),
        ({"a": "x" * 501}, ["a"]),
        ({f"k{number}": 1 for number in range(51)}, [""]),
        ({f"k{number}": "x" * 490 for number in range(17)}, [""]),
    ],
)
def test_each_fault_is_named_by_its_key(metadata: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, reason in faults(metadata) if reason] == keys


def test_the_size_is_that_of_compact_json_in_utf_8() -> None:
    filler = BYTES - len('{"a":""}') - 16 * len(',"b00":""') - 16 * 490
    metadata = {"a": "x" * filler} | {f"b{number:02}": "y" * 490 for number in range(16)}
    assert list(faults(metadata)) == []
    assert [key for key, _ in faults(metadata | {"a": "x" * (filler + 1)})] == [""]
    assert [key for key, _ in faults(metadata | {"a": "ü" + "x" * (filler - 1)})] == [""]
