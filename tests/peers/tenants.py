"""Tenants of a running relay as tests need them: made by REST, with a domain to send from and keys that work."""

import asyncio
import smtplib
import tomllib
from pathlib import Path
from typing import Any

import httpx
from peers.arkdoor import ArkDoor, unique


async def ask(
    door: ArkDoor, method: str, path: str, body: Any = None, key: str = "", headers: dict[str, str] | None = None
) -> httpx.Response:
    fields = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    return await door.http.request(method, f"/v1{path}", json=body, headers=fields)


async def refused(
    door: ArkDoor, method: str, path: str, body: Any = None, key: str = ""
) -> tuple[int, str, str | None]:
    """Return status, code and field of a refusal."""
    answer = await ask(door, method, path, body, key)
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"], error.get("field")


def file_of(door: ArkDoor, tenant_id: str) -> Path:
    return door.relay.folder / "tenants" / f"{tenant_id}.toml"


def in_file(door: ArkDoor, tenant_id: str) -> dict[str, Any]:
    return tomllib.loads(file_of(door, tenant_id).read_text())


async def tenant(door: ArkDoor, name: str = "Some Ltd") -> str:
    return str((await door.api()("tenants.create", name=name)).data.id)


async def credential(door: ArkDoor, tenant_id: str, kind: str = "api", name: str = "") -> Any:
    made = await door.api()("tenants.credentials.create", tenant_id, name=name or unique("key"), type=kind)
    return made.data


async def sending_domain(door: ArkDoor, tenant_id: str) -> str:
    """Give the tenant a domain from which it may send, and return its name."""
    api, name = door.api(), f"{unique('sender')}.test"
    made = (await api("tenants.domains.create", tenant_id, name=name)).data
    for record in (made.dns_records.spf, made.dns_records.dkim, made.dns_records.return_path):
        value = f"{record.value}." if record.type == "CNAME" else record.value
        door.dns.set(record.full_name, record.type, value, ttl=1)
    assert (await api("tenants.domains.verify", str(made.id), tenant_id=tenant_id)).data.verified
    return name


def by_smtp(door: ArkDoor, user: str, password: str, *mail: str) -> int:
    """Log in, and send one mail (sender, recipient) if there is one; return the code of the last refusal, or 250."""
    with smtplib.SMTP("127.0.0.1", door.relay.port(), timeout=20) as client:
        client.user, client.password = user, password  # which its PLAIN sends: one failure is enough
        try:
            client.ehlo()
            client.auth("PLAIN", client.auth_plain)
            if mail:
                client.sendmail(mail[0], mail[1], f"From: {mail[0]}\r\nSubject: x\r\n\r\nx\r\n")
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code
    return 250


async def login(door: ArkDoor, user: str, password: str, *mail: str) -> int:
    return await asyncio.to_thread(by_smtp, door, user, password, *mail)


async def waiting(door: ArkDoor, tenant_id: str, key: str) -> str:
    """Return the id of a mail of this tenant that was deferred by its peer."""
    name = await sending_domain(door, tenant_id)
    to = f"{unique('busy')}@rcpt.test"
    assert await login(door, tenant_id, key, f"app@{name}", to) == 250
    found = await door.until(
        lambda: ask(door, "GET", f"/queue?tenantId={tenant_id}&status=softfail&address={to}"),
        lambda answer: answer.json()["data"],
    )
    return str(found.json()["data"][0]["id"])
