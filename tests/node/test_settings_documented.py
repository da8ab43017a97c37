"""Whoever runs a node finds every setting in deploy/README.md, and no setting that is gone."""

from __future__ import annotations

import re
from pathlib import Path

from cute_logger.node.config import SETTINGS

README = Path(__file__).parents[2] / "deploy" / "README.md"


def test_every_setting_has_a_row_and_every_row_is_a_setting() -> None:
    table = README.read_text().split("| default |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(SETTINGS)
