"""The package that is installed is this checkout, whole."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("client", "node", "replication", "storage")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_installed_as_it_is_here(package: str) -> None:
    """A module added since the last `pip install -e .` is missing until the next."""
    module = importlib.import_module(f"cute_logger.{package}")
    assert module.__file__ is not None
    installed = Path(module.__file__).parent
    for source in sorted((ROOT / package).rglob("*.py")):
        copy = installed / source.relative_to(ROOT / package)
        assert copy.exists(), f"{copy} is missing: run pip install -e . again"
        assert copy.read_bytes() == source.read_bytes(), copy


def test_every_folder_of_code_is_listed_for_the_wheel() -> None:
    listed = (ROOT / "pyproject.toml").read_text()
    for package in PACKAGES:
        for init in (ROOT / package).rglob("__init__.py"):
            name = ".".join(("cute_logger", *init.parent.relative_to(ROOT).parts))
            assert f'"{name}",' in listed, name
