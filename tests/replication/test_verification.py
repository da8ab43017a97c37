"""A stopped node's files are verified: every flipped bit is found, and nothing is changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cute_logger.replication.catchup import PIECE_BYTES
from cute_logger.replication.install import Staging, plan
from cute_logger.replication.snapshot import log_states
from cute_logger.replication.verification import Verification
from cute_logger.storage import DataFolder, Wal, WrongFormat
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.findings import Finding
from cute_logger.storage.log_scan import LogScan, Part, PlacedBatch
from cute_logger.storage.stopped_folder import StoppedFolder
from cute_logger.storage.wal_frame import FRAME_HEADER_SIZE
from cute_logger.storage.wal_scan import PlacedFrame, WalScan
from support.data_folders import contents, copied, facts_of, flip

STEP = 211
SEALED = "streams/0000000002/00000000000000000112"
ACTIVE = "streams/0000000002/00000000000000000222"


def verify(folder: Path) -> tuple[list[Finding], list[Finding], Verification]:
    """Return damages and remarks."""
    with StoppedFolder.open(str(folder)) as stopped:
        verification = Verification(stopped)
        findings = list(verification.run())
    damages = [each for each in findings if each.is_damage]
    return damages, [each for each in findings if not each.is_damage], verification


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return copied("v1-clean", tmp_path)


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    return copied("v1-torn", tmp_path)


def test_a_clean_stop_leaves_nothing_to_say(clean: Path) -> None:
    before = contents(clean)
    damages, remarks, verification = verify(clean)
    assert (damages, remarks) == ([], [])
    orders = next(s for s in facts_of("v1-clean")["streams"] if s["name"] == "orders")
    kept_from = int(SEALED[-20:])
    assert verification.tally.records == orders["high_watermark"] - kept_from
    assert verification.tally.bytes == verification.bytes_total
    assert contents(clean) == before


def test_a_kill_leaves_remarks_but_no_damage(torn: Path) -> None:
    before = contents(torn)
    damages, remarks, _ = verify(torn)
    assert damages == []
    torn_end, behind = remarks
    assert "torn end" in torn_end.reason
    assert "behind the checkpoint" in behind.reason
    assert contents(torn) == before


def test_it_may_be_a_copy_without_a_lock(clean: Path) -> None:
    (clean / "lock").unlink()
    assert verify(clean)[:2] == ([], [])
    assert not (clean / "lock").exists()


@pytest.mark.parametrize("name", ["checkpoint", "node", "format", f"{SEALED}.log", f"{ACTIVE}.log"])
def test_every_flipped_bit_is_damage_at_its_place(clean: Path, name: str) -> None:
    path = clean / name
    step = STEP if path.stat().st_size > 200 else 1
    for position in range(0, path.stat().st_size, step):
        flip(path, position)
        damages, _, _ = verify(clean)
        assert damages[0].path == str(path)
        assert damages[0].position <= position
        if name.endswith(".log"):
            assert damages[0].offset is not None
        flip(path, position)


def test_every_flipped_bit_of_the_log_is_damage_or_a_torn_end(clean: Path) -> None:
    covered: list[tuple[str, int, int, bool]] = []
    for seen in WalScan(OS_FILES, str(clean / "wal")).run():
        assert isinstance(seen, PlacedFrame)
        end = seen.position + FRAME_HEADER_SIZE + len(seen.frame.payload)
        covered.append((seen.path, seen.position, end, True))
    newest = covered[-1][0]
    last_position = covered[-1][1]
    for path, start, end, _ in covered[::3] + covered[-3:]:
        for position in {start, start + 17, end - 1}:
            flip(Path(path), position)
            damages, remarks, _ = verify(clean)
            found = (damages + remarks)[0]
            assert (found.path, found.position) == (path, start)
            if (path, start) != (newest, last_position):
                assert found.is_damage
            flip(Path(path), position)


def test_every_flipped_bit_of_a_sealed_index_is_damage(clean: Path) -> None:
    path = clean / f"{SEALED}.index"
    for position in range(path.stat().st_size):
        for bit in range(8):
            flip(path, position, bit)
            damages, _, _ = verify(clean)
            assert [each.path for each in damages] == [str(path)]
            flip(path, position, bit)


def test_the_active_index_may_be_anything(clean: Path) -> None:
    path = clean / f"{ACTIVE}.index"
    path.write_bytes(b"\x01" * 24)
    damages, remarks, _ = verify(clean)
    assert damages == []
    assert [each.path for each in remarks] == [str(path)]
    for each in clean.rglob("*.index"):
        each.unlink()
    assert verify(clean)[:2] == ([], []), "an index that is missing is made anew"


@pytest.mark.parametrize("name", [f"{SEALED}.log", f"{ACTIVE}.log"])
def test_a_segment_that_is_short_or_missing_is_damage(clean: Path, name: str) -> None:
    path = clean / name
    size = path.stat().st_size
    os.truncate(path, size - 10)
    damages, _, _ = verify(clean)
    assert damages[0].path == str(path)
    assert damages[0].position < size - 10
    path.unlink()
    damages, _, _ = verify(clean)
    assert (damages[0].path, damages[0].position) == (str(path), 0)


def test_another_streams_segment_does_not_pass(clean: Path, torn: Path) -> None:
    """Each batch is sound by itself; only the chain, or its end, tells."""
    theirs = (torn / f"{SEALED}.log").read_bytes()
    (clean / f"{SEALED}.log").write_bytes(theirs)
    damages, _, _ = verify(clean)
    assert damages[0].path.startswith(str(clean / "streams/0000000002"))
    assert "chain" in damages[0].reason


def test_missing_entries_are_damage(torn: Path) -> None:
    (torn / "wal" / f"{2:020d}.wal").unlink()
    damages, remarks, _ = verify(torn)
    assert "are missing" in damages[0].reason
    assert damages[0].index is not None
    assert "files before this one are missing" in remarks[0].reason


def test_a_log_that_begins_later_is_none_if_the_checkpoint_covers_the_rest(clean: Path) -> None:
    (clean / "wal" / f"{1:020d}.wal").unlink()
    assert verify(clean)[:2] == ([], [])
    for path in (clean / "wal").iterdir():
        path.unlink()
    assert [each.reason for each in verify(clean)[0]] == ["the write-ahead log is missing"]


def test_a_sealed_log_file_that_is_short_is_damage(clean: Path) -> None:
    path = clean / "wal" / f"{1:020d}.wal"
    os.truncate(path, path.stat().st_size - 40)
    damages, _, _ = verify(clean)
    assert damages[0].path == str(path)


def test_a_damaged_checkpoint_does_not_blame_the_streams(clean: Path) -> None:
    flip(clean / "checkpoint", 30)
    damages, remarks, _ = verify(clean)
    assert [each.path for each in damages] == [str(clean / "checkpoint")]
    assert "only the checkpoint could say" in remarks[0].reason


def test_what_was_set_aside_is_told(clean: Path) -> None:
    (clean / "wal.damaged").mkdir()
    assert [each.path for each in verify(clean)[1]] == [str(clean / "wal.damaged")]


def test_another_format_is_refused(clean: Path) -> None:
    (clean / "node").unlink()
    (clean / "format").write_bytes(b"cute-logger 9\n")
    with pytest.raises(WrongFormat, match="cute-logger 9"):
        verify(clean)


class TestStaged:
    """Another node's snapshot, on its way in."""

    @pytest.fixture
    def fetched(self, clean: Path, tmp_path: Path) -> Path:
        """A new node that has fetched everything, and not committed it."""
        with DataFolder.open(str(tmp_path / "n2"), "n2") as folder:
            Wal.open(folder.wal_folder).close()
            staging = Staging(OS_FILES, folder)
            staging.begin()
            staging.write_checkpoint(0, (clean / "checkpoint").read_bytes())
            for piece in plan(log_states(staging.checkpoint_sections()), {}):
                store = (
                    clean / "streams" / f"{piece.stream_id:010d}" / f"{piece.base_offset:020d}.log"
                )
                staging.write_piece(piece, 0, store.read_bytes())
        return tmp_path / "n2"

    def commit(self, path: Path) -> None:
        with DataFolder.open(str(path), "n2") as folder:
            staging = Staging(OS_FILES, folder)
            for path in staging.doubtful():
                staging.settle(path, PIECE_BYTES)
            staging.commit(plan(log_states(staging.checkpoint_sections()), {}), {})

    def pieces(self, path: Path) -> list[Path]:
        return sorted(path.rglob("*.piece"))

    def test_before_the_commit_nothing_is_promised(self, fetched: Path) -> None:
        os.truncate(self.pieces(fetched)[1], 4000)
        flip(self.pieces(fetched)[0], 5000)
        damages, remarks, _ = verify(fetched)
        assert damages == []
        assert "its checkpoint is complete" in remarks[0].reason
        assert [each.path for each in remarks[1:]] == [str(p) for p in self.pieces(fetched)]
        assert all(0 < each.position <= 5000 for each in remarks[1:])

    def test_after_the_commit_it_counts_as_in_place(self, fetched: Path) -> None:
        self.commit(fetched)
        damages, remarks, verification = verify(fetched)
        assert damages == []
        assert "the next start puts it in place" in remarks[0].reason
        assert verification.tally.batches == 60
        for piece in self.pieces(fetched):
            flip(piece, 3000)
            damages, _, _ = verify(fetched)
            assert damages[0].path == str(piece)
            flip(piece, 3000)
        flip(fetched / "checkpoint.fetched", 20)
        assert verify(fetched)[0][0].path == str(fetched / "checkpoint.fetched")

    def test_a_piece_goes_on_where_the_segment_here_ends(self, fetched: Path) -> None:
        self.commit(fetched)
        piece = self.pieces(fetched)[0]
        data = piece.read_bytes()
        batches = list(LogScan(OS_FILES).segment(112, [Part(str(piece), 0, len(data))], vouched=0))
        middle = batches[10]
        assert isinstance(middle, PlacedBatch)
        store = piece.parent / f"{112:020d}.log"
        store.write_bytes(data[: middle.position])
        rest = piece.parent / f"{112:020d}-{middle.position:020d}.piece"
        rest.write_bytes(data[middle.position :])
        piece.unlink()
        assert verify(fetched)[0] == []
        flip(rest, 500)
        assert verify(fetched)[0][0].path == str(rest)
