"""An attempt as REST shows it."""

from dataclasses import replace
from typing import get_args

import pytest

from arkrelay.api.emails import delivery
from arkrelay.api.operation import encode
from arkrelay.api.shapes import Classification
from arkrelay.model.attempt import REST_CLASS, BounceClass, TlsInfo
from arkrelay.model.message import Status
from arkrelay.store.history import Delivery

FAILED = Delivery(
    id=7,
    recipient_id=1,
    at=1700000000.25,
    duration_s=0.1234,
    status=Status.HARDFAIL,
    stage="rcpt",
    failure=None,
    code=550,
    enhanced="5.1.1",
    output="550 5.1.1 no such user\udcff",
    details="550 invalid recipient: Delivery to x@y.test failed at 127.0.0.1:25 (mx.y.test)",
    bounce_class=BounceClass.BAD_ADDRESS,
    past_dot=False,
    host="mx.y.test",
    address="127.0.0.1",
    port=25,
    tls=None,
)


def test_the_described_classes_are_those_that_are_given() -> None:
    assert set(get_args(Classification)) == {name for name, _ in REST_CLASS.values()}


def test_a_failure_has_its_class_and_no_key_is_left_out() -> None:
    shown = delivery(FAILED)
    assert (shown.classification, shown.classification_code) == ("invalid_recipient", 10)
    assert (shown.timestamp_iso, shown.duration_ms) == ("2023-11-14T22:13:20.250Z", 123)
    written = encode(shown)
    assert b'"tls":null' in written
    assert b'"sentWithSsl":false' in written
    assert b"no such user?" in written


@pytest.mark.parametrize("bounce_class", BounceClass)
def test_every_class_has_its_words(bounce_class: BounceClass) -> None:
    shown = delivery(replace(FAILED, bounce_class=bounce_class))
    assert (shown.classification, shown.classification_code) == REST_CLASS[bounce_class]


def test_a_success_has_none() -> None:
    tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified=True)
    shown = delivery(replace(FAILED, status=Status.SENT, code=250, bounce_class=None, tls=tls))
    assert (shown.classification, shown.classification_code) == (None, None)
    assert shown.sent_with_ssl
    assert shown.tls is not None
    assert shown.tls.version == "TLSv1.3"
