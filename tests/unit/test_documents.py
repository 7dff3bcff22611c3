"""What the README promises exists, and what exists stands in the README."""

import re
from pathlib import Path

from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from arkrelay.api.routes import OPERATIONS
from arkrelay.base.metrics import Metrics
from arkrelay.cli.main import COMMANDS, arkrelay

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _routes_of_readme() -> set[tuple[str, str]]:
    """Return (method, path) of each route in the table, with ``{a,b}`` spelt out and queries left off."""
    found: set[tuple[str, str]] = set()
    for cell in re.findall(r"^\| (`(?:GET|POST|PATCH|DELETE).*?) \|", README, re.MULTILINE):
        methods: list[str] = []
        for method, path in re.findall(r"`(GET|POST|PATCH|DELETE)(?: (/\S+?))?`", cell):
            methods.append(method)
            if path:
                choice = re.search(r"\{\w+(?:,\w+)+\}", path)
                words = choice[0].strip("{}").split(",") if choice else [""]
                spelt = [path.replace(choice[0], word) if choice else path for word in words]
                found |= {(one, each.split("?")[0]) for one in methods for each in spelt}
                methods = []
    return found


def _shape(path: str) -> str:
    """Return the path with every placeholder and choice alike."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_every_route_of_the_api_is_in_the_readme_and_the_other_way_round() -> None:
    documented = {(method, _shape(path)) for method, path in _routes_of_readme()}
    served = {(one.method, _shape(one.path)) for one in OPERATIONS}
    served |= {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")}
    assert documented == served


def test_every_metric_is_in_the_readme() -> None:
    page = Metrics().render().decode()
    for family in text_string_to_metric_families(page):
        if family.name.endswith("_created"):  # a companion that the library adds to each counter
            continue
        assert f"`{family.name}" in README, family.name


def test_every_command_that_the_readme_uses_exists() -> None:
    used = set(re.findall(r"(?:^|bin/|\| |`)arkrelay ([a-z-]+)", README.replace("\narkrelay is ", ""), re.MULTILINE))
    assert len(used) > 10
    assert used <= set(COMMANDS)
    for word in used:
        assert CliRunner().invoke(arkrelay, [word, "--help"]).exit_code == 0, word


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
