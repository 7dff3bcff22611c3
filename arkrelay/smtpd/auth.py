"""SASL mechanisms against credentials (RFC 4954): who is this client, if anybody.

A mechanism is a coroutine that asks the client through ``ask`` and returns an ``Attempt``. It knows nothing of
sockets, replies or limits. Nobody learns why it failed: an unknown name, a wrong password, a suspended tenant
and a credential that may not send all end the same way, and cost the same work.

The password alone identifies the credential where the mechanism shows it (Ark contract §14.1). CRAM-MD5,
DIGEST-MD5 and SCRAM never show it, so there each credential that the name may mean is tried.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from arkrelay.config.live import Snapshot
from arkrelay.model.errors import Refused
from arkrelay.model.tenant import Credential, Tenant

Ask = Callable[[bytes], Awaitable[bytes]]

ITERATIONS: Final = 4096  # RFC 7677 §4: the least that a client accepts; the stored secret is not a hash of it
MAX_CANDIDATES: Final = 8  # credentials tried for one name; each costs SCRAM 2 ms of a thread

_DIRECTIVE = re.compile(rb'\s*([a-zA-Z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))\s*(?:,|$)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of one exchange: the name as the client gave it, and whose credential it proved, if any."""

    username: str
    proved: tuple[Tenant, Credential] | None = None


def may_send(tenant: Tenant, credential: Credential) -> bool:
    """Return whether this credential opens the SMTP door today."""
    return (
        tenant.status == "active"
        and credential.type == "smtp"
        and "send" in credential.permissions
        and not credential.hold
    )


async def authenticate(mechanism: str, initial: bytes | None, ask: Ask, snapshot: Snapshot, hostname: str) -> Attempt:
    """Return who the client is, after as many questions as the mechanism needs.

    ``mechanism`` is one of ``MECHANISMS``; ``initial`` is the initial response, None when there was none. A
    malformed answer raises ``Refused`` with its reply (501); what ``ask`` raises passes through.
    """
    attempt = await MECHANISMS[mechanism](initial, ask, snapshot, hostname)
    if attempt.proved is not None and not may_send(*attempt.proved):
        return Attempt(attempt.username)
    return attempt


def loggable_username(username: str, snapshot: Snapshot) -> str:
    """Return the part of the name that is certainly no secret, "-" when there is none.

    Clients put keys into names (``tenant/key``, Postmark's token as both), and people a password. What we know
    as a tenant or as a configured name is shown, nothing else.
    """
    for tenant in snapshot.tenants.values():
        if any(credential.username and credential.username == username for credential in tenant.credentials):
            return username
    left = username.partition("/")[0]
    known = any(left in (tenant.id, tenant.name) for tenant in snapshot.tenants.values())
    return left if known and left.isprintable() else "-"


async def _plain(initial: bytes | None, ask: Ask, snapshot: Snapshot, _: str) -> Attempt:
    """RFC 4616: ``authzid NUL authcid NUL password`` in one message."""
    message = await ask(b"") if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise _malformed("PLAIN takes authzid, NUL, username, NUL, password")
    authzid, username, password = (_text(part) for part in parts)
    attempt = _by_password(username, password, snapshot)
    if authzid and authzid != username:
        return Attempt(username)  # nobody here may act for somebody else
    return attempt


async def _login(initial: bytes | None, ask: Ask, snapshot: Snapshot, _: str) -> Attempt:
    """The mechanism of no RFC that every client has: two questions, in the words that clients look for."""
    username = _text(await ask(b"Username:") if initial is None else initial)
    return _by_password(username, _text(await ask(b"Password:")), snapshot)


def _by_password(username: str, password: str, snapshot: Snapshot) -> Attempt:
    found = snapshot.find_credential(password)
    if found is None or not snapshot.username_matches(username, *found):
        return Attempt(username)
    return Attempt(username, found)


async def _cram_md5(initial: bytes | None, ask: Ask, snapshot: Snapshot, hostname: str) -> Attempt:
    """RFC 2195: the client returns its name and the HMAC-MD5 of our challenge."""
    if initial is not None:
        raise _malformed("CRAM-MD5 takes no initial response")
    challenge = f"<{secrets.token_hex(16)}.{int(time.time())}@{hostname}>".encode()
    name, space, given = (await ask(challenge)).rpartition(b" ")
    if not space or not name:
        raise _malformed("CRAM-MD5 takes a username, a space and a digest")
    username = _text(name)

    def proves(secret: str) -> bool:
        # MD5 because RFC 2195 says so; HMAC-MD5 is not broken, and the channel is encrypted or local
        digest = hmac.new(secret.encode(), challenge, hashlib.md5).hexdigest()
        return hmac.compare_digest(digest.encode(), given.lower())

    return _by_proof(username, proves, snapshot)


async def _scram_sha_256(initial: bytes | None, ask: Ask, snapshot: Snapshot, _: str) -> Attempt:
    """RFC 5802 and RFC 7677, without channel binding.

    The salt is drawn anew each time, which the plain secret allows, so an unknown name looks like any other.
    """
    first = _text(await ask(b"") if initial is None else initial)
    match = re.fullmatch(r"([ny]),(?:a=([^,]*))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)", first, re.DOTALL)
    if match is None:  # also "p=": the -PLUS variant is not offered; and "m=": no extension is known to us
        raise _malformed("SCRAM: the first message is malformed")
    username, authzid = _saslname(match[4]), _saslname(match[2] or "")
    nonce = match[5] + secrets.token_urlsafe(18)
    salt = secrets.token_bytes(16)
    server_first = f"r={nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}"

    final = _text(await ask(server_first.encode()))
    bare, mark, proof_text = final.rpartition(",p=")
    gs2_header = first[: match.start(3)].encode()
    expected = f"c={base64.b64encode(gs2_header).decode()},r={nonce}"
    proof = _decode(proof_text.encode())
    if not mark or len(proof) != 32:
        raise _malformed("SCRAM: the final message is malformed")
    sound = bare == expected or bare.startswith(expected + ",")
    auth_message = f"{match[3]},{server_first},{bare}".encode()
    signature = b""

    def proves(secret: str) -> bool:
        nonlocal signature
        salted = hashlib.pbkdf2_hmac("sha256", _normalised(secret).encode(), salt, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        client_signature = hmac.digest(stored_key, auth_message, "sha256")
        offered = bytes(a ^ b for a, b in zip(proof, client_signature, strict=True))
        signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth_message, "sha256")
        return hmac.compare_digest(hashlib.sha256(offered).digest(), stored_key)

    attempt = await asyncio.to_thread(_by_proof, username, proves, snapshot)
    if not sound or (authzid and authzid != username):
        return Attempt(username)
    proved = attempt.proved is not None and may_send(*attempt.proved)
    if proved and await ask(b"v=" + base64.b64encode(signature)):
        raise _malformed("SCRAM: nothing follows the server's signature")
    return attempt


async def _digest_md5(initial: bytes | None, ask: Ask, snapshot: Snapshot, hostname: str) -> Attempt:
    """RFC 2831, historic since RFC 6331 and only here for old clients: quality of protection "auth"."""
    if initial is not None:
        raise _malformed("DIGEST-MD5 takes no initial response")
    nonce = secrets.token_urlsafe(24)
    given = _directives(
        await ask(f'realm="{hostname}",nonce="{nonce}",qop="auth",charset=utf-8,algorithm=md5-sess'.encode())
    )
    try:
        raw_name, cnonce, uri = given[b"username"], given[b"cnonce"], given[b"digest-uri"]
        response = given[b"response"]
    except KeyError as exc:
        raise _malformed("DIGEST-MD5: a directive is missing") from exc
    username, realm = _text(raw_name), given.get(b"realm", b"")
    sound = (
        given.get(b"nonce") == nonce.encode()
        and given.get(b"nc") == b"00000001"
        and given.get(b"qop", b"auth") == b"auth"
        and realm in (b"", hostname.encode())
        and uri.lower().startswith(b"smtp/")
        and given.get(b"authzid", raw_name) == raw_name
    )
    answer = b""

    def proves(secret: str) -> bool:
        nonlocal answer
        a1 = _md5(b":".join((raw_name, realm, secret.encode()))) + b":" + nonce.encode() + b":" + cnonce
        if b"authzid" in given:
            a1 += b":" + given[b"authzid"]

        def hashed(a2: bytes) -> bytes:
            middle = b":".join((nonce.encode(), b"00000001", cnonce, b"auth", _md5(a2).hex().encode()))
            return _md5(_md5(a1).hex().encode() + b":" + middle).hex().encode()

        answer = hashed(b":" + uri)
        return hmac.compare_digest(hashed(b"AUTHENTICATE:" + uri), response)

    attempt = _by_proof(username, proves, snapshot)
    if not sound:
        return Attempt(username)
    proved = attempt.proved is not None and may_send(*attempt.proved)
    if proved and await ask(b"rspauth=" + answer):
        raise _malformed("DIGEST-MD5: nothing follows the server's answer")
    return attempt


MECHANISMS: Final[dict[str, Callable[[bytes | None, Ask, Snapshot, str], Awaitable[Attempt]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cram_md5,
    "SCRAM-SHA-256": _scram_sha_256,
    "DIGEST-MD5": _digest_md5,
}


def _by_proof(username: str, proves: Callable[[str], bool], snapshot: Snapshot) -> Attempt:
    """Try each credential that the name may mean; a name that means none costs one try as well.

    ``proves`` keeps what it computed for the last secret it was given, so the walk ends at the one that fits.
    """
    candidates = snapshot.credentials_named(username)[:MAX_CANDIDATES]
    tried = False
    for tenant, credential in candidates:
        secret = snapshot.reveal(credential.secret)
        if secret is None:
            continue  # only its digest is known: such a credential needs PLAIN or LOGIN
        tried = True
        if proves(secret):
            return Attempt(username, (tenant, credential))
    if not tried:
        proves(secrets.token_hex(16))
    return Attempt(username)


def _directives(message: bytes) -> dict[bytes, bytes]:
    """Parse ``key=value, key="quoted value"``; a key given twice is malformed (RFC 2831 §2.1.2)."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(message):
        match = _DIRECTIVE.match(message, position)
        if match is None or match[1].lower() in found:
            raise _malformed("DIGEST-MD5: the response is malformed")
        quoted = match[2]
        found[match[1].lower()] = (
            re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL) if quoted is not None else match[3]
        )
        position = match.end()
    return found


def _saslname(text: str) -> str:
    """Undo RFC 5802 §5.1: ``=2C`` and ``=3D`` stand for the comma and the equals sign."""
    if re.search(r"=(?!2C|3D)", text):
        raise _malformed("SCRAM: the name is malformed")
    return text.replace("=2C", ",").replace("=3D", "=")


def _normalised(secret: str) -> str:
    # RFC 4013 maps to NFKC; generated keys are ASCII, which it leaves alone
    return secret if secret.isascii() else unicodedata.normalize("NFKC", secret)


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()  # noqa: S324 -- RFC 2831 is made of it; off by default, under TLS or local


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise _malformed("That is not base64") from exc


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise _malformed("Names and passwords are UTF-8") from exc


def _malformed(text: str) -> Refused:
    return Refused(501, "5.5.2", text)
