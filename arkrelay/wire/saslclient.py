"""Our side of AUTH towards a smarthost (RFC 4954): which mechanism, and what to answer."""

import base64
import hashlib
import hmac
from collections.abc import Collection

# Within TLS the simplest first. In clear text the one that does not show the password (RFC 2195) first.
_ENCRYPTED = ("PLAIN", "LOGIN", "CRAM-MD5")
_CLEAR = ("CRAM-MD5", "PLAIN", "LOGIN")


def choose(offered: Collection[str], *, encrypted: bool) -> str | None:
    """Return the mechanism to use, or None when the peer offers none that we speak."""
    return next((name for name in (_ENCRYPTED if encrypted else _CLEAR) if name in offered), None)


def initial(mechanism: str, username: str, secret: str) -> bytes | None:
    """Return the initial response that goes with the AUTH command, or None when the server speaks first."""
    if mechanism == "PLAIN":  # RFC 4616: authorization identity, name, password
        return f"\0{username}\0{secret}".encode()
    return None


def answer(mechanism: str, step: int, challenge: bytes, username: str, secret: str) -> bytes | None:
    """Return the response to the challenge number ``step`` (from 0), or None when there should be no more."""
    match mechanism, step:
        case "PLAIN", 0:  # the initial response was too long for the command line
            return initial(mechanism, username, secret)
        case "LOGIN", 0:  # whatever the prompt says, all servers ask in this order
            return username.encode()
        case "LOGIN", 1:
            return secret.encode()
        case "CRAM-MD5", 0:
            digest = hmac.new(secret.encode(), challenge, hashlib.md5).hexdigest()
            return f"{username} {digest}".encode()
        case _:
            return None


def forms(username: str, secret: str) -> list[bytes]:
    """Return what the secret may look like in the words of a peer that repeats what it heard, the longest first."""
    plain = secret.encode()
    coded = [base64.b64encode(one).rstrip(b"=") for one in (initial("PLAIN", username, secret) or b"", plain)]
    return sorted(filter(None, [plain, *coded]), key=len, reverse=True)
