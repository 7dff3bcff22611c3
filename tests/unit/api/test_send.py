"""What REST takes for an email, and by which field it says no; what arrives is tested with the daemon."""

import email
import email.policy
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.letter import (
    METADATA_BYTES,
    SendBody,
    author_of,
    is_heavy,
    mailbox,
    metadata_of,
    write,
)
from arkrelay.api.model import convert
from arkrelay.api.refusal import ApiError
from arkrelay.api.send import _expiry
from arkrelay.mail.intake import IntakeOptions, prepare

MOST = 14_000_000
BODY: dict[str, Any] = {"from": "App <app@sender.test>", "to": ["ann@rcpt.test"], "subject": "Hello", "text": "Hi."}
PDF = {"content": "QUJD", "contentType": "application/pdf", "filename": "a.pdf"}


def written(**fields: Any) -> Any:
    body = convert(BODY | fields, SendBody)
    return write(body, author_of(body.sender), MOST)


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        written(**fields)
    return caught.value


def test_nulls_are_as_good_as_nothing() -> None:
    names = ("html", "cc", "bcc", "replyTo", "tag", "headers", "attachments", "metadata", "tenantId", "expiresAt")
    plain = written()
    assert written(**dict.fromkeys(names)).content == plain.content
    assert (plain.tag, plain.metadata) == (None, None)


def test_one_address_needs_no_list() -> None:
    assert written(to="Ann <ann@rcpt.test>").content == written(to=["Ann <ann@rcpt.test>"]).content


def test_an_address_gets_one_record_however_often_it_stands() -> None:
    made = written(
        to=["ann@rcpt.test", "Ann <ann@RCPT.test>", "bob@rcpt.test"],
        cc=["bob@rcpt.test", "cid@rcpt.test"],
        bcc=["cid@rcpt.test", "dan@rcpt.test"],
    )
    assert [str(one.address).partition("@")[0] for one in made.recipients] == ["ann", "bob", "cid", "dan"]
    assert len(made.to) == 3
    assert b"dan" not in made.content
    assert b"bcc" not in made.content.lower()


def test_text_is_found_in_html() -> None:
    for fields in ({"text": None}, {"text": ""}):
        message = email.message_from_bytes(written(html="<p>Gr&uuml;&szlig;e</p>", **fields).content)
        assert message.get_content_type() == "multipart/alternative"
        leaves = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
        assert leaves == ["Grüße".encode(), b"<p>Gr&uuml;&szlig;e</p>"]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"to": []}, "validation_error", "to"),
        ({"to": ["x@rcpt.test"] * 51}, "validation_error", "to"),
        ({"cc": ["x@rcpt.test"] * 51}, "validation_error", "cc"),
        ({"bcc": ["x@rcpt.test"] * 51}, "validation_error", "bcc"),
        ({"to": 7}, "validation_error", "to"),
        ({"to": ["ann@rcpt.test", 7]}, "validation_error", "to[1]"),
        ({"to": ["ann@rcpt.test", "ann"]}, "invalid_email_format", "to[1]"),
        ({"to": "ann"}, "invalid_email_format", "to"),
        ({"to": ["a@rcpt.test, b@rcpt.test"]}, "invalid_email_format", "to[0]"),
        ({"to": ["<a@rcpt.test> <b@rcpt.test>"]}, "invalid_email_format", "to[0]"),
        ({"to": ['"ok@v.test" <a@rcpt.test>']}, "invalid_email_format", "to[0]"),
        ({"to": ["a@rcpt.test\r\nBcc: b@rcpt.test"]}, "validation_error", "to[0]"),
        ({"to": [f"{'x' * 201} <a@rcpt.test>"]}, "invalid_email_format", "to[0]"),
        ({"cc": ["nobody"]}, "invalid_email_format", "cc[0]"),
        ({"bcc": ["a@[127.0.0.1]"]}, "invalid_email_format", "bcc[0]"),
        ({"replyTo": "nobody"}, "invalid_email_format", "replyTo"),
        ({"replyTo": ["a@rcpt.test"]}, "validation_error", "replyTo"),
        ({"from": "app"}, "invalid_email_format", "from"),
        ({"from": "a@sender.test, b@sender.test"}, "invalid_email_format", "from"),
        ({"from": "=?utf-8?q?App?= <app@sender.test>"}, "invalid_email_format", "from"),
        ({"from": '"ceo@bank.test" <app@sender.test>'}, "invalid_email_format", "from"),
        ({"from": "App\x00 <app@sender.test>"}, "validation_error", "from"),
        ({"subject": ""}, "validation_error", "subject"),
        ({"subject": "x" * 999}, "validation_error", "subject"),
        ({"subject": "a\nb"}, "validation_error", "subject"),
        ({"subject": "a\n"}, "validation_error", "subject"),
        ({"text": None}, "missing_required_field", "html"),
        ({"text": "", "html": ""}, "missing_required_field", "html"),
        ({"html": "x" * 5_242_881}, "validation_error", "html"),
        ({"text": "x" * 5_242_881}, "validation_error", "text"),
        ({"tag": "x" * 1001}, "validation_error", "tag"),
        ({"tag": "a\nb"}, "validation_error", "tag"),
        ({"headers": {"Bcc": "x@y.test"}}, "validation_error", "headers.Bcc"),
        ({"headers": {"X-A": "a\nb"}}, "validation_error", "headers.X-A"),
        ({"headers": {"X-A": 7}}, "validation_error", "headers.X-A"),
        ({"headers": {"X-A": None}}, "validation_error", "headers.X-A"),
        ({"headers": ["X-A: b"]}, "validation_error", "headers"),
        ({"attachments": [PDF, {**PDF, "content": "%%%"}]}, "validation_error", "attachments[1].content"),
        ({"attachments": [{**PDF, "contentType": "pdf"}]}, "validation_error", "attachments[0].contentType"),
        ({"attachments": [{**PDF, "filename": "a\tb"}]}, "validation_error", "attachments[0].filename"),
        (
            {"attachments": [{"content": "QUJD", "filename": "x"}]},
            "missing_required_field",
            "attachments[0].contentType",
        ),
        ({"attachments": [{**PDF, "content": "A" * 13_981_016}]}, "payload_too_large", "attachments[0].content"),
        ({"attachments": [{**PDF, "content": "A" * 10_000_000}] * 2}, "payload_too_large", None),
        ({"metadata": {"foo": ""}}, "validation_error", "metadata.foo"),
        ({"expiresAt": True}, "validation_error", "expiresAt"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], code: str, field: str | None) -> None:
    error = refused(**fields)
    assert (error.code, error.field) == (code, field)
    assert error.status == (413 if code == "payload_too_large" else 400)


@pytest.mark.parametrize("missing", ["from", "to", "subject"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ApiError) as caught:
        convert({key: value for key, value in BODY.items() if key != missing}, SendBody)
    assert (caught.value.code, caught.value.field) == ("missing_required_field", missing)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"1a": "x"}, "metadata.1a"),
        ({"a-b": "x"}, "metadata.a-b"),
        ({"": "x"}, "metadata."),
        ({"ä": "x"}, "metadata.ä"),
        ({"a\n": "x"}, "metadata.a\n"),
        ({"a" * 41: "x"}, f"metadata.{'a' * 41}"),
        ({"x" * 5000: "x"}, f"metadata.{'x' * 100}"),
        ({"foo": ""}, "metadata.foo"),
        ({"foo": "x" * 501}, "metadata.foo"),
        ({"foo": "a\nb"}, "metadata.foo"),
        ({"foo": "a\tb"}, "metadata.foo"),
        ({"foo": 7}, "metadata.foo"),
        ({"foo": None}, "metadata.foo"),
        ({f"key{number}": "x" for number in range(11)}, "metadata"),
        ({f"key{number}": "ü" * 300 for number in range(10)}, "metadata"),
    ],
)
def test_bad_metadata_is_refused_by_its_key(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        metadata_of(given)
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "validation_error", field)


def test_metadata_may_be_as_large_as_the_contract_says() -> None:
    most = {f"{'k' * 38}{number:02}": "v" * 361 for number in range(10)}
    assert metadata_of(most) == most
    assert metadata_of({"a": "x" * 500, "B_2": "😀"}) == {"a": "x" * 500, "B_2": "😀"}
    assert METADATA_BYTES == 4096


@pytest.mark.parametrize(
    ("given", "name", "address"),
    [
        ("ann@rcpt.test", "", "ann@rcpt.test"),
        ("Ann <ann@RCPT.test>", "Ann", "ann@rcpt.test"),
        ('"Ann, B." <ann@rcpt.test>', "Ann, B.", "ann@rcpt.test"),
        ("<ann@rcpt.test>", "", "ann@rcpt.test"),
        ("Jörg <jörg@bücher.test>", "Jörg", "jörg@xn--bcher-kva.test"),
        ('"a b"@rcpt.test', "", '"a b"@rcpt.test'),
        ('"a<b>"@rcpt.test', "", '"a<b>"@rcpt.test'),
        ("=?utf-8?q?Ann?= <ann@rcpt.test>", "=?utf-8?q?Ann?=", "ann@rcpt.test"),
    ],
)
def test_an_address_may_have_a_name(given: str, name: str, address: str) -> None:
    found = mailbox(given, "to")
    assert (found.name, str(found.address)) == (name, address)


@pytest.mark.parametrize("ahead_s", [1, 3600, 10**9])
def test_an_expiry_to_come_is_taken_in_every_form(ahead_s: int) -> None:
    at = int(time.time()) + ahead_s + 5
    moment = datetime.fromtimestamp(at, UTC)
    for given_at in (at, float(at), moment.isoformat(), moment.isoformat().replace("+00:00", "Z")):
        assert _expiry(given_at) == at
    assert _expiry(moment.replace(tzinfo=None).isoformat()) == at  # without a zone it is UTC


@pytest.mark.parametrize(
    "given_at", ["", "tomorrow", "2026-13-01", 0, -1, 1e308 * 10, "2001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00"]
)
def test_another_expiry_is_refused(given_at: str | float) -> None:
    with pytest.raises(ApiError) as caught:
        _expiry(given_at)
    assert (caught.value.status, caught.value.field) == (400, "expiresAt")


@pytest.mark.parametrize(
    ("html", "text", "heavy"),
    [
        ("<p>" * 100, None, False),
        ("<p>" * 1000, None, True),
        ("<p>" * 1000, "text", False),
        ("<p>" * 40_000, "text", True),
        (None, "x" * 64_000, False),
        (None, "x" * 64_001, True),
    ],
)
def test_what_takes_long_goes_to_a_thread(html: str | None, text: str | None, heavy: bool) -> None:
    assert is_heavy(html, text) is heavy


OPTIONS = IntakeOptions(1e9, "relay.test", lambda: "id", frozenset({"sender.test"}))


_LINE = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
_NAME = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters='"\\<>@')


@given(st.text(_LINE, min_size=1, max_size=250), st.text(_NAME, max_size=50).filter(lambda name: "=?" not in name))
def test_what_is_taken_is_a_message_that_the_relay_takes(line: str, name: str) -> None:
    """No text of a client makes a message that intake refuses: that would be our mistake, told as the client's."""
    made = written(
        **{
            "from": f'"{name}" <app@sender.test>',
            "to": [f'"{name}" <ann@rcpt.test>'],
            "subject": line,
            "headers": {"X-A": line, "In-Reply-To": line},
            "replyTo": f'"{name}" <ann@rcpt.test>',
            "text": line,
            "html": line,
            "attachments": [{**PDF, "filename": line}],
        }
    )
    intake = prepare(made.content, OPTIONS)
    assert (str(intake.author), intake.subject) == ("app@sender.test", line)
    message = email.message_from_bytes(made.content, policy=email.policy.compat32)
    names = ["From", "To", "Reply-To", "Subject", "X-A", "In-Reply-To", "MIME-Version", "Content-Type"]
    assert message.keys() == names
