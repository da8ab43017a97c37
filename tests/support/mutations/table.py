"""Plays every deliberate bug and prints the table of MUTATIONS.md: `make mutations`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from support.mutations import every  # noqa: F401
from support.mutations.registry import MUTATIONS, SEEDS, Mutation, play

TESTS = Path(__file__).parents[2] / "sim"
RULE_TESTS = ("test_rules.py", "test_snapshot_rules.py")
HEAD = """\
# Deliberate bugs

Each was put into the product's code, and noticed. Those of the first table were found by simulated
clusters: the mode's seeds were played from 0 on until one broke a promise. What chance finds too
rarely has a test of its own, in the second table: a rule that holds, and does not with the bug.
Continuous integration repeats both (`tests/sim/test_mutations.py`, `test_rules.py`,
`test_snapshot_rules.py`); `make mutations` writes this file.
"""


def main() -> int:
    _say(HEAD)
    _say("| what is broken | where | mode | seeds | first reported as |\n|---|---|---|---:|---|")
    missed = 0
    for mutation in MUTATIONS.values():
        missed += not _print_row(mutation)
    _say("\n| rule | broken by | test |\n|---|---|---|")
    for row in _directed():
        _say(row)
    return 1 if missed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _print_row(mutation: Mutation) -> bool:
    noticed = play(mutation)
    found = f"{noticed.seeds} | {noticed.kind}" if noticed else f"> {SEEDS} | **missed**"
    row = f"| {mutation.name} | `{mutation.breaks}` | {mutation.mode_name} | {found} |"
    _say(row)
    return noticed is not None


def _directed() -> Iterator[str]:
    for name in RULE_TESTS:
        for rule, break_it in _load(TESTS / name).RULES:
            broken = break_it.__name__.strip("_").replace("_", " ")
            yield f"| {rule.__name__.replace('_', ' ')} | {_words(broken)} | `{name}` |"


def _words(broken: str) -> str:
    return "a promise that does not wait for its fsync" if broken == "<lambda>" else broken


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
