"""What the library's page shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from cute_logger import storage

PAGE = Path(__file__).parents[2] / "storage" / "README.md"


def test_every_example_on_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 30
    assert result.failed == 0


def test_every_setting_is_on_the_page() -> None:
    _, *rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == list(storage.LogConfig.__dataclass_fields__)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in storage.__all__:
        value = getattr(storage, name)
        if callable(value):
            assert value.__doc__, name
