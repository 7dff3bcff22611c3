"""The lines of the README that talk to the REST API do what it says, as they stand there."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MARKED = re.compile(r"<!-- runs in tests[^:]*: (\w+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = {name: (language, text) for name, language, text in MARKED.findall(README)}
START_S = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], Path]
) -> AsyncIterator[dict[str, str]]:
    """Run ``arkrelay demo --keep``, and give the environment that it says its user needs."""
    need("curl")
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "arkrelay", "demo", "--keep"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(START_S):
            while (found := re.search(r"export (ARKRELAY_URL)=(\S+) (ARKRELAY_KEY)=(\S+)", said)) is None:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        yield {**environment, found[1]: found[2], found[3]: found[4]}
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def run(demo: dict[str, str], *names: str) -> list[dict[str, Any]]:
    """Run blocks of shell one after the other, and return the JSON that they print."""
    script = "\n".join(BLOCKS[name][1] for name in names)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=demo,
    )
    said, complaints = (one.decode() for one in await process.communicate())
    assert (process.returncode, complaints) == (0, ""), said
    answers: list[dict[str, Any]] = []
    decoder, place = json.JSONDecoder(), 0
    while place < len(said.rstrip()):
        answer, place = decoder.raw_decode(said, place)
        answers.append(answer)
    return answers


async def test_every_curl_line_is_run() -> None:
    """One that nobody runs is soon wrong."""
    assert set(BLOCKS) == {"send", "look", "follow", "client"}
    unmarked = MARKED.sub("", README)
    assert "curl -" not in unmarked


async def test_mail_is_sent_once_or_more_and_looked_at(demo: dict[str, str]) -> None:
    first, second, batch, page, detail, why, limits = await run(demo, "send", "look")
    assert first["success"] is second["success"] is batch["success"] is True
    assert first["data"]["to"] == ["ann@recipient.test"]
    assert first["data"]["id"] != second["data"]["id"]
    assert (batch["data"]["accepted"], batch["data"]["failed"]) == (2, 0)
    assert page["data"][0]["to"] == "ann@recipient.test"
    assert page["perPage"] == 1
    assert {"deliveries", "headers"} <= set(detail["data"])
    assert why["data"]["sentences"][0]["sentence"]
    assert limits["data"]["rateLimit"]["limit"] == 100
    again = await run(demo, "send")
    assert again[0]["data"]["id"] != first["data"]["id"]
    assert again[1]["data"] == second["data"]  # the key makes it one mail


async def test_events_are_followed_as_they_happen(demo: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f'auth="Authorization: Bearer $ARKRELAY_KEY"\nexec {BLOCKS["follow"][1]}',
        ),
        stdout=asyncio.subprocess.PIPE,
        env=demo,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while not (line := await process.stdout.readline()).startswith(b"data:"):
                assert line, "it ended"
        assert json.loads(line.removeprefix(b"data:"))["event"]
    finally:
        process.terminate()
        await process.communicate()


async def test_the_official_client_sends_with_its_base_url_changed(demo: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(BLOCKS["client"][1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=demo
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert re.fullmatch(r"[A-Za-z0-9]{16} (pending|sent)\n", said), said


async def test_the_refusal_that_it_shows_is_ours(demo: dict[str, str]) -> None:
    found = re.search(r'A refusal names .*?`(\{"success": false.*?\})`', README, re.DOTALL)
    assert found is not None
    shown = json.loads(found[1].replace("\n", " "))
    line = next(one for one in BLOCKS["send"][1].splitlines() if one.startswith("mail="))
    bad = line.replace('"Your parcel"', '""')
    assert bad != line
    auth, curl = (
        'auth="Authorization: Bearer $ARKRELAY_KEY"',
        'curl -sS -H "$auth" --json "$mail" "$ARKRELAY_URL/emails"',
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{auth}\n{bad}\n{curl}", stdout=asyncio.subprocess.PIPE, env=demo
    )
    answer = json.loads((await process.communicate())[0])
    assert answer["error"] == shown["error"]
    assert set(answer) == set(shown)
