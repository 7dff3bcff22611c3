"""What does not fit is refused with its field and a sentence that a person can act on."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.model import NO_CONTROL, Body, Line, LoneLine, Meta, Paged, Query, convert, field
from arkrelay.api.refusal import ApiError

Key = Annotated[str, Meta(pattern=r"^[a-z]+\Z", max_length=3, description="Lower-case letters.")]


class Inner(Body):
    x: int


class Example(Body):
    line: Line = "x"
    text: Annotated[str, Meta(pattern=NO_CONTROL, max_length=1)] = "x"
    code: Annotated[str, Meta(pattern=r"^[A-Z]\Z", min_length=2)] = "x"
    count: Annotated[int, Meta(ge=1, le=5)] = 1
    share: Annotated[float, Meta(gt=0, lt=1)] | None = None
    flag: bool = True
    kind: Literal["one", "two"] | None = None
    several: Annotated[list[Line], Meta(min_length=2, max_length=2)] = field(default_factory=list)
    inner: list[Inner] = field(default_factory=list)
    either: LoneLine | list[Line] = "x"
    data: Annotated[dict[Key, Annotated[str, Meta(max_length=3)]], Meta(max_length=1)] = field(default_factory=dict)
    deep: dict[str, Inner] = field(default_factory=dict)


class Values(Query):
    page: Annotated[int, Meta(ge=1)] = 1
    kind: Literal[1, 2] = 1
    flag: bool = False
    least: int | None = None
    success: bool | None = None
    state: Literal["on", "off"] | None = None
    name: str | None = None


def refused(value: dict[str, Any]) -> ApiError | None:
    try:
        convert(value, Example)
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("value", "said", "where"),
    [
        ({"line": 7}, "line must be a string, not a whole number.", "line"),
        ({"line": None}, "line must be a string, not null.", "line"),
        ({"line": ""}, "line must not be empty.", "line"),
        ({"line": "x" * 1001}, "line must have at most 1000 characters.", "line"),
        ({"line": "one\ntwo"}, "line must be one line without control characters.", "line"),
        ({"line": "one\n"}, "line must be one line without control characters.", "line"),
        ({"line": "one\u2028two"}, "line must be one line without control characters.", "line"),
        ({"text": "\x7f"}, "text must be text without control characters.", "text"),
        ({"text": "xx"}, "text must have at most 1 character.", "text"),
        ({"code": "x"}, "code must have at least 2 characters.", "code"),
        ({"code": "xx"}, r"code must be of the form ^[A-Z]\Z.", "code"),
        ({"count": 0}, "count must be at least 1.", "count"),
        ({"count": 9}, "count must be at most 5.", "count"),
        ({"count": "1"}, "count must be a whole number, not a string.", "count"),
        ({"count": 1.5}, "count must be a whole number, not a fraction.", "count"),
        ({"count": True}, "count must be a whole number, not a boolean.", "count"),
        ({"share": 1}, "share must be less than 1.0.", "share"),
        ({"share": 0}, "share must be more than 0.0.", "share"),
        ({"share": []}, "share must be a number, not a list.", "share"),
        ({"flag": "true"}, "flag must be true or false, not a string.", "flag"),
        ({"kind": "three"}, "kind must be one of: one, two.", "kind"),
        ({"kind": 3}, "kind must be a string, not a whole number.", "kind"),
        ({"several": ["x"]}, "several must have at least 2 items.", "several"),
        ({"several": ["x"] * 3}, "several must have at most 2 items.", "several"),
        ({"several": ["x", "\x00"]}, "several[1] must be one line without control characters.", "several[1]"),
        ({"inner": [{"x": 1}, {}]}, "inner[1].x is required.", "inner[1].x"),
        ({"inner": [{"x": "1"}]}, "inner[0].x must be a whole number, not a string.", "inner[0].x"),
        ({"inner": {}}, "inner must be a list, not an object.", "inner"),
        ({"either": 7}, "either must be a string or a list, not a whole number.", "either"),
        ({"data": {"a": "x", "b": "y"}}, "data must have at most 1 key.", "data"),
        ({"data": {"A": "x"}}, "A key of data must be lower-case letters.", "data"),
        ({"data": {"abcd": "x"}}, "A key of data must have at most 3 characters.", "data"),
        ({"data": {"a": "xxxx"}}, "A value of data must have at most 3 characters.", "data"),
        ({"deep": {"a": {}}}, "deep.*.x is required.", "deep.*.x"),
        ({"deep": {"a": {"x": "1"}}}, "deep.*.x must be a whole number, not a string.", "deep.*.x"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_name(value: dict[str, Any], said: str, where: str) -> None:
    error = refused(value)
    assert error is not None
    assert (error.status, error.message, error.field) == (400, said, where)
    assert error.code == ("missing_required_field" if "required" in said else "validation_error")


@pytest.mark.parametrize(
    ("value", "said", "where"),
    [
        ({"page": "x"}, "page must be a whole number.", "page"),
        ({"page": "0"}, "page must be at least 1.", "page"),
        ({"page": "1x"}, "page must be a whole number.", "page"),
        ({"flag": "maybe"}, "flag must be true or false.", "flag"),
        ({"kind": "3"}, "kind must be one of: 1, 2.", "kind"),
        ({"least": "null"}, "least must be a whole number.", "least"),
        ({"success": "NULL"}, "success must be true or false.", "success"),
        ({"state": "null"}, "state must be one of: off, on.", "state"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_by_name(value: dict[str, str], said: str, where: str) -> None:
    with pytest.raises(ApiError) as caught:
        convert(value, Values, lax=True)
    assert (caught.value.status, caught.value.message, caught.value.field) == (400, said, where)


def test_a_query_is_read_from_text_and_a_body_is_not() -> None:
    found = convert({"page": "7", "perPage": "2", "more": "x"}, Paged, lax=True)
    assert (found.page, found.per_page) == (7, 2)
    assert convert({"name": "null"}, Values, lax=True).name == "null"
    with pytest.raises(ApiError):
        convert({"page": "7"}, Paged)


@given(st.text())
def test_one_line_is_what_has_no_control_character(text: str) -> None:
    controls = any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" for char in text)
    assert (refused({"line": text}) is not None) is (controls or not 0 < len(text) <= 1000)


@given(
    st.dictionaries(
        st.sampled_from([*Example.__struct_fields__]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
    )
)
def test_every_refusal_is_a_sentence_about_a_field_of_ours(value: dict[str, Any]) -> None:
    if (error := refused(value)) is not None:
        assert error.message.endswith(".")
        assert len(error.message) < 300
        assert not any(sign in error.message for sign in ("`", "$.", "[...]"))
        assert error.field is not None
        assert error.field.partition("[")[0].partition(".")[0] in Example.__struct_fields__


def test_the_two_forms_differ_in_what_a_paragraph_may_hold() -> None:
    with pytest.raises(ApiError):
        convert({"line": "a\tb"}, Example)
    assert convert({"text": "\n"}, Example).text == "\n"
