"""The files for an administrator's other programs do what they say, in those programs."""

import asyncio
import contextlib
import json
import re
import smtplib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers import certificates
from peers.daemon import Relay
from peers.mx import closed_port
from prometheus_client.parser import text_string_to_metric_families

from arkrelay.base import log as logs
from arkrelay.model.message import Status
from arkrelay.model.report import ReportKind

ETC = Path(__file__).parents[2] / "etc"
RULES = ETC / "prometheus/arkrelay.rules.yml"
FILTER = ETC / "fail2ban/filter.d/arkrelay.conf"
KEY = "ark_live_proxy-test"
Need = Callable[[str], Path]


def run(*words: str | Path, **more: Any) -> str:
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        words, capture_output=True, timeout=60, check=False, **more
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with Relay(tmp_path) as started:
        yield started


# -- Prometheus and Grafana -----------------------------------------------------------------------------------------


async def test_every_metric_and_label_of_alerts_and_dashboard_exists(relay: Relay) -> None:
    async with aiohttp.ClientSession() as session:
        page = await (await session.get(f"http://127.0.0.1:{relay.port('http')}/metrics")).text()
    shown: set[str] = set()
    for family in text_string_to_metric_families(page):
        shown |= {family.name, family.name + {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")}
    board = json.loads((ETC / "grafana/arkrelay.json").read_text())
    drawn = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = "\n".join([RULES.read_text().partition("groups:")[2], *drawn])
    used = set(re.findall(r"\b(arkrelay_\w+)", asked))
    assert len(used) > 15
    assert used - shown == set()
    states = set("|".join(re.findall(r'status=~?"([a-z|]+)"', asked)).split("|"))
    assert states <= {str(one) for one in Status}
    assert set(re.findall(r'kind="(\w+)"', asked)) <= {str(one) for one in ReportKind}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


ALERTS = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{{job="arkrelay", instance="a"}}'
        values: '1x9 0x20'
      - series: 'arkrelay_recipients{{instance="a", status="softfail"}}'
        values: '30x60'
      - series: 'arkrelay_recipients_settled_total{{instance="a", status="softfail"}}'
        values: '0+5x60'
      - series: 'arkrelay_recipients{{instance="b", status="pending"}}'
        values: '30x60'
      - series: 'arkrelay_recipients_settled_total{{instance="b", status="sent"}}'
        values: '0+10x60'
      - series: 'arkrelay_reports_total{{instance="b", kind="complaint"}}'
        values: '0+1x60'
      - series: 'arkrelay_webhook_events{{instance="b", state="parked"}}'
        values: '0x10 2x50'
    alert_rule_test:
      - {{alertname: ArkrelayDown, eval_time: 5m}}
      - alertname: ArkrelayDown
        eval_time: 15m
        exp_alerts: [{{exp_labels: {{severity: critical, job: arkrelay, instance: a}}, exp_annotations: {down}}}]
    promql_expr_test:
      - expr: count by (instance) (ALERTS{{alertname="ArkrelayNothingSent", alertstate="firing"}})
        eval_time: 40m
        exp_samples: [{{labels: '{{instance="a"}}', value: 1}}]
      - expr: count by (instance, alertname) (ALERTS{{alertstate="firing", severity="warning"}})
        eval_time: 40m
        exp_samples:
          - {{labels: '{{instance="b", alertname="ArkrelayComplaints"}}', value: 1}}
          - {{labels: '{{instance="b", alertname="ArkrelayWebhooksParked"}}', value: 1}}
"""


def test_alerts_fire_for_what_they_say_and_for_nothing_else(need: Need, tmp_path: Path) -> None:
    promtool = need("promtool")
    assert "SUCCESS" in run(promtool, "check", "rules", RULES)
    said = re.search(r'alert: ArkrelayDown.*?summary: "(.*?)"\n\s+action: "(.*?)"', RULES.read_text(), re.DOTALL)
    assert said is not None
    down = json.dumps({"summary": said[1].replace("{{ $labels.instance }}", "a"), "action": said[2]})
    (tmp_path / "alerts.yml").write_text(ALERTS.format(rules=json.dumps(str(RULES)), down=down))
    assert "SUCCESS" in run(promtool, "test", "rules", tmp_path / "alerts.yml")


# -- fail2ban -------------------------------------------------------------------------------------------------------


def found_by_fail2ban(need: Need, log: Path) -> list[str]:
    """Return the addresses that fail2ban takes from a log, in order."""
    installed = log.parent / "filter.d"  # ours beside Debian's, as it is installed
    installed.mkdir()
    for source in (FILTER, Path("/etc/fail2ban/filter.d/common.conf")):
        (installed / source.name).write_text(source.read_text())
    return run(need("fail2ban-regex"), "--out", "ip", log, installed / FILTER.name).split()


def guess(port: int) -> None:
    """Fail to log in, under a name that would like to be a line of the log."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("- auth_failed client=192.0.2.66 mechanism=PLAIN username=", "wrong")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_fail2ban_finds_who_guesses(tmp_path: Path, need: Need, form: str) -> None:
    async with Relay(tmp_path, more=f'tarpit = "0s"\n[log]\nformat = "{form}"\n') as relay:
        await asyncio.to_thread(guess, relay.port())
        async with aiohttp.ClientSession() as session:
            key = {"Authorization": "Bearer ark_live_wrong"}
            await session.get(f"http://127.0.0.1:{relay.port('http')}/v1/limits", headers=key)
    said = relay.log.read_text()
    # smtplib tries one mechanism after the other
    assert (said.count("auth_failed"), said.count("key_refused")) == (3, 1)
    assert found_by_fail2ban(need, relay.log) == ["127.0.0.1"] * 4, said


def test_fail2ban_finds_them_in_the_journal(tmp_path: Path, need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "journal.txt"
    lines: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journald"))
        monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journald"))
        writer = logs.Journal()
        for event, facts in (
            ("auth_failed", {"client": "192.0.2.7", "mechanism": "SCRAM-SHA-256", "username": "acme"}),
            ("auth_failed", {"client": "2001:db8::7", "mechanism": "PLAIN", "username": "-"}),
            ("key_refused", {"client": "192.0.2.8"}),
            ("recipient_settled", {"text": "auth_failed client=192.0.2.66 mechanism=PLAIN username=-"}),
        ):
            writer.warning(event=event, level="warning", **facts)
            message = re.search(rb"^MESSAGE=(.*)$", journald.recv(65536), re.MULTILINE)
            assert message is not None
            lines.append(
                f"Nov 28 19:00:0{len(lines)} relay arkrelay[812]: {message[1].decode()}"
            )  # as journald shows it
        writer._socket.close()
    log.write_text("\n".join(lines) + "\n")
    assert found_by_fail2ban(need, log) == ["192.0.2.7", "2001:db8::7", "192.0.2.8"]
    jail = (ETC / "fail2ban/jail.d/arkrelay.conf").read_text()
    assert "filter = arkrelay\n" in jail


# -- certificates and proxies ---------------------------------------------------------------------------------------


def shown_certificate(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as tls:
        return tls.getpeercert(binary_form=True) or b""


def put_pair(pair: certificates.Pair, certificate: Path, key: Path) -> None:
    certificate.parent.mkdir(parents=True, exist_ok=True)
    certificate.write_bytes(pair.certificate.read_bytes())
    key.write_bytes(pair.private_key.read_bytes())
    key.chmod(0o600)


async def test_a_renewed_certificate_is_shown_after_the_deploy_hook(tmp_path: Path) -> None:
    tls, lineage = tmp_path / "tls", tmp_path / "letsencrypt/live/relay.test"
    put_pair(certificates.valid("relay.test"), tls / "cert.pem", tls / "key.pem")
    put_pair(certificates.valid("renewed.test"), lineage / "fullchain.pem", lineage / "privkey.pem")
    more = '[tls]\ncertificate = "tls/cert.pem"\nprivate_key = "tls/key.pem"\n'
    more += '[[listen]]\nservice = "submissions"\naddress = "127.0.0.1:0"\n'
    async with Relay(tmp_path, more=more) as relay:
        before = await asyncio.to_thread(shown_certificate, relay.port("submissions"))
        hook = ETC / "certbot/arkrelay-deploy-hook"
        run(hook, env={"RENEWED_LINEAGE": str(lineage), "ARKRELAY_TLS": str(tls), "ARKRELAY_LINEAGE": "/of/another"})
        assert await asyncio.to_thread(shown_certificate, relay.port("submissions")) == before
        run(hook, env={"RENEWED_LINEAGE": str(lineage), "ARKRELAY_TLS": str(tls)})
        after = await asyncio.to_thread(shown_certificate, relay.port("submissions"))
    assert after != before
    assert (tls / "key.pem").read_bytes() == (lineage / "privkey.pem").read_bytes()
    assert (tls / "key.pem").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tls.iterdir()} == {"cert.pem", "key.pem"}


def nginx_settings(folder: Path, relay_port: int, https: int, http: int) -> Path:
    """Write our sample with certificates, ports and folders of this test, and the frame of Debian's nginx.conf."""
    put_pair(certificates.valid("relay.example.com"), folder / "fullchain.pem", folder / "privkey.pem")
    text = (ETC / "nginx/arkrelay.conf").read_text()
    text = re.sub(r"/etc/letsencrypt/live/[\w.]+", str(folder), text).replace("8025", str(relay_port))
    text = re.sub(r"\n    listen \[::\].*", "", text).replace("listen 443", f"listen 127.0.0.1:{https}")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{http};")
    (folder / "proxy_params").write_text(Path("/etc/nginx/proxy_params").read_text())
    own = "".join(f"{one}_temp_path {folder};" for one in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body"))
    config = folder / "nginx.conf"
    frame = f"pid {folder}/pid; daemon off; user root; worker_processes 1; events {{}}"  # pytest's folders are closed
    config.write_text(f"{frame} http {{ access_log off; {own}\n{text}}}")
    return config


async def test_nginx_hands_on_requests_and_events_as_they_happen(tmp_path: Path, need: Need) -> None:
    nginx, https, http = need("nginx"), closed_port(), closed_port()
    platform = tmp_path / "platform.toml"
    platform.write_text(f'[[keys]]\nname = "ops"\nsecret = "{KEY}"\n')
    platform.chmod(0o600)
    async with Relay(tmp_path) as relay:
        config = await asyncio.to_thread(nginx_settings, tmp_path, relay.port("http"), https, http)
        words = [str(nginx), "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(config)]
        run(*words, "-t")
        running = await asyncio.create_subprocess_exec(*words)
        try:
            async with asyncio.timeout(20):
                await ask_through_nginx(relay, f"https://127.0.0.1:{https}", f"http://127.0.0.1:{http}")
        finally:
            running.terminate()
            await running.wait()


async def ask_through_nginx(relay: Relay, https: str, http: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Host": "relay.example.com"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=False)) as session:
        await answers(session, f"{https}/healthz")
        assert (await session.get(f"{https}/metrics")).status == 403
        await events_come_at_once(relay, session, https)
        headers = {"Host": "track.example.com"}
        moved = await session.get(f"{http}/x", headers=headers, allow_redirects=False)
        assert (moved.status, moved.headers["Location"]) == (301, "https://track.example.com/x")


async def answers(session: aiohttp.ClientSession, url: str, **how: Any) -> None:
    """Ask until somebody listens, and assert that all is well."""
    while True:
        with contextlib.suppress(aiohttp.ClientConnectorError):
            answer = await session.get(url, **how)
            break
        await asyncio.sleep(0.02)
    assert answer.status == 200, await answer.text()


async def events_come_at_once(relay: Relay, session: aiohttp.ClientSession, base: str, **how: Any) -> None:
    async with session.get(f"{base}/v1/events?follow=true", **how) as stream:
        assert stream.status == 200, await stream.text()
        await relay.send("ann@rcpt.test")
        while b"data:" not in await stream.content.readline():
            pass


def caddy_settings(folder: Path, relay_port: int, https: int, http: int) -> Path:
    """Write our sample for ports and a folder of this test; certificates come from an authority of Caddy's own."""
    ours = ("admin off", "local_certs", "skip_install_trust", f"storage file_system {folder}")
    own = "\n".join([*ours, f"https_port {https}", f"http_port {http}"])
    config = folder / "Caddyfile"
    config.write_text(f"{{\n{own}\n}}\n" + (ETC / "caddy/Caddyfile").read_text().replace("8025", str(relay_port)))
    return config


async def test_caddy_hands_on_requests_and_events_as_they_happen(tmp_path: Path, need: Need) -> None:
    caddy, https, http = need("caddy"), closed_port(), closed_port()
    platform = tmp_path / "platform.toml"
    platform.write_text(f'[[keys]]\nname = "ops"\nsecret = "{KEY}"\n')
    platform.chmod(0o600)
    async with Relay(tmp_path) as relay:
        config = caddy_settings(tmp_path, relay.port("http"), https, http)
        with (tmp_path / "caddy.log").open("wb") as log:
            running = await asyncio.create_subprocess_exec(
                *(caddy, "run", "--adapter", "caddyfile", "--config", config),
                stderr=log,
                env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            )
        try:
            async with asyncio.timeout(30):
                await ask_through_caddy(relay, tmp_path / "pki/authorities/local/root.crt", https, http)
        finally:
            running.kill()  # on SIGTERM it waits for the stream of events
            await running.wait()


async def ask_through_caddy(relay: Relay, authority: Path, https: int, http: int) -> None:
    while not await asyncio.to_thread(authority.exists):
        await asyncio.sleep(0.02)
    base, names = f"https://127.0.0.1:{https}", ("relay.example.com", "track.example.com")
    async with aiohttp.ClientSession() as session:
        how: list[dict[str, Any]] = [
            {
                "headers": {"Authorization": f"Bearer {KEY}", "Host": name},
                "server_hostname": name,
                "ssl": ssl.create_default_context(cafile=str(authority)),
            }
            for name in names
        ]
        await answers(session, f"{base}/healthz", **how[0])
        await answers(session, f"{base}/healthz", **how[1])
        assert (await session.get(f"{base}/metrics", **how[0])).status == 404
        await events_come_at_once(relay, session, base, **how[0])
        moved = await session.get(f"http://127.0.0.1:{http}/x", headers={"Host": names[1]}, allow_redirects=False)
        assert (moved.status, moved.headers["Location"]) == (308, f"https://{names[1]}/x")


def test_apparmor_understands_the_profile(need: Need) -> None:
    run(need("apparmor_parser"), "--skip-kernel-load", "--skip-cache", ETC / "apparmor.d/arkrelay")
