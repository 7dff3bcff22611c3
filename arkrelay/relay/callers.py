"""Who asks over HTTP, by a key: organisation or tenant, and what that lets it do. API and dashboard ask here."""

import hmac
import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.errors import ArkrelayError
from arkrelay.policy.limits import SlidingWindow, is_trusted, network_of
from arkrelay.relay.rates import shared_key

log = structlog.get_logger()

GUESSES_PER_MINUTE = 30  # wrong keys from one address; after that no key from it is looked at
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an organisation key or a local peer (``tenant_id`` None sees everything), or a tenant's key."""

    tenant_id: str | None
    name: str
    id: str = ""  # of the credential or key, for the request log
    prefix: str = ""  # the first 8 characters of the key
    test: bool = False  # a test key: nothing that it does may reach anybody
    hold: bool = False  # its credential may not send
    suspect: bool = False  # the relay put it on hold: it sends what is held, and changes and releases nothing
    may_send: bool = True  # its credential has the permission
    local: bool = False  # root or the service's user on the control socket
    suspended: str = ""  # the state of its tenant, when that may not ask
    shares_rate: bool = False  # with all requests and SMTP messages of its tenant

    @property
    def owner(self) -> str:
        """A name for the key that no other key has."""
        return f"{self.tenant_id or ''}/{self.name}"

    @property
    def rate_key(self) -> Hashable:
        """Under what its requests are counted."""
        return shared_key(self.tenant_id) if self.shares_rate and self.tenant_id is not None else self.owner


class WrongKey(ArkrelayError):
    """No key of ours, or not looked at: ``wait_s`` seconds have to pass first (0: it was looked at)."""

    def __init__(self, text: str, wait_s: int = 0) -> None:
        self.wait_s = wait_s
        super().__init__(text)


class Guesses:
    """Counts wrong keys of each client; who guesses is not listened to for a while, right or wrong."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._window = SlidingWindow(GUESSES_PER_MINUTE, MINUTE_S)

    def caller(self, snapshot: Snapshot, key: str, client: str, now: float) -> Caller:
        """Return whose key it is, or raise WrongKey. ``client`` is an address, ``now`` a monotonic time."""
        counted = None if is_trusted(client, snapshot.settings.limits.trusted_addresses) else network_of(client)
        if counted is not None and self._window.full(counted, now):
            wait_s = max(1, math.ceil(self._window.wait_s(counted, now)))
            raise WrongKey("Too many wrong API keys from here.", wait_s)
        found = find_caller(snapshot, key)
        if found is None:
            if counted is not None:
                self._window.hit(counted, now)
            self._metrics.auth_failures.inc()
            log.info("key_refused", client=client)
            raise WrongKey("This API key is not known.")
        return found


def find_caller(snapshot: Snapshot, key: str) -> Caller | None:
    """Return whose key it is, None for an unknown one."""
    test = key.startswith("ark_test_")
    if (organisation := snapshot.find_key(key)) is not None:
        return Caller(None, organisation.name, str(organisation.id), _prefix(key), test=test)
    found = snapshot.find_credential(key)
    if found is None or found[1].type != "api":
        return None
    tenant, credential = found
    return Caller(
        tenant.id,
        credential.name,
        str(credential.id),
        _prefix(key),
        test=test,
        hold=credential.hold,
        suspect=_suspect(snapshot, tenant.id, credential.name),
        may_send="send" in credential.permissions,
        suspended="" if tenant.status == "active" else tenant.status,
        shares_rate=snapshot.settings.limits.rate_shared_with_smtp,
    )


def still_caller(snapshot: Snapshot, caller: Caller, key_digest: bytes) -> Caller | None:
    """Return what the key with this digest lets its owner do now; None when it is gone or was replaced.

    So nobody has to keep a key to ask whether it is still good.
    """
    kept = snapshot.index.digests.get((caller.tenant_id or "", caller.name))
    if kept is None or not hmac.compare_digest(kept, key_digest):
        return None
    if caller.tenant_id is None:
        return caller if key_digest in snapshot.index.keys else None
    found = snapshot.index.credentials.get(key_digest)
    if found is None or found[1].type != "api" or found[0].id != caller.tenant_id:
        return None
    tenant, credential = found
    return replace(
        caller,
        hold=credential.hold,
        suspect=_suspect(snapshot, tenant.id, credential.name),
        may_send="send" in credential.permissions,
        suspended="" if tenant.status == "active" else tenant.status,
    )


def sending_refusal(caller: Caller, *, test: bool = False) -> tuple[str, str] | None:
    """Return why a key may not cause mail to leave, as a code of the contract and a sentence; None: it may.

    ``test``: what would leave is a test itself, so a test key may.
    """
    if not caller.may_send:
        return "permission_denied", 'This key lacks the permission "send".'
    if caller.hold:
        return "credential_on_hold", "This key is on hold and may not send."
    if caller.test and not test:
        return "permission_denied", "A test key may look, and not send what would really go out."
    return None


def changing_refusal(caller: Caller, *, test: bool = False) -> tuple[str, str] | None:
    """Return why a key may change nothing, as a code of the contract and a sentence; None: it may.

    One on hold could release itself, or make another. What a test key may do must reach nobody, and mail that is real
    depends on all that could be changed; ``test``: what it would change serves tests alone.
    """
    if caller.hold or caller.suspect:
        return "credential_on_hold", "This key is on hold: it may change nothing."
    if caller.test and not test:
        return "permission_denied", "A test key changes nothing that real mail depends on: use a live key."
    return None


def managing_refusal(snapshot: Snapshot, caller: Caller) -> str:
    """Return why a key may not manage credentials, empty: it may.

    A tenant's key that other keys of its tenant are more powerful than could give itself what it lacks.
    """
    if caller.tenant_id is None:
        return ""
    tenant = snapshot.tenants.get(caller.tenant_id)
    own = None if tenant is None else tenant.credential(caller.name)
    if own is None or own.domains or "send" not in own.permissions:
        return "This key is restricted: it does not manage credentials. Use another, or the organisation's."
    return ""


def _suspect(snapshot: Snapshot, tenant_id: str, name: str) -> bool:
    """Return whether the relay itself put a credential on hold; the tables by which keys are found do not say."""
    tenant = snapshot.tenants.get(tenant_id)
    found = None if tenant is None else tenant.credential(name)
    return found is not None and bool(found.suspicion)


def _prefix(key: str) -> str:
    """Return what may be shown of a key: 8 characters, and of a short one that a person chose no more than half."""
    return key[: min(8, len(key) // 2)]
