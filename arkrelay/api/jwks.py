"""The public keys by which receivers of webhooks verify what they get (Ark contract §11.4, RFC 7517)."""

import asyncio
import json

from aiohttp import web

from arkrelay.api.parts import parts_of

MAX_AGE_S = 300  # for caches in between; a receiver that meets an unknown kid asks again


async def keys(request: web.Request) -> web.Response:
    """Every key that may have signed, the newest first."""
    known = await asyncio.to_thread(parts_of(request).hooks.keys.all)
    body = json.dumps({"keys": [key.jwk() for key in known]}).encode()
    headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}"}
    return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")
