from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from crc32c import crc32c

from cute_logger.storage.filesystem import OS_FILES, File
from cute_logger.storage.wal_frame import (
    FRAME_HEADER_SIZE,
    LOCATION_BYTES,
    Entry,
    Frame,
    FrameEncoder,
    FrameReader,
    Kind,
    find_voucher,
    frame_size,
    read_seed,
)

SEED = 0x11223344

ENTRY_FRAME = bytes.fromhex(
    "3b4c67cc"  # crc
    "05000000"  # size
    "44332211"  # seed
    "02000000"  # kind
    "0700000000000000"  # index
    "0300000000000000"  # term
    "5000000000000000"  # vouched
    "68656c6c6f000000"  # payload, padding
)


def file_of(tmp_path: Path, data: bytes) -> File:
    path = tmp_path / "frames"
    path.write_bytes(data)
    return OS_FILES.open(str(path))


def encode(*entries: Entry, seed: int = SEED, vouched: int = 0) -> bytes:
    encoder = FrameEncoder(seed, position=0, vouched=vouched)
    encoder.add_entries(entries)
    return b"".join(encoder.buffers())


def test_an_entry_becomes_these_bytes() -> None:
    assert encode(Entry(b"hello", 7, 3), vouched=80) == ENTRY_FRAME
    assert crc32c(ENTRY_FRAME[4:45]) == int.from_bytes(ENTRY_FRAME[:4], "little")


def test_these_bytes_become_an_entry(tmp_path: Path) -> None:
    reader = FrameReader(file_of(tmp_path, ENTRY_FRAME), SEED, position=0)
    assert reader.next() == Frame(Kind.ENTRY, 7, 3, 80, b"hello")
    assert reader.position == len(ENTRY_FRAME) == frame_size(5)
    assert reader.next() is None


def test_entries_added_together_are_the_same_bytes_as_one_by_one() -> None:
    entries = [Entry(b"x" * size, 10 + size, 2) for size in range(20)]
    one_by_one = FrameEncoder(SEED, position=0, vouched=40)
    for payload, index, term in entries:
        one_by_one.add(Kind.ENTRY, index, term, payload)
    assert encode(*entries, vouched=40) == b"".join(one_by_one.buffers())


def test_large_payloads_are_not_copied_into_one_buffer() -> None:
    encoder = FrameEncoder(SEED, position=0, vouched=0)
    payload = bytes(100_000)
    encoder.add_entries([Entry(payload, 1, 1)])
    assert any(buffer is payload for buffer in encoder.buffers())


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    for bit in range(8 * (FRAME_HEADER_SIZE + 5)):
        data = bytearray(ENTRY_FRAME)
        data[bit // 8] ^= 1 << bit % 8
        file = file_of(tmp_path, bytes(data))
        assert FrameReader(file, SEED, position=0).next() is None, bit
        assert FrameReader(file, SEED, position=0).next_entries(7) == ([], []), bit
        file.close()


@pytest.mark.parametrize("length", range(len(ENTRY_FRAME)))
def test_a_frame_that_ends_early_is_none(tmp_path: Path, length: int) -> None:
    file = file_of(tmp_path, ENTRY_FRAME[:length])
    assert FrameReader(file, SEED, position=0).next() is None
    assert FrameReader(file, SEED, position=0).next_entries(7) == ([], [])


def test_a_length_is_compared_with_the_file_before_memory_is_given_to_it(tmp_path: Path) -> None:
    whole = bytearray(ENTRY_FRAME)
    whole[4:8] = (60 << 20).to_bytes(4, "little")
    file = file_of(tmp_path, bytes(whole))
    reader = FrameReader(file, SEED, position=0)
    tracemalloc.start()
    try:
        assert reader.next() is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_zeros_are_no_frame_even_for_seed_zero(tmp_path: Path) -> None:
    file = file_of(tmp_path, bytes(400))
    assert read_seed(file) == 0
    assert FrameReader(file, 0, position=0).next() is None


def test_a_frame_of_another_file_is_none(tmp_path: Path) -> None:
    file = file_of(tmp_path, encode(Entry(b"other", 1, 1), seed=SEED + 1))
    assert FrameReader(file, SEED, position=0).next() is None


@pytest.mark.parametrize("window_bytes", [0, 41, 100, 1000])
def test_frames_are_read_through_a_window_of_any_size(tmp_path: Path, window_bytes: int) -> None:
    entries = [Entry(b"x" * (index % 70), index, 1) for index in range(1, 60)]
    reader = FrameReader(
        file_of(tmp_path, encode(*entries)), SEED, position=0, window_bytes=window_bytes
    )
    found: list[Entry] = []
    while len(found) < len(entries):
        run, _ = reader.next_entries(len(found) + 1)
        if not run:
            frame = reader.next()
            assert frame is not None
            run = [Entry(frame.payload, frame.index, frame.term)]
        found += run
    assert found == entries


def test_a_run_of_entries_ends_at_a_term_a_gap_and_another_kind(tmp_path: Path) -> None:
    encoder = FrameEncoder(SEED, position=0, vouched=0)
    encoder.add_entries([Entry(b"a", 1, 1), Entry(b"b", 2, 1)])
    encoder.add_entries([Entry(b"c", 3, 2)])
    encoder.add(Kind.TRUNCATE, 3, 0)
    encoder.add_entries([Entry(b"d", 4, 2)])
    reader = FrameReader(file_of(tmp_path, b"".join(encoder.buffers())), SEED, position=0)
    assert reader.next_entries(1)[0] == [Entry(b"a", 1, 1), Entry(b"b", 2, 1)]
    assert reader.next_entries(3)[0] == [Entry(b"c", 3, 2)]
    assert reader.next_entries(4)[0] == []
    assert reader.next() == Frame(Kind.TRUNCATE, 3, 0, 0, b"")
    assert reader.next_entries(3)[0] == []
    assert reader.next_entries(4)[0] == [Entry(b"d", 4, 2)]


def test_locations_are_those_of_entries_and_far_enough_apart(tmp_path: Path) -> None:
    entries = [Entry(b"x" * 1000, index, 1) for index in range(1, 200)]
    encoder = FrameEncoder(SEED, position=0, vouched=0)
    locations = encoder.add_entries(entries)
    file = file_of(tmp_path, b"".join(encoder.buffers()))
    assert len(locations) == 1 + encoder.position // (LOCATION_BYTES + 1000)
    for index, position in locations:
        frame = FrameReader(file, SEED, position=position).next()
        assert frame is not None
        assert frame.index == index
    assert FrameReader(file, SEED, position=0).next_entries(1)[1] == locations


class TestVoucher:
    def test_a_later_frame_that_vouches_is_found(self, tmp_path: Path) -> None:
        late = encode(Entry(b"late", 2, 1), vouched=8)
        file = file_of(tmp_path, bytes(16) + late)
        assert find_voucher(file, SEED, 0, file.size()) == 16

    def test_a_frame_vouches_for_nothing_behind_what_was_durable(self, tmp_path: Path) -> None:
        late = encode(Entry(b"late", 2, 1), vouched=8)
        file = file_of(tmp_path, bytes(16) + late)
        assert find_voucher(file, SEED, 8, file.size()) is None

    def test_a_frame_inside_a_payload_of_another_file_is_not_believed(self, tmp_path: Path) -> None:
        forged = encode(Entry(b"forged", 9, 9), seed=SEED + 1, vouched=48)
        file = file_of(tmp_path, bytes(48) + forged)
        assert find_voucher(file, SEED, 0, file.size()) is None

    def test_a_garbled_frame_is_not_believed(self, tmp_path: Path) -> None:
        late = bytearray(encode(Entry(b"late", 2, 1), vouched=8))
        late[41] ^= 1
        file = file_of(tmp_path, bytes(16) + late)
        assert find_voucher(file, SEED, 0, file.size()) is None

    @pytest.mark.parametrize("gap", [262_136, 262_144, 262_152, 1_000_000])
    def test_it_is_found_wherever_the_search_windows_meet(self, tmp_path: Path, gap: int) -> None:
        late = encode(Entry(b"late", 2, 1), vouched=8)
        file = file_of(tmp_path, bytes(gap) + late)
        assert find_voucher(file, SEED, 0, file.size()) == gap
