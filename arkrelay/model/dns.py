"""What a look-up found: MX hosts and addresses, with how long it may be kept and whether DNSSEC proved it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MxHost:
    """One MX record (RFC 1035 §3.3.9); ``host`` is A-labels in lower case, without the final dot."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class MxAnswer:
    """The mail exchangers of a domain, at least one, the lowest preference first.

    ``implicit``: there were no MX records, so the domain itself is its only host (RFC 5321 §5.1). ``ttl_s``
    counts from the look-up. ``secure``: a nameserver on loopback set AD, so DNSSEC vouches for the names.
    """

    hosts: tuple[MxHost, ...]
    ttl_s: float
    secure: bool = False
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The addresses of a host, as canonical text and at least one; the other fields as in ``MxAnswer``."""

    addresses: tuple[str, ...]
    ttl_s: float
    secure: bool = False
