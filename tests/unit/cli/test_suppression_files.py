"""Other services' suppression lists."""

import io

import pytest

from arkrelay.cli.state import Failed
from arkrelay.cli.suppression_files import read


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        pytest.param(
            "sendgrid",
            'status,reason,email,created\n5.1.1,"550 5.1.1 unknown",b@x.test,1767225600\n4.2.2,full,c@x.test,1\n',
            [{"address": "b@x.test", "reason": "550 5.1.1 unknown", "createdAt": "1767225600"}],
            id="sendgrid-bounces",
        ),
        pytest.param(
            "sendgrid",
            "email,created\nb@x.test,2026-01-01 00:00:00\n",
            [{"address": "b@x.test", "reason": "imported", "createdAt": "2026-01-01T00:00:00+00:00"}],
            id="sendgrid-unsubscribes",
        ),
        pytest.param(
            "mailgun",
            'address,code,error,created_at\nb@x.test,550,No such user,"Thu, 01 Jan 2026 00:00:00 UTC"\n',
            [{"address": "b@x.test", "reason": "No such user", "createdAt": "2026-01-01T00:00:00+00:00"}],
            id="mailgun-bounces",
        ),
        pytest.param(
            "mailgun",
            'address,tags,created_at\nb@x.test,*,\nc@x.test,news,"Thu, 01 Jan 2026 00:00:00 UTC"\n',
            [
                {"address": "b@x.test", "reason": "unsubscribe"},
                {
                    "address": "c@x.test",
                    "reason": "unsubscribe",
                    "createdAt": "2026-01-01T00:00:00+00:00",
                    "stream": "news",
                },
            ],
            id="mailgun-unsubscribes",
        ),
        pytest.param(
            "postmark",
            "EmailAddress,SuppressionReason,Origin,CreatedAt\n"
            "b@x.test,HardBounce,Recipient,2026-01-01T00:00:00-05:00\nc@x.test,SpamComplaint,Recipient,\n",
            [
                {"address": "b@x.test", "reason": "hard fail", "createdAt": "2026-01-01T00:00:00-05:00"},
                {"address": "c@x.test", "reason": "complaint"},
            ],
            id="postmark",
        ),
        pytest.param(
            "ses",
            '"EmailAddress","Reason","LastUpdateTime"\n"b@x.test","BOUNCE","2026-01-01T00:00:00Z"\n',
            [{"address": "b@x.test", "reason": "hard fail", "createdAt": "2026-01-01T00:00:00+00:00"}],
            id="ses",
        ),
        pytest.param(
            "postal",
            "id,type,address,reason,timestamp,keep_until\n"
            "1,recipient,b@x.test,hard fail,1767225600.5,1769817600\n2,sender,s@x.test,x,1,2\n"
            "3,recipient,old@x.test,hard fail,1600000000.5,1602592000\n",
            [{"address": "b@x.test", "reason": "hard fail", "createdAt": "1767225600.5"}],
            id="postal",
        ),
        pytest.param(
            "ark",
            "address,reason,createdAt,stream,cause,classification\n"
            "b@x.test,complaint,2026-01-01T00:00:00.000Z,news,complaint,\n"
            "c@x.test,hard fail,2026-01-01T00:00:00.000Z,,failure,no_mailbox\n",
            [
                {
                    "address": "b@x.test",
                    "reason": "complaint",
                    "createdAt": "2026-01-01T00:00:00+00:00",
                    "stream": "news",
                    "cause": "complaint",
                },
                {
                    "address": "c@x.test",
                    "reason": "hard fail",
                    "createdAt": "2026-01-01T00:00:00+00:00",
                    "cause": "failure",
                    "classification": "no_mailbox",
                },
            ],
            id="our-own",
        ),
        pytest.param("csv", "b@x.test\n", [{"address": "b@x.test", "reason": "imported"}], id="no-header"),
    ],
)
def test_a_service_is_known_by_its_columns(form: str, text: str, wanted: list[dict[str, str]]) -> None:
    found = read(io.StringIO(text), now=1_768_000_000)
    assert found.form == form
    assert [row.body("imported") for row in found.rows] == wanted
    assert not any(one.bad for one in found.passed)


def test_what_is_no_address_is_named_by_its_line() -> None:
    found = read(io.StringIO("email,reason\nb@x.test,\n\nnobody,x\n,y\n"))
    assert [(one.line, one.bad) for one in found.passed] == [(4, True), (5, True)]
    assert [row.line for row in found.rows] == [2]


def test_a_file_that_is_no_csv_is_refused_with_its_line() -> None:
    with pytest.raises(Failed, match="line 2"):
        read(io.StringIO("email\n" + "x" * 200_000))


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('5.7.1,"550 5.7.1 Service unavailable; client host blocked using Spamhaus"', False),
        ('550,"550 5.7.1 Service unavailable; client host blocked using Spamhaus"', False),
        ('5.7.1,"554 5.7.1 Message rejected as spam"', False),
        ('5.2.2,"552 5.2.2 mailbox full"', False),
        ('5.1.1,"550 5.1.1 no such user"', True),
        ('550,"550 Requested action not taken: mailbox unavailable"', True),
        ('5.0.0,"550 5.0.0 words that no rule knows"', True),
        (',"Mail domain mentioned in email address is unknown"', True),
    ],
)
def test_what_was_refused_for_the_senders_sake_is_passed_over(line: str, kept: bool) -> None:
    text = f"status,reason,email\n{line},b@x.test\n"
    found = read(io.StringIO(text), "sendgrid")
    assert (len(found.rows), [one.ours for one in found.passed]) == ((1, []) if kept else (0, [True]))
    assert len(read(io.StringIO(text), "sendgrid", everything=True).rows) == 1


def test_mailguns_code_stands_apart_from_its_words() -> None:
    text = "address,code,error\nb@x.test,554,5.7.1 message rejected as spam\nc@x.test,550,5.1.1 user unknown\n"
    assert [row.address for row in read(io.StringIO(text)).rows] == ["c@x.test"]


@pytest.mark.parametrize(
    ("tags", "streams"),
    [
        ('"[""news"",""promo""]"', ["news", "promo"]),
        ('"news,promo"', ["news", "promo"]),
        ("[news promo]", ["news", "promo"]),
        ("our news", ["our news"]),
        ('"[""news"",""*""]"', [""]),
        ("", [""]),
    ],
)
def test_each_tag_is_a_stream_of_its_own(tags: str, streams: list[str]) -> None:
    assert [row.stream for row in read(io.StringIO(f"address,tags\nb@x.test,{tags}\n")).rows] == streams


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("20260101", "2026-01-01T00:00:00+00:00"),
        ("20260101120000", "2026-01-01T12:00:00+00:00"),
        ("1767225600000", "1767225600.0"),
        ("1767225600", "1767225600"),
        ("2026-01-01", "2026-01-01T00:00:00+00:00"),
        ("20269901", None),
        ("99999999999999999999", None),
        ("9999-99-99", None),
        ("yesterday", None),
    ],
)
def test_a_time_is_read_right_or_refused_with_its_line(given: str, wanted: str | None) -> None:
    found = read(io.StringIO(f"email,created\nb@x.test,{given}\n"))
    if wanted is None:
        assert [(one.line, one.bad) for one in found.passed] == [(2, True)]
    else:
        assert [row.created_at for row in found.rows] == [wanted]


@pytest.mark.parametrize("stream", ["n" * 201, "a\x07b"])
def test_a_stream_that_rest_would_not_take_is_refused_with_its_line(stream: str) -> None:
    found = read(io.StringIO(f"address,stream\na@x.test,\nb@x.test,{stream}\n"))
    assert [(one.line, one.bad) for one in found.passed] == [(3, True)]


def test_a_list_in_json_is_read_as_our_export_writes_it() -> None:
    found = read(io.StringIO('[{"address": "b@x.test", "reason": null, "cause": "hand"}, {"address": "b@"}, 7]'))
    assert [row.body("imported") for row in found.rows] == [
        {"address": "b@x.test", "reason": "imported", "cause": "hand"}
    ]
    assert [(one.line, one.bad) for one in found.passed] == [(2, True), (3, True)]
    assert found.unit == "entry"
    with pytest.raises(Failed, match="begins as JSON"):
        read(io.StringIO('[{"address": '))
