"""Stacks of the profiler become stacks."""

from __future__ import annotations

from collections import Counter

import stacks

ROOTS = {"/x/cute_logger/node/": "cute/node/", "/x/cute_logger/storage/": "cute/storage/"}
HTTP = "handle (/lib/aiohttp/web.py:1)"
CHECK = "append (/x/cute_logger/node/http/records.py:5)"


def test_the_innermost_frame_of_a_layer_decides() -> None:
    assert stacks.place_of([HTTP, CHECK], ROOTS).layer == "check and pack"
    assert stacks.place_of([CHECK, HTTP], ROOTS).layer == "HTTP (aiohttp)"


def test_the_standard_library_counts_for_who_called_it() -> None:
    stack = [CHECK, "loads (/usr/lib/python3.11/json/__init__.py:9)", "encode"]
    assert stacks.place_of(stack, ROOTS).layer == "check and pack"


def test_what_several_layers_use_counts_for_the_one_that_uses_it() -> None:
    stack = [CHECK, "encode_records (/x/cute_logger/storage/record.py:2)"]
    assert stacks.place_of(stack, ROOTS).layer == "check and pack"


def test_a_stack_of_the_loop_alone_is_the_loops() -> None:
    assert stacks.place_of(["run (/usr/lib/asyncio/runners.py:1)"], ROOTS).layer == stacks.LOOP


def test_samples_are_counted_by_function_and_layer() -> None:
    raw = f"{HTTP};{CHECK} 3\n{HTTP} 2\nrun (/usr/lib/asyncio/runners.py:1) 1\n{CHECK} 4\n"
    counts = stacks.places_in(raw, ROOTS)
    expected = {
        stacks.Place("check and pack", "http/records.append"): 7,
        stacks.Place("HTTP (aiohttp)", "aiohttp/web.handle"): 2,
        stacks.Place(stacks.LOOP, stacks.LOOP): 1,
    }
    assert counts == Counter(expected)


def test_the_loops_own_time_is_split_up_by_samples_and_threads_keep_theirs() -> None:
    before = stacks.ThreadTimes({7: 1.0, 8: 0.5}, {7: 0.25, 8: 0.0})
    after = stacks.ThreadTimes({7: 3.0, 8: 1.0, 9: 0.5}, {7: 0.75, 8: 0.25, 9: 0.0})
    names = {7: "MainThread", 8: "wal"}
    samples = Counter({stacks.Place("Raft", "a.b"): 3, stacks.Place("apply", "c.d"): 1})
    profile = stacks.split_up(7, before, after, names, samples)
    assert profile.seconds == {
        "Raft": 1.5,
        "apply": 0.5,
        stacks.SYSTEM: 0.5,
        "thread wal": 0.75,
        "thread ?": 0.5,
    }
    assert profile.functions == {"a.b": 1.5, "c.d": 0.5}
    assert profile.cpu_s == 3.75
