from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.storage import CorruptBatch, Record, build_batch, encode_records, parse_batch
from cute_logger.storage.codec import (
    CODEC_LZ4,
    CODEC_NONE,
    CODEC_ZSTD,
    CODECS,
    codec_name,
    pack,
    unpack,
)
from cute_logger.storage.errors import UnpacksTooLarge

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
PLAIN = b"two apples and a pear, " * 200
PACKED = [CODEC_ZSTD, CODEC_LZ4]

packing = pytest.mark.parametrize("codec", PACKED, ids=codec_name)


@packing
@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 40))
def test_what_is_packed_unpacks_to_the_same(codec: int, piece: bytes, times: int) -> None:
    plain = piece * times
    used, packed = pack(codec, plain)
    assert used in (codec, CODEC_NONE)
    assert bytes(unpack(used, memoryview(packed), len(plain))) == plain
    assert len(packed) <= len(plain)


@packing
def test_what_would_not_shrink_stays_as_it_is(codec: int) -> None:
    for plain in (b"", b"short", os.urandom(5000)):
        assert pack(codec, plain) == (CODEC_NONE, plain)


@packing
def test_a_limit_is_exact(codec: int) -> None:
    _, packed = pack(codec, PLAIN)
    assert unpack(codec, packed, len(PLAIN)) == PLAIN
    with pytest.raises(UnpacksTooLarge):
        unpack(codec, packed, len(PLAIN) - 1)
    with pytest.raises(UnpacksTooLarge):
        unpack(CODEC_NONE, PLAIN, len(PLAIN) - 1)


def empty_skippable_frame() -> bytes:
    return b"\x50\x2a\x4d\x18" + bytes(4)


@packing
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed: packed[:-1], "ends early"),
        (lambda packed: packed[:5], "ends early"),
        (lambda packed: packed + b"\0", "follows"),
        (lambda packed: packed + packed, "follows"),
        (lambda packed: packed + empty_skippable_frame(), "follows"),
        (lambda packed: empty_skippable_frame() + packed, "no frame"),
        (lambda packed: b"", "no frame"),
        (lambda packed: PLAIN, "no frame"),
        (lambda packed: packed[:6] + b"\xff" * (len(packed) - 6), "zstd|lz4|early"),
    ],
)
def test_anything_but_one_whole_frame_is_corrupt(
    codec: int, damage: Callable[[bytes], bytes], reason: str
) -> None:
    _, packed = pack(codec, PLAIN)
    with pytest.raises(CorruptBatch, match=reason):
        unpack(codec, damage(bytes(packed)), MIB)


def test_an_unknown_codec_is_corrupt() -> None:
    with pytest.raises(CorruptBatch, match="unknown codec 3"):
        unpack(3, PLAIN, MIB)


def test_a_zstd_window_of_more_than_8_mib_is_corrupt() -> None:
    options = {zstd.CompressionParameter.window_log: 24}
    stream = zstd.ZstdCompressor(options=options)
    packed = stream.compress(bytes(10)) + stream.flush()
    with pytest.raises(CorruptBatch, match="memory"):
        unpack(CODEC_ZSTD, packed, MIB)


def test_a_zstd_frame_that_needs_a_dictionary_is_corrupt() -> None:
    dictionary = zstd.train_dict([b"apples %d pears %d" % (i, i * 7) for i in range(2000)], 1000)
    with pytest.raises(CorruptBatch, match="zstd"):
        unpack(CODEC_ZSTD, zstd.compress(PLAIN, zstd_dict=dictionary), MIB)


def zstd_bomb(size: int, *, tells: bool) -> bytes:
    if tells:
        return zstd.compress(bytes(size))
    stream = zstd.ZstdCompressor()
    return b"".join(stream.compress(bytes(MIB)) for _ in range(size // MIB)) + stream.flush()


def lz4_bomb(size: int, *, tells: bool) -> bytes:
    if tells:
        return lz4.frame.compress(bytes(size), store_size=True)
    stream = lz4.frame.LZ4FrameCompressor()
    parts = [stream.begin(), *(stream.compress(bytes(MIB)) for _ in range(size // MIB))]
    return b"".join(parts) + stream.flush()


BOMBS = {CODEC_ZSTD: zstd_bomb, CODEC_LZ4: lz4_bomb}


@packing
@pytest.mark.parametrize("tells", [True, False], ids=["size told", "size untold"])
def test_a_bomb_takes_little_memory(codec: int, tells: bool) -> None:
    bomb = BOMBS[codec](256 * MIB, tells=tells)
    assert len(bomb) < 2 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(UnpacksTooLarge):
            unpack(codec, bomb, 4 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    finally:
        tracemalloc.stop()


RESIDENT = """
import resource, sys
from pathlib import Path
from cute_logger.storage.codec import unpack
from cute_logger.storage.errors import UnpacksTooLarge

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

codec, bomb = int(sys.argv[1]), sys.stdin.buffer.read()
unpack(codec, bytes.fromhex(sys.argv[2]), 100)
before = peak()
try:
    unpack(codec, bomb, 4 << 20)
except UnpacksTooLarge:
    print(peak() - before)
"""


@packing
def test_nor_does_the_library_behind_take_much(codec: int) -> None:
    """What the libraries allocate in C is not traced: a process of its own tells."""
    _, small = pack(codec, bytes(100))
    answer = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(codec), bytes(small).hex()],
        input=BOMBS[codec](256 * MIB, tells=False),
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(answer.stdout) < 24 * 1024


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_of_any_codec_holds_the_same_records(name: str) -> None:
    body = encode_records([Record(b"apples " * 50, b"k", {"h": "x"}), Record(None)])
    codec, packed = pack(CODECS[name], body)
    assert codec == CODECS[name]
    fields = {"count": 2, "base_offset": 7, "timestamp": 9, "max_timestamp": 9}
    batch = parse_batch(build_batch(packed, codec=codec, **fields).data)
    plain = build_batch(body, **fields)
    assert batch.codec == codec
    assert batch.records() == batch.records(batch.unpacked()) == plain.records()
    assert batch.unpacked() == plain.body


@packing
def test_a_batch_whose_body_is_no_frame_is_corrupt(codec: int) -> None:
    body = encode_records([Record(b"apples")])
    batch = build_batch(body, codec=codec, count=1, base_offset=0, timestamp=0, max_timestamp=0)
    with pytest.raises(CorruptBatch, match="no frame"):
        parse_batch(batch.data).records()


def test_neither_library_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, cute_logger.storage, cute_logger.storage.codec as c; "
        "c.unpack(0, b'', 9); print([n for n in sys.modules if 'lz4' in n or 'zstd' in n])"
    )
    answer = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert answer.stdout.strip() == b"[]"
