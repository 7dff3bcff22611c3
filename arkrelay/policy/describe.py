"""What happened to a recipient, in the sentences of Ark contract §8.1 (`details` of a delivery).

Clients match on their beginnings, so these stay as they are; our additions follow at the end.
"""

from arkrelay.model.attempt import REST_CLASS, BounceClass, Classified
from arkrelay.model.message import Recipient
from arkrelay.model.reply import Failure, FailureKind, Reply

# RFC 3463, with the class left out: what no server said has no code of its own.
_STATUS = {
    FailureKind.NO_DOMAIN: "1.2",
    FailureKind.NULL_MX: "1.10",  # RFC 7505 §4.2
    FailureKind.NO_ADDRESS: "1.2",
    FailureKind.RESOLVER: "4.3",
    FailureKind.FORBIDDEN: "4.4",
    FailureKind.LOOP: "4.6",
    FailureKind.REFUSED: "4.1",
    FailureKind.UNREACHABLE: "4.1",
    FailureKind.TIMEOUT: "4.2",
    FailureKind.CLOSED: "4.2",
    FailureKind.TLS: "7.5",
    FailureKind.NO_REQUIRETLS: "7.30",  # RFC 8689 §4.2.1, as the next
    FailureKind.ENCRYPTION_NEEDED: "7.10",
    FailureKind.PROTOCOL: "5.0",
    FailureKind.TOO_LARGE: "3.4",
    FailureKind.NO_SMTPUTF8: "6.7",  # RFC 6531 §3.5
    FailureKind.EXPIRED: "4.7",
    FailureKind.STOPPED: "3.0",
    FailureKind.INTERNAL: "3.0",
}


def describe(
    result: Reply | Failure,
    classified: Classified | None,
    recipient: Recipient,
    host: str | None,
    address: str | None,
    port: int | None,
) -> str:
    """Return one sentence about an attempt; ``classified`` is None when the peer took the message."""
    where = _where(host, address, port)
    if classified is None:
        return f"Message for {recipient.address} accepted by {where}"
    words = REST_CLASS[classified.bounce_class][0].replace("_", " ")
    if isinstance(result, Reply):
        return f"{result.code} {words}: Delivery to {recipient.address} failed at {where}"
    if classified.bounce_class is BounceClass.CONNECTION and address is None:
        return f"Connection error: Could not connect to any mail server for {recipient.domain}{_because(result)}"
    at = f" at {where}" if host or address else ""
    return f"{_sentence(words)}: Delivery to {recipient.address} failed{at}{_because(result)}"


def bounced(recipient: Recipient, classified: Classified, code: int, host: str) -> str:
    """Return the sentence for a recipient whose server took the message and sent it back later."""
    words = REST_CLASS[classified.bounce_class][0].replace("_", " ")
    start = f"{code} {words}" if code else _sentence(words)
    return f"{start}: Message for {recipient.address} came back{f' from {host}' if host else ''}"


def exhausted(attempts: int, details: str) -> str:
    """Return the sentence for a recipient that was tried as often as the settings allow."""
    return f"Maximum number of delivery attempts ({attempts}) has been reached. {details}".rstrip()


def suppressed(address: str, reason: str) -> str:
    """Return the sentence for a recipient that the tenant may not mail; ``reason`` as on the list."""
    return f"Recipient ({address}) is on the suppression list (reason: {reason})"


def tenant_gone(tenant_id: str) -> str:
    """Return the sentence for mail of a tenant that is no longer in the configuration."""
    return f"The tenant {tenant_id} was deleted, and with it what it had not sent yet"


def enhanced_of(result: Reply | Failure, *, permanent: bool) -> str | None:
    """Return the status code (RFC 3463) of an attempt: the peer's, or the one that fits what we saw ourselves."""
    if isinstance(result, Reply):
        return result.enhanced
    return f"{5 if permanent else 4}.{_STATUS[result.kind]}"


def _sentence(words: str) -> str:
    """Return the words of a class as people write them at the start of a sentence."""
    return words.capitalize().replace("Dns", "DNS").replace("Tls", "TLS")


def _where(host: str | None, address: str | None, port: int | None) -> str:
    if address is None:
        return host or "an unknown host"
    spoken = f"[{address}]" if ":" in address else address
    return f"{spoken}:{port or 25} ({host or address})"


def _because(failure: Failure) -> str:
    return f" ({failure.detail})" if failure.detail else ""
