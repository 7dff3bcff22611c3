"""What a webhook is sent about an event, as plain values: payloads (Ark contract §11.2) and bodies (§11.3).

A payload says what happened, a body is what is transmitted: the payload, with its name and time around it. Whoever
posts a body encodes it once and signs those bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

from arkrelay.model.attempt import WEBHOOK_CLASS, BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient

OUTPUT_CHARS: Final = 512  # of the remote reply (Ark contract §11.2)
_DELIVERY: Final = {
    EventKind.SENT: "Sent",
    EventKind.DELAYED: "SoftFail",
    EventKind.FAILED: "HardFail",
    EventKind.HELD: "Held",
}
_CLASSIFIED: Final = frozenset({EventKind.DELAYED, EventKind.FAILED})
_ENGAGEMENT: Final = {
    EventKind.LOADED: ("ip_address", "user_agent"),
    EventKind.CLICKED: ("url", "token", "ip_address", "user_agent"),
}
_PARTS: Final = ("spf", "dkim", "mx", "return_path")  # of a domain's DNS

Object = dict[str, Any]


def payload_of(event: Event, recipient: Recipient | None, server: Mapping[str, Any]) -> Object | None:
    """Return the payload of an event, or None for one that webhooks are not told.

    ``recipient`` is whom a message event is about; ``server`` is the tenant, as the contract's object of that name.
    What the event's ``data`` does not say is null, zero or empty, whatever the family's field is.
    """
    data = event.data
    match event.kind:
        case EventKind.DNS_ERROR:
            return _domain(data, server)
        case EventKind.LIMIT_APPROACHING | EventKind.LIMIT_EXCEEDED:
            return {"server": dict(server), "volume": data.get("volume", 0), "limit": data.get("limit", 0)}
        case _ if recipient is None:
            return None
        case EventKind.SENT | EventKind.DELAYED | EventKind.FAILED | EventKind.HELD:
            return _delivery(event, recipient)
        case EventKind.BOUNCED:
            return {"original_message": message_object(recipient), "bounce": _report(data, recipient)}
        case EventKind.LOADED | EventKind.CLICKED:
            return {"message": message_object(recipient)} | {key: data.get(key) for key in _ENGAGEMENT[event.kind]}
    return None


def message_object(recipient: Recipient) -> Object:
    """Return the contract's ``message``: one recipient of one message, whose token is REST's email id."""
    message = recipient.message
    return {
        "id": recipient.id,
        "token": recipient.token,
        "direction": "outgoing",
        "message_id": message.message_id.strip("<>"),  # without brackets, unlike REST's (Ark contract §20, 32)
        "to": recipient.address,
        "from": message.author,
        "subject": message.subject,
        "timestamp": message.accepted_at,
        "spam_status": "NotChecked",  # we send mail and judge none
        "tag": message.tag,
        "metadata": dict(message.metadata) or None,
    }


def body_of(
    event: str,
    payload: Mapping[str, Any],
    *,
    form: str = "wrapped",
    uuid: str,
    at: float,
    tenant_id: str | None = None,
    test: bool = False,
) -> Object:
    """Return the body for a tenant's webhook in one of the three forms, or for the platform's with ``tenant_id``.

    ``uuid`` stays the same for every attempt at one event, by which receivers know a repeat; ``at`` is the moment of
    the attempt, because receivers refuse a body older than 300 s (Ark contract §11.4). A bare body has no place for
    either but its own ``timestamp``. ``test`` marks a test of the platform's (§8.12); its body is always wrapped.
    """
    outer: Object = {"event": event, "timestamp": at, "uuid": uuid, "payload": dict(payload)}
    if tenant_id is not None:
        return {"event": event, "tenant_id": tenant_id, **outer} | ({"_test": True} if test else {})
    match form:
        case "bare":
            return refreshed(payload, uuid=uuid, at=at)
        case "merged":
            return {**payload, **outer}
        case _:
            return outer


def refreshed(body: Mapping[str, Any], *, uuid: str, at: float) -> Object:
    """Return a body that was sent before as it is sent again at ``at``; ``uuid`` is new for a replay (§11.5)."""
    if "event" in body and "payload" in body:
        return {**body, "timestamp": at, "uuid": uuid}
    return {**body, "timestamp": at} if "timestamp" in body else dict(body)


def _delivery(event: Event, recipient: Recipient) -> Object:
    data = event.data
    payload: Object = {
        "message": message_object(recipient),
        "status": _DELIVERY[event.kind],
        "details": data.get("details") or "",
        "output": str(data.get("output") or "")[:OUTPUT_CHARS],
        "sent_with_ssl": bool(data.get("sent_with_ssl")),
        "timestamp": event.at,
        "time": data.get("time") or 0.0,
    }
    if event.kind in _CLASSIFIED:
        # mail that was given up without an attempt has no class of its own, perhaps one from before
        blamed = BounceClass(data.get("class") or recipient.bounce_class or BounceClass.OTHER)
        payload["classification"], payload["classification_code"] = WEBHOOK_CLASS[blamed]
        payload["smtp_enhanced_code"] = data.get("smtp_enhanced_code")
        payload["remote_host"] = data.get("remote_host")
    return payload


def _report(data: Mapping[str, Any], recipient: Recipient) -> Object:
    """Return the ``bounce``: the report that came in, of which ``data`` may name any field of a message."""
    empty = {"id": 0, "token": "", "message_id": "", "to": "", "from": "", "subject": "", "timestamp": 0.0}
    known = {key: data[key] for key in empty if key in data}
    fixed = {"direction": "incoming", "spam_status": "NotChecked", "tag": None, "metadata": None}
    return empty | {"to": recipient.message.return_path or ""} | known | fixed


def _domain(data: Mapping[str, Any], server: Mapping[str, Any]) -> Object:
    payload: Object = {"server": dict(data.get("server") or server)}
    payload |= {key: data.get(key) for key in ("domain", "uuid", "dns_checked_at")}
    for part in _PARTS:
        payload |= {f"{part}_{what}": data.get(f"{part}_{what}") for what in ("status", "error")}
    return payload
