"""What the API says about itself: /openapi.json for programs, /docs for people.

Both are open, because they hold no secrets and tools ask for them without a key. They describe what the listener
serves, and are made when somebody asks for the first time.
"""

import asyncio
import functools
import json
from collections.abc import Sequence

from aiohttp import web

from arkrelay.api.docs import POLICY, render
from arkrelay.api.openapi import JSON, build
from arkrelay.api.operation import Operation


class Description:
    """The two answers about ``operations``, each made once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations

    async def openapi(self, _: web.Request) -> web.Response:
        """The document."""
        return web.Response(body=(await self._made())[0], content_type=JSON, charset="utf-8")

    async def docs(self, _: web.Request) -> web.Response:
        """The page."""
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        body = (await self._made())[1]
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def _made(self) -> tuple[bytes, bytes]:
        return await asyncio.to_thread(lambda: self._bodies)  # the first time takes a tenth of a second

    @functools.cached_property
    def _bodies(self) -> tuple[bytes, bytes]:
        document = build(self._operations)
        return json.dumps(document, ensure_ascii=False).encode(), render(document).encode()
