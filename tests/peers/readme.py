"""Blocks of the README that a test runs as they stand, but for hosts and passwords that are examples."""

import re
from pathlib import Path
from typing import Final

README: Final = (Path(__file__).parents[2] / "README.md").read_text()
_MARKED: Final = re.compile(r"<!-- tried in tests: (\w+) -->\n```\w+\n(.*?)```", re.DOTALL)
BLOCKS: Final[dict[str, str]] = dict(_MARKED.findall(README))
