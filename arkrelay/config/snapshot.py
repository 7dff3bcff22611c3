"""One whole configuration, immutable, with the look-ups that doors and delivery need."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arkrelay.config.secrets import HostKey, SecretError, create_host_key, resolve
from arkrelay.mail.dkim import Signer
from arkrelay.model.settings import Listen, Settings
from arkrelay.model.tenant import Credential, Domain, OrganisationKey, Platform, Tenant

Stamp = tuple[int, int, int]  # mtime in ns, size, inode: what changes when a file is replaced or rewritten

KeySlot = tuple[Path, str, str, str]  # file, domain, selector, algorithm


def digest(secret: str) -> bytes:
    """Return the SHA-256 by which secrets are indexed, so that no look-up compares a secret itself."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """One DKIM key file as it was read; ``stamp`` tells whether it was replaced since."""

    stamp: Stamp
    signer: Signer = field(repr=False)
    bits: int = 0  # RSA only


@dataclass(frozen=True, slots=True)
class Index:
    """The look-up tables of a snapshot, built once by ``load``; nothing of it is ever shown."""

    credentials: Mapping[bytes, tuple[Tenant, Credential]] = field(default_factory=dict)
    keys: Mapping[bytes, OrganisationKey] = field(default_factory=dict)
    digests: Mapping[tuple[str, str], bytes] = field(default_factory=dict)  # (tenant id or "", name) → digest
    domains: Mapping[str, tuple[Tenant, Domain]] = field(default_factory=dict)
    signers: Mapping[tuple[str, str], tuple[Signer, ...]] = field(default_factory=dict)
    usernames: Mapping[str, tuple[tuple[Tenant, Credential], ...]] = field(default_factory=dict)
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)  # casefolded id or name → tenant ids
    tests: frozenset[tuple[str, str]] = frozenset()  # (tenant id, name) of the credentials that are for tests


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the files said at one moment, checked; ``listeners`` has the defaults applied.

    ``watched`` are the key and certificate files with their state when they were read. ``warnings`` are sentences for
    a person about what works but should be changed: in settings, and in those files.
    """

    path: Path
    settings: Settings
    platform: Platform
    tenants: Mapping[str, Tenant]
    listeners: tuple[Listen, ...]
    setting_warnings: tuple[str, ...] = ()
    key_warnings: tuple[str, ...] = ()
    watched: Mapping[Path, Stamp | None] = field(default_factory=dict, repr=False)
    host_key: HostKey | None = field(default=None, repr=False)
    index: Index = field(default_factory=Index, repr=False, compare=False)
    dkim_keys: Mapping[KeySlot, LoadedKey] = field(default_factory=dict, repr=False, compare=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.setting_warnings, *self.key_warnings)

    def find_credential(self, secret: str) -> tuple[Tenant, Credential] | None:
        """Return whose credential this secret is, of either type; suspended and held ones too: the door decides."""
        wanted = digest(secret)
        found = self.index.credentials.get(wanted)
        if found is None or not hmac.compare_digest(self.index.digests[found[0].id, found[1].name], wanted):
            return None
        return found

    def find_key(self, secret: str) -> OrganisationKey | None:
        """Return the organisation key with this secret."""
        wanted = digest(secret)
        found = self.index.keys.get(wanted)
        if found is None or not hmac.compare_digest(self.index.digests["", found.name], wanted):
            return None
        return found

    def is_test(self, tenant_id: str, credential: str) -> bool:
        """Return whether what is sent with this credential never leaves (Ark contract §16): its key says so."""
        return (tenant_id, credential) in self.index.tests

    def reveal(self, secret: str) -> str | None:
        """Return the plain value of a secret as a file spells it, or None where only its digest is known.

        A ``file:`` or ``credential:`` secret is read again; one that cannot be read any more is None too.
        """
        try:
            return resolve(secret, self.host_key).plain
        except SecretError:
            return None

    def owner_of(self, domain: str) -> tuple[Tenant, Domain] | None:
        """Return the tenant that sends from exactly this domain (A-labels, lower case)."""
        return self.index.domains.get(domain)

    def signers(self, tenant_id: str, domain: str) -> tuple[Signer, ...]:
        """Return the active DKIM keys of the tenant's domain, in the order of its file."""
        return self.index.signers.get((tenant_id, domain), ())

    def return_path_secret(self) -> bytes:
        """Return what return paths are signed with: derived from the host key, which is made when there is none."""
        return (self.host_key or create_host_key(self.settings.state_dir)).derive("return path v1")

    def link_secret(self) -> bytes:
        """Return what the tokens of links are signed with, likewise."""
        return (self.host_key or create_host_key(self.settings.state_dir)).derive("links v1")

    def unsubscribe_secret(self) -> bytes:
        """Return what the tokens of unsubscription are signed with, likewise."""
        return (self.host_key or create_host_key(self.settings.state_dir)).derive("unsubscribe v1")

    def request_log_key(self) -> bytes:
        """Return what bodies in the request log are encrypted with, from the host key as well."""
        return (self.host_key or create_host_key(self.settings.state_dir)).derive("request log v1")

    def username_matches(self, username: str, tenant: Tenant, credential: Credential) -> bool:
        """Return whether this name may stand beside the password of ``credential``.

        The password alone identifies a credential (Ark contract §14.1), and a name that means nothing to us is
        an organisation's and accepted. One that names somebody else is refused: another tenant, or another
        credential by its explicit ``username``.
        """
        if credential.username and digest(username) == digest(credential.username):
            return True
        if username in self.index.usernames:
            return False
        left, slash, right = username.partition("/")
        named = self._tenants_named(left)
        if named:
            return tenant.id in named
        if not slash or right == credential.name:
            return True
        named = self._tenants_named(right)  # Postal's "org/server", where the server is the tenant
        return not named or tenant.id in named

    def credentials_named(self, username: str) -> list[tuple[Tenant, Credential]]:
        """Return the credentials that a client may mean by this name, likeliest first.

        CRAM, SCRAM and DIGEST need the secret before the password is known. Accepted are an explicit
        ``username``, the key itself (Postmark's token as both), ``tenant/key``, ``tenant/credential`` and
        ``organisation/credential`` (Ark contract §14.1), Postal's ``organisation/tenant`` and the same with "_".
        """
        found: dict[int, tuple[Tenant, Credential]] = {}
        for tenant, credential in self._candidates(username):
            found.setdefault(credential.id, (tenant, credential))
        return list(found.values())

    def _candidates(self, username: str) -> Iterator[tuple[Tenant, Credential]]:
        yield from self.index.usernames.get(username, ())
        if owner := self.find_credential(username):
            yield owner
        yield from self._all_of(self._tenants_named(username))
        for at in [i for i, char in enumerate(username) if char in "/_"][:64]:
            left, right = username[:at], username[at + 1 :]
            tenants = self._tenants_named(left)
            owner = self.find_credential(right)
            if owner and (not tenants or owner[0].id in tenants):
                yield owner
            of_tenant = [pair for pair in self._all_of(tenants) if pair[1].name == right]
            yield from of_tenant
            if not tenants and username[at] == "/":  # an organisation's name, which we do not know
                yield from [pair for pair in self.index.credentials.values() if pair[1].name == right]
                yield from self._all_of(self._tenants_named(right))

    def _tenants_named(self, name: str) -> frozenset[str]:
        return self.index.names.get(name.casefold(), frozenset())

    def _all_of(self, tenant_ids: frozenset[str]) -> list[tuple[Tenant, Credential]]:
        tenants = [self.tenants[tenant_id] for tenant_id in sorted(tenant_ids)]
        return [(tenant, credential) for tenant in tenants for credential in tenant.credentials]
