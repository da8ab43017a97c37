from __future__ import annotations

import json
from pathlib import Path

from support.command import cute
from support.scripted_node import Plays, ScriptedNode


async def test_every_line_is_a_record(node: ScriptedNode) -> None:
    done = await cute("produce", "s", "--server", node.url, stdin=b"a\r\n\n\xff\x00\nlast")
    assert node.values == [b"a\r", b"", b"\xff\x00", b"last"]
    assert (done.code, done.stdout) == (0, b"count=4 first_offset=0 last_offset=3\n")


async def test_the_key_ends_at_the_first_separator(node: ScriptedNode) -> None:
    done = await cute(
        "produce", "s", "--key-sep", ":", "--server", node.url, stdin=b"k:v:w\nx\n:\n"
    )
    assert done.code == 0
    records = [record for body in node.appends for record in body["records"]]
    assert records == [{"value": b"v:w", "key": b"k"}, {"value": b"x"}, {"value": b"", "key": b""}]


async def test_a_file_is_read_as_well(node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\nb\n")
    done = await cute("produce", "s", str(tmp_path / "lines"), "--json", "--server", node.url)
    assert json.loads(done.stdout) == {
        "stream": "s",
        "count": 2,
        "first_offset": 0,
        "last_offset": 1,
    }


async def test_batches_are_compressed_on_the_way(node: ScriptedNode) -> None:
    lines = b"two apples and a pear\n" * 20
    for options in (("--compression", "zstd"), ("--compression", "lz4", "--if-offset", "20")):
        done = await cute("produce", "s", *options, "--server", node.url, stdin=lines)
        assert done.code == 0, done.stderr
    assert [body["codec"] for body in node.appends] == [1, 2]
    assert node.values == lines.splitlines() * 2


async def test_a_batch_has_at_most_that_many_records(node: ScriptedNode) -> None:
    await cute("produce", "s", "--batch", "2", "--server", node.url, stdin=b"1\n2\n3\n4\n5\n")
    assert {len(body["records"]) for body in node.appends} <= {1, 2}
    assert node.values == [b"1", b"2", b"3", b"4", b"5"]


async def test_a_condition_makes_one_batch_of_all(node: ScriptedNode) -> None:
    lines = b"".join(b"%d\n" % i for i in range(3000))
    done = await cute("produce", "s", "--if-offset", "0", "--server", node.url, stdin=lines)
    again = await cute("produce", "s", "--if-offset", "0", "--server", node.url, stdin=lines)

    assert done.stdout == b"count=3000 first_offset=0 last_offset=2999\n"
    assert len(node.appends[0]["records"]) == 3000
    assert (again.code, again.stdout) == (1, b"")


async def test_an_idempotency_key_appends_once(node: ScriptedNode) -> None:
    for _ in range(2):
        done = await cute(
            "produce", "s", "--idempotency-key", "k", "--server", node.url, stdin=b"a\nb\n"
        )
        assert done.stdout == b"count=2 first_offset=0 last_offset=1\n"
    assert node.values == [b"a", b"b"]


async def test_no_lines_are_no_records(node: ScriptedNode) -> None:
    done = await cute("produce", "s", "--server", node.url)
    assert (done.code, done.stdout) == (0, b"count=0 first_offset=- last_offset=-\n")


async def test_a_failure_tells_what_is_certainly_in(node: ScriptedNode) -> None:
    node.plays = [None, Plays.refuse(413, "record_too_large")]
    done = await cute("produce", "s", "--batch", "1", "--server", node.url, stdin=b"a\nb\n")
    assert done.code == 1
    assert done.stdout == b"count=1 first_offset=0 last_offset=0\n"
    assert "1 records are certainly in, up to offset 0; 1 were refused" in done.stderr
