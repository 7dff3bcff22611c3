"""An event in the stream: whatever a peer has said, it stays in its field."""

import json

from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.events import LoggedEvent, render
from arkrelay.model.event import EventKind


@given(st.text() | st.just("a\r\ndata: b\n\nid: 9\n\x00\x0b\u2028\ud800"))
def test_no_text_ends_a_field(said: str) -> None:
    event = LoggedEvent(
        seq=5,
        event=EventKind.SENT,
        at=1.0,
        at_iso="1970-01-01T00:00:01.000Z",
        tenant_id="acme",
        message_id=1,
        email_id="token",
        to="ann@x.test",
        data={"reply": said},
    )
    head, kind, data, *rest = render(event).split(b"\n")
    assert (head, kind, rest) == (b"id: 5", b"event: MessageSent", [b"", b""])
    assert b"\r" not in data
    shown = json.loads(data.removeprefix(b"data: "))
    assert shown["data"]["reply"] == said.encode("utf-8", "replace").decode()
