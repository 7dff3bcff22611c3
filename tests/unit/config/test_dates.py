"""Dates of what was written by hand: when its file was, and fixed from the first change on."""

import os
import time
from typing import Any

import pytest
from peers.configuration import Folder

from arkrelay.config import tenants
from arkrelay.config.dates import parse_date
from arkrelay.config.errors import ConfigErrors

WRITTEN = 1_700_000_000.5
SHOWN = "2023-11-14T22:13:20.500Z"
BY_HAND = """
[[credentials]]
name = "x"
secret = "y"
[[domains]]
name = "a.example"
[[webhooks]]
name = "w"
url = "https://w.example"
[[track_domains]]
name = "t"
domain = "a.example"
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00.000Z"),
        ("2026-01-31 12:00:00", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123Z"),
    ],
)
def test_a_date_is_shown_in_one_form(text: str, shown: str) -> None:
    assert parse_date(text) == shown


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "1700000000000000", "0001-01-01T00:00:00+12:00"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_date(text)


def test_a_date_that_is_none_is_named_with_its_key(folder: Folder) -> None:
    folder.tenant("acme", "created_at = 'soon'\n[[credentials]]\nname = 'x'\nsecret = 'y'\nupdated_at = 'never'\n")
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'z'\ncreated_at = '1'\n")
    assert folder.problems() == [
        'platform.toml: keys[0].created_at: expected ISO 8601, got string "1"',
        'tenants/acme.toml: created_at: expected ISO 8601, got string "soon"',
        'tenants/acme.toml: credentials[0].updated_at: expected ISO 8601, got string "never"',
    ]


def test_what_has_no_date_has_its_files(folder: Folder) -> None:
    file = folder.tenant("acme", BY_HAND)
    keys = folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'z'\n")
    for one in (file, keys):
        os.utime(one, (WRITTEN, WRITTEN))
    snapshot = folder.load()
    acme = snapshot.tenants["acme"]
    dated: list[Any] = [acme, *acme.credentials, *acme.webhooks, *acme.track_domains]
    assert {(one.created_at, one.updated_at) for one in dated} == {(SHOWN, SHOWN)}
    assert (acme.domains[0].created_at, snapshot.platform.keys[0].created_at) == (SHOWN, SHOWN)


def test_a_change_of_the_file_leaves_the_dates_of_what_was_there(folder: Folder) -> None:
    file = folder.tenant("acme", BY_HAND)
    os.utime(file, (WRITTEN, WRITTEN))
    folder.write("platform.toml", "[[keys]]\nname = 'ops'\nsecret = 'z'\n")
    os.utime(folder.root / "platform.toml", (WRITTEN, WRITTEN))
    made, _ = tenants.add_credential(folder.path, "acme", "new")
    tenants.change_track_domain(
        folder.path, "acme", folder.load().tenants["acme"].track_domains[0].id, {"ssl": False}
    )
    tenants.add_key(folder.path, "second")
    snapshot = folder.load()
    acme = snapshot.tenants["acme"]
    assert acme.created_at == SHOWN < acme.updated_at
    assert [one.created_at for one in acme.credentials] == [SHOWN, made.created_at]
    assert [one.updated_at for one in acme.credentials] == [SHOWN, made.created_at]
    (track,) = acme.track_domains
    assert track.created_at == SHOWN < track.updated_at
    assert acme.domains[0].created_at == acme.webhooks[0].created_at == SHOWN
    assert snapshot.platform.keys[0].created_at == SHOWN < snapshot.platform.keys[1].created_at


def test_beside_a_broken_file_the_dates_are_the_same(folder: Folder) -> None:
    file = folder.tenant("acme", BY_HAND)
    os.utime(file, (WRITTEN, WRITTEN))
    folder.tenant("broken", "status = 'odd'")
    tenants.change_tenant(folder.path, "acme", {"name": "New"})
    (folder.root / "tenants" / "broken.toml").unlink()
    assert folder.load().tenants["acme"].credentials[0].created_at == SHOWN
    with pytest.raises(ConfigErrors):
        tenants.change_tenant(folder.path, "acme", {"created_at": "now"})
    assert file.stat().st_mtime > time.time() - 60
