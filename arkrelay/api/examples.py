"""A body for each operation that takes one, as it stands in the description and in its curl line."""

from typing import Any, Final

_MAIL: Final = {"to": ["ann@example.net"], "subject": "Your parcel", "text": "It is on its way."}
_RAW: Final = (  # From: shop@example.com, To: ann@example.net, Subject: Hello
    "RnJvbTogc2hvcEBleGFtcGxlLmNvbQ0KVG86IGFubkBleGFtcGxlLm5ldA0KU3ViamVjdDogSGVsbG8NCg0KSGVsbG8uDQo="
)
_IDS: Final = {"ids": ["aBc123XyZ4567890"]}
_HOOK: Final = {"name": "Production", "url": "https://app.example.com/hooks"}

BODIES: Final[dict[str, dict[str, Any]]] = {
    "emails.send": {"from": "Shop <shop@example.com>", **_MAIL, "metadata": {"order": "4711"}},
    "emails.send_batch": {"from": "Shop <shop@example.com>", "emails": [_MAIL, {**_MAIL, "to": ["bob@example.net"]}]},
    "emails.send_raw": {"from": "shop@example.com", "to": ["ann@example.net"], "rawMessage": _RAW},
    "lanes.limit": {"connections": 2, "messagesPerSecond": 1.5},
    "queue.retry": {"all": True, "domain": "example.net"},
    "queue.flush": {"domain": "example.net"},
    "queue.hold": _IDS,
    "queue.release": _IDS,
    "queue.delete": _IDS,
    "control.replay_webhooks": {"tenantId": "acme", "since": 1_760_000_000},
    "control.backup": {"path": "/var/backups/arkrelay.tar.gz"},
    "tenants.create": {"name": "Acme Inc", "metadata": {"plan": "pro"}},
    "tenants.update": {"status": "suspended"},
    "tenants.credentials.create": {"name": "production", "type": "smtp"},
    "tenants.credentials.update": {"hold": True},
    "tenants.domains.create": {"name": "example.com"},
    "tenants.tracking.create": {"domainId": 1, "name": "track"},
    "tenants.tracking.update": {"trackOpens": False},
    "tenants.suppressions.create": {"address": "ann@example.net", "reason": "asked by telephone"},
    "tenants.suppressions.undo": {"classification": "invalid_recipient", "since": "2026-01-31T12:00:00Z"},
    "tenants.suppressions.import": {"entries": [{"address": "ann@example.net", "reason": "bounced elsewhere"}]},
    "tenants.webhooks.create": {**_HOOK, "events": ["MessageSent", "MessageBounced"]},
    "tenants.webhooks.update": {"enabled": False},
    "tenants.webhooks.test": {"event": "MessageSent"},
    "platform.webhooks.create": {**_HOOK, "events": ["MessageBounced"]},
    "platform.webhooks.update": {"events": []},
    "platform.webhooks.test": {"event": "MessageSent"},
}
