"""What TLS a host of a destination must show: its own DANE records and MTA-STS policy, and our rules.

DANE goes before MTA-STS (RFC 8461 §2), and a rule of ours adds to both and takes nothing away. A demand that cannot
be met means that mail waits: it never means clear text.
"""

from dataclasses import replace

from arkrelay.model.peertls import Demand, StsPolicy, Tlsa, TlsPolicy, TlsResult
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.mtasts import listed

ENFORCE, TESTING = "enforce", "testing"  # RFC 8461 §5


def demand_of(
    host: str,
    domain: str,
    *,
    sts: StsPolicy | None = None,
    tlsa: tuple[Tlsa, ...] | None = None,
    rule: str = "",
) -> Demand | Failure:
    """Return what ``host`` must show before it gets mail for ``domain``, or why it gets none whatever it shows.

    ``sts`` is a policy in force, of any mode; ``tlsa`` holds the usable ones of the host's secure TLSA records, None
    where there are none at all. ``rule`` is ``require`` of our own ``[[tls_policy]]``.
    """
    demand = Demand()
    if tlsa:
        demand = Demand(policy=TlsPolicy.DANE, tls="required", tlsa=tlsa, names=(host, domain))
    elif sts is not None and sts.mode == ENFORCE:
        if not listed(host, sts):
            detail = f"the MTA-STS policy of {domain} (id {sts.id}) does not name its MX host {host}"
            return unfit(detail, TlsResult.VALIDATION_FAILURE, TlsPolicy.STS)
        demand = Demand(policy=TlsPolicy.STS, tls="required", verify=True)
    elif tlsa is not None:
        # RFC 7672 §2.2: records of which none can be used still demand TLS, with whatever certificate
        demand = Demand(policy=TlsPolicy.DANE, tls="required")
    elif sts is not None and sts.mode == TESTING:
        demand = Demand(policy=TlsPolicy.STS, testing=True, listed=listed(host, sts))
    if rule == "verified" and not (demand.verify or demand.tlsa):
        return Demand(policy=TlsPolicy.DOMAIN, tls="required", verify=True)
    if rule == "encrypted" and demand.tls != "required":
        return Demand(policy=TlsPolicy.DOMAIN, tls="required")
    return demand


def requiring(demand: Demand, host: str, domain: str, *, proved: bool) -> Demand | Failure:
    """Return what ``host`` must show for a message with REQUIRETLS, on top of ``demand`` (RFC 8689 §4.2.1).

    ``proved``: DNSSEC or an MTA-STS policy vouches for the host's being one of ``domain``. Without that the mail
    would go, well encrypted, to whoever answered our question.
    """
    if not proved:
        detail = f"neither DNSSEC nor MTA-STS proves that {host} is an MX host of {domain}"
        return Failure(
            FailureKind.NO_REQUIRETLS, Stage.RESOLVE, detail[:500], TlsResult.VALIDATION_FAILURE, TlsPolicy.REQUIRETLS
        )
    verify = not demand.tlsa
    return replace(demand, policy=TlsPolicy.REQUIRETLS, tls="required", verify=verify, testing=False, requiretls=True)


def unfit(detail: str, result: TlsResult, policy: TlsPolicy) -> Failure:
    """Return the failure of a host that was not even connected to because of a policy; it is temporary."""
    return Failure(FailureKind.TLS, Stage.RESOLVE, detail[:500], result, policy)


def explain(failure: Failure, demand: Demand, domain: str) -> Failure:
    """Return a failure of TLS with the policy that makes it matter, so that a person knows whose demand it was."""
    whose = {
        TlsPolicy.DANE: "its DANE records demand TLS" + (" and a certificate like theirs" if demand.tlsa else ""),
        TlsPolicy.STS: f"the MTA-STS policy of {domain} demands TLS with a valid certificate",
        TlsPolicy.DOMAIN: f"[[tls_policy]] of arkrelay.toml demands {'verified ' if demand.verify else ''}TLS",
        TlsPolicy.REQUIRETLS: "the message demands TLS to a host that proves itself (REQUIRETLS)",
        TlsPolicy.ROUTE: "the [[route]] demands TLS with a valid certificate",
    }.get(demand.policy)
    if whose is None or failure.kind is not FailureKind.TLS:
        return failure
    # RFC 8689 §4.2.1: with no other host left the message is returned, not kept for later
    kind = FailureKind.ENCRYPTION_NEEDED if demand.requiretls else failure.kind
    return Failure(kind, failure.stage, f"{failure.detail}; {whose}"[:500], failure.tls, demand.policy)
