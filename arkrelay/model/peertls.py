"""TLS towards a peer: what is demanded of it and on whose word, and how it came out."""

from dataclasses import dataclass
from enum import StrEnum


class TlsPolicy(StrEnum):
    """On whose word TLS was demanded of a peer; NONE: encrypted where the peer offers it (RFC 7435)."""

    NONE = "none"
    DANE = "dane"  # RFC 7672
    STS = "mta-sts"  # RFC 8461
    DOMAIN = "domain"  # [[tls_policy]]
    ROUTE = "route"  # [[route]]
    REQUIRETLS = "requiretls"  # the sender of the message (RFC 8689)


class TlsResult(StrEnum):
    """What went wrong with TLS, in the words of RFC 8460 §4.3."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    STS_FETCH_ERROR = "sts-policy-fetch-error"
    STS_INVALID = "sts-policy-invalid"


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One TLSA record (RFC 6698 §2.1); ``data`` is a hash, or the whole certificate or key."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TlsaAnswer:
    """The TLSA records of one name, as canonical as they came; ``secure``: DNSSEC vouches for them."""

    records: tuple[Tlsa, ...]
    secure: bool


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """An MTA-STS policy (RFC 8461 §3.2) with the id it was announced by; times are Unix seconds."""

    id: str
    mode: str  # "enforce" | "testing" | "none"
    mx: tuple[str, ...]  # host names and "*.name", lower case
    max_age_s: float
    fetched_at: float

    @property
    def expires_at(self) -> float:
        return self.fetched_at + self.max_age_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one host of one destination must show before it gets mail."""

    policy: TlsPolicy = TlsPolicy.NONE
    tls: str = "optional"  # "none" | "optional" | "required"
    verify: bool = False  # a certificate for the host, by an authority that this system trusts
    tlsa: tuple[Tlsa, ...] = ()  # instead: a certificate that one of these describes
    names: tuple[str, ...] = ()  # with ``tlsa`` of usage 2: the names of which the certificate has one
    testing: bool = False  # look whether ``verify`` would hold, count it, and deliver all the same
    listed: bool = True  # the MTA-STS policy names this host
    requiretls: bool = False  # the peer must promise to demand the same of the next one (RFC 8689)
