"""The client's side of SASL mechanisms, written from the RFCs and not from our server."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Generator

Dialogue = Generator[bytes, bytes, None]  # yields answers, is sent challenges


def plain(username: str, password: str, authzid: str = "") -> bytes:
    return f"{authzid}\0{username}\0{password}".encode()


def login(username: str, password: str) -> Dialogue:
    assert (yield b"") == b"Username:"
    assert (yield username.encode()) == b"Password:"
    yield password.encode()


def cram_md5(username: str, password: str) -> Dialogue:
    challenge = yield b""
    digest = hmac.new(password.encode(), challenge, "md5").hexdigest()
    yield f"{username} {digest}".encode()


def scram_sha_256(
    username: str, password: str, *, gs2: str = "n,,", spoil: str = "", nonce: str | None = None
) -> Dialogue:
    """RFC 5802 §3; ``spoil`` names the part that is sent wrong."""
    name = username.replace("=", "=3D").replace(",", "=2C")
    nonce = nonce or secrets.token_urlsafe(12)
    first_bare = f"n={name},r={nonce}"
    server_first = (yield f"{gs2}{first_bare}".encode()).decode()
    parts = dict(item.split("=", 1) for item in server_first.split(","))
    assert parts["r"].startswith(nonce)
    assert len(parts["r"]) > len(nonce)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    channel = base64.b64encode(("y,," if spoil == "channel" else gs2).encode()).decode()
    returned = parts["r"] + ("x" if spoil == "nonce" else "")
    without_proof = f"c={channel},r={returned}"
    message = f"{first_bare},{server_first},{without_proof}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    if spoil == "proof":
        proof = bytes(32)
    final = yield f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    expected = base64.b64encode(hmac.digest(server_key, message, "sha256")).decode()
    assert final.decode() == f"v={expected}"  # the server knows the password too
    yield b""


def digest_md5(
    username: str, password: str, *, uri: str = "smtp/relay.test", extra: str = "", nc: str = "00000001"
) -> Dialogue:
    """RFC 2831 §2.1.2, quality of protection "auth"."""
    challenge = (yield b"").decode()
    given = dict(re.findall(r'([a-z-]+)="?([^",]*)"?', challenge))
    realm, nonce, cnonce = given["realm"], given["nonce"], secrets.token_hex(8)

    def h(data: bytes) -> bytes:
        return hashlib.md5(data).digest()

    a1 = h(f"{username}:{realm}:{password}".encode()) + f":{nonce}:{cnonce}".encode()

    def response(a2: str) -> str:
        middle = f"{h(a1).hex()}:{nonce}:{nc}:{cnonce}:auth:{h(a2.encode()).hex()}"
        return h(middle.encode()).hex()

    final = yield (
        f'charset=utf-8,username="{username}",realm="{realm}",nonce="{nonce}",nc={nc},cnonce="{cnonce}",'
        f'digest-uri="{uri}",response={response(f"AUTHENTICATE:{uri}")},qop=auth{extra}'
    ).encode()
    assert final.decode() == f"rspauth={response(f':{uri}')}"
    yield b""
