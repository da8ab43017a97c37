"""Stacks of the profiler become layers."""

from __future__ import annotations

from collections import Counter

import layers

ROOTS = {"/x/cute_logger/node/": "cute/node/", "/x/cute_logger/storage/": "cute/storage/"}
HTTP = "handle (/lib/aiohttp/web.py:1)"
CHECK = "append (/x/cute_logger/node/http/records.py:5)"


def test_the_innermost_frame_of_a_layer_decides() -> None:
    assert layers.layer_of([HTTP, CHECK], ROOTS) == "check and pack"
    assert layers.layer_of([CHECK, HTTP], ROOTS) == "HTTP (aiohttp)"


def test_the_standard_library_counts_for_who_called_it() -> None:
    stack = [CHECK, "loads (/usr/lib/python3.11/json/__init__.py:9)", "encode"]
    assert layers.layer_of(stack, ROOTS) == "check and pack"


def test_what_several_layers_use_counts_for_the_one_that_uses_it() -> None:
    stack = [CHECK, "encode_records (/x/cute_logger/storage/record.py:2)"]
    assert layers.layer_of(stack, ROOTS) == "check and pack"


def test_a_stack_of_the_loop_alone_is_the_loops() -> None:
    assert layers.layer_of(["run (/usr/lib/asyncio/runners.py:1)"], ROOTS) == layers.LOOP


def test_samples_are_counted_by_layer() -> None:
    raw = f"{HTTP};{CHECK} 3\n{HTTP} 2\nrun (/usr/lib/asyncio/runners.py:1) 1\n{CHECK} 4\n"
    counts = layers.layers_in(raw, ROOTS)
    expected = {"check and pack": 7, "HTTP (aiohttp)": 2, layers.LOOP: 1}
    assert counts == Counter(expected)


def test_the_loops_own_time_is_split_up_by_samples_and_threads_keep_theirs() -> None:
    before = layers.ThreadTimes({7: 1.0, 8: 0.5}, {7: 0.25, 8: 0.0})
    after = layers.ThreadTimes({7: 3.0, 8: 1.0, 9: 0.5}, {7: 0.75, 8: 0.25, 9: 0.0})
    names = {7: "MainThread", 8: "wal"}
    profile = layers.split_up(7, before, after, names, Counter({"Raft": 3, "apply": 1}))
    assert profile.seconds == {
        "Raft": 1.5,
        "apply": 0.5,
        layers.SYSTEM: 0.5,
        "thread wal": 0.75,
        "thread ?": 0.5,
    }
    assert profile.cpu_s == 3.75
