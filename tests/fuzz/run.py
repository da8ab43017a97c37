"""Long campaigns: each target under atheris, one after the other, and a table of what came out.

    python tests/fuzz/run.py                       every target, FUZZ_SECONDS (600) each
    python tests/fuzz/run.py --seconds 60 bodies   one of them
    python tests/fuzz/run.py --replay FILE bodies  one input, to see what it does

What atheris finds on its way stays in build/fuzz/<target>; `minimise.py` chooses what of it belongs
in tests/fuzz/corpus/<target>, where `test_corpus.py` replays it. An input that breaks a target ends
that target's campaign and is left in build/fuzz/<target> as `found-…`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.py"))
CORPUS = HERE / "corpus"
WORK = HERE.parents[1] / "build" / "fuzz"

INPUT_BYTES_MAX = 2048
SEED_COUNT, SEED_BYTES = 16, 400
"""Random inputs to begin with: a target that spends its input on choices needs long ones."""
INPUT_S_MAX = 10
"""An input that takes more CPU time is a finding: an endless loop, or as good as one."""
STALL_S_MAX = 900
"""As much by the clock, for loops outside of Python; machines stop for minutes now and then."""
MEMORY_BYTES_MAX = 256 << 20
"""Address space on top of what the interpreter and its libraries take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    target: str
    seconds: float
    executions: int
    edges: int
    features: int
    found: str

    def row(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0
        return (
            f"| {self.target} | {self.seconds:.0f} | {self.executions} | {rate:.0f} "
            f"| {self.edges} | {self.features} | {self.found or 'nothing'} |"
        )


def load(target: str) -> Callable[[bytes], None]:
    sys.path.insert(0, str(HERE.parent))
    function: Callable[[bytes], None] = importlib.import_module(f"fuzz.targets.{target}").target
    return function


def fuzz(target: str, options: list[str]) -> None:
    """In a process of its own: run libFuzzer, which never returns."""
    import atheris  # only campaigns need it

    with atheris.instrument_imports(include=["cute_logger"]):
        function = load(target)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *options], within_time(function))
    atheris.Fuzz()


def within_time(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def end(*_: object) -> None:
        raise TimeoutError(f"more than {INPUT_S_MAX} s of CPU time")

    def limited(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, INPUT_S_MAX)
        function(data)

    signal.signal(signal.SIGVTALRM, end)
    return limited


def campaign(target: str, seconds: int) -> Outcome:
    folder = WORK / target
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(target)
    for number in range(SEED_COUNT):
        (folder / f"seed-{number}").write_bytes(rng.randbytes(SEED_BYTES))
    kept = CORPUS / target
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        "-len_control=10",
        f"-timeout={STALL_S_MAX}",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/found-",
        str(folder),
        *([str(kept)] if kept.is_dir() else []),
    ]
    command = [sys.executable, __file__, "--one", target, *options]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    outcome = Outcome(
        target,
        time.monotonic() - started,
        _last(lines, r"stat::number_of_executed_units: (\d+)"),
        _last(lines, r"cov: (\d+)"),
        _last(lines, r"ft: (\d+)"),
        _finding(done.returncode, done.stdout.splitlines() + lines),
    )
    if outcome.found:
        print("\n".join(done.stdout.splitlines()[-12:]), file=sys.stderr)
    return outcome


def _last(lines: list[str], pattern: str) -> int:
    found = [match for line in lines if (match := re.search(pattern, line))]
    return int(found[-1][1]) if found else 0


def _finding(code: int, lines: list[str]) -> str:
    if code == 0:
        return ""
    raised = [line for line in lines if re.match(r"[A-Za-z_.]+(Error|Exception|Iteration)\b", line)]
    written = [line for line in lines if "Test unit written to" in line]
    return "; ".join([*raised[-1:], *written[-1:]]) or f"exit code {code}"


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--replay", type=Path, metavar="FILE")
    options = parser.parse_args()
    targets = options.targets or TARGETS
    if options.replay:
        load(targets[0])(options.replay.read_bytes())
        return 0
    print("| target | seconds | executions | a second | edges | features | found |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    outcomes = []
    for target in targets:
        outcomes.append(campaign(target, options.seconds))
        print(outcomes[-1].row(), flush=True)
    return 1 if any(outcome.found for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
