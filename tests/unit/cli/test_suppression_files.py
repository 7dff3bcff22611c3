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
            "1,recipient,b@x.test,hard fail,1767225600.5,1769817600\n2,sender,s@x.test,x,1,2\n",
            [{"address": "b@x.test", "reason": "hard fail", "createdAt": "1767225600.5"}],
            id="postal",
        ),
        pytest.param(
            "ark",
            "address,reason,createdAt,stream,cause,classification\nb@x.test,complaint,2026-01-01T00:00:00.000Z,news,c,\n",
            [
                {
                    "address": "b@x.test",
                    "reason": "complaint",
                    "createdAt": "2026-01-01T00:00:00+00:00",
                    "stream": "news",
                }
            ],
            id="our-own",
        ),
        pytest.param("csv", "b@x.test\n", [{"address": "b@x.test", "reason": "imported"}], id="no-header"),
    ],
)
def test_a_service_is_known_by_its_columns(form: str, text: str, wanted: list[dict[str, str]]) -> None:
    found = read(io.StringIO(text))
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
