from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cute_logger.storage.errors import Damaged, FolderLocked, WrongFormat
from cute_logger.storage.folder import DataFolder, set_aside
from cute_logger.storage.node_mark import NodeMark, decode_mark, encode_mark

from .memory_files import MemoryFiles, PowerLost, keep_all, keep_nothing

HOLD = """
import sys
from cute_logger.storage.folder import DataFolder
folder = DataFolder.open(sys.argv[1], "a")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_new_folder_is_made_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with DataFolder.open(str(path), "node-1") as folder:
        assert folder.path == str(path)
        assert folder.wal_folder == f"{path}/wal"
        assert folder.streams_folder == f"{path}/streams"
        assert folder.stream_folder(42) == f"{path}/streams/0000000042"
        incarnation = folder.incarnation
        folder.keep_cluster_id("c1")
    assert (path / "format").read_text() == "cute-logger 1\n"
    mark = decode_mark((path / "node").read_bytes())
    assert mark == NodeMark(id="node-1", incarnation=incarnation, cluster_id="c1")
    with DataFolder.open(str(path), "node-1") as folder:
        assert (folder.incarnation, folder.cluster_id) == (incarnation, "c1")
    with DataFolder.open(str(tmp_path / "other"), "node-1") as folder:
        assert folder.incarnation != incarnation
        assert folder.cluster_id is None
    assert sorted(p.name for p in path.iterdir()) == ["format", "lock", "node", "streams", "wal"]


def test_it_opens_again_for_the_same_node(tmp_path: Path) -> None:
    for _ in range(2):
        DataFolder.open(str(tmp_path), "node-1").close()


def test_the_root_of_a_fresh_disk_will_do(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    DataFolder.open(str(tmp_path), "node-1").close()


def test_a_second_open_in_this_process_is_refused(tmp_path: Path) -> None:
    with DataFolder.open(str(tmp_path), "a"), pytest.raises(FolderLocked):
        DataFolder.open(str(tmp_path), "a")
    DataFolder.open(str(tmp_path), "a").close()


def test_a_second_open_in_another_process_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(FolderLocked):
            DataFolder.open(str(tmp_path), "a")
        holder.stdin.close()
        assert holder.wait(10) == 0
    DataFolder.open(str(tmp_path), "a").close()


def test_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        holder.kill()
        holder.wait(10)
    DataFolder.open(str(tmp_path), "a").close()


class TestRefused:
    def refused(self, path: Path, node_id: str = "a") -> str:
        """Return why the folder is refused, having seen that the lock is free again."""
        for _ in range(2):
            with pytest.raises(WrongFormat) as caught:
                DataFolder.open(str(path), node_id)
        return str(caught.value)

    def test_another_node(self, tmp_path: Path) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        assert 'belongs to node "a", this one is "b"' in self.refused(tmp_path, "b")

    def test_another_format(self, tmp_path: Path) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        mark = NodeMark(id="a", incarnation="1", format=2)
        (tmp_path / "node").write_bytes(encode_mark(mark))
        assert "its format is 2, this version reads 1" in self.refused(tmp_path)

    def test_another_format_that_marks_its_nodes_otherwise(self, tmp_path: Path) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "format").write_text("cute-logger 2\n")
        (tmp_path / "node").write_text("node a\n")
        text = self.refused(tmp_path)
        assert 'its format is "cute-logger 2", this version reads "cute-logger 1"' in text

    def test_files_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.doc").write_text("years of work")
        assert 'holds "thesis.doc"' in self.refused(tmp_path)
        assert not (tmp_path / "node").exists()

    def test_data_without_a_format(self, tmp_path: Path) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "format").unlink()
        assert "does not say its format" in self.refused(tmp_path)


class TestDamagedMarks:
    @pytest.mark.parametrize("node", [None, "", "[]", '{"id": 3}', "[" * 3000, "\udcff"])
    def test_a_folder_that_does_not_say_whose_it_is(self, tmp_path: Path, node: str | None) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "node").unlink()
        if node is not None:
            (tmp_path / "node").write_text(node, errors="surrogateescape")
        for _ in range(2):
            with pytest.raises(Damaged, match="does not say whose data this is"):
                DataFolder.open(str(tmp_path), "a")

    @pytest.mark.parametrize("text", ["cute-logg%r 1\n", "cute-lodger 1\n", "", "cute-logger \n"])
    def test_a_folder_of_which_both_marks_are_damaged(self, tmp_path: Path, text: str) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "node").write_text("?")
        (tmp_path / "format").write_text(text)
        with pytest.raises(Damaged, match="does not say the format"):
            DataFolder.open(str(tmp_path), "a")
        set_aside(str(tmp_path), "a")
        DataFolder.open(str(tmp_path), "a").close()
        assert (tmp_path / "format").read_text() == "cute-logger 1\n"

    def test_somebody_elses_marks_are_no_damage(self, tmp_path: Path) -> None:
        (tmp_path / "node").write_text("?")
        (tmp_path / "format").write_text("of something else")
        with pytest.raises(WrongFormat, match="of something else"):
            DataFolder.open(str(tmp_path), "a")

    def test_every_flipped_bit_of_the_mark_is_noticed(self) -> None:
        good = encode_mark(NodeMark(id="a", incarnation="0123456789abcdef", cluster_id="c"))
        for number in range(8 * len(good)):
            bad = bytearray(good)
            bad[number // 8] ^= 1 << number % 8
            with pytest.raises(ValueError, match="checksum"):
                decode_mark(bytes(bad))

    def test_a_damaged_format_is_written_anew(self, tmp_path: Path) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "format").write_text("cute-logger 9\n")
        DataFolder.open(str(tmp_path), "a").close()
        assert (tmp_path / "format").read_text() == "cute-logger 1\n"


def grown(path: Path, text: str) -> str:
    """A folder with some data; returns its incarnation."""
    with DataFolder.open(str(path), "a") as folder:
        (path / "checkpoint").write_text(text)
        (path / "wal" / "1.wal").write_text(text)
        (path / "streams" / "1").mkdir()
        (path / "streams" / "1" / "s.log").write_text(text)
        folder.keep_cluster_id("c")
        return folder.incarnation


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


class TestSetAside:
    def test_the_data_is_kept_beside_and_the_folder_is_another(self, tmp_path: Path) -> None:
        before = grown(tmp_path, "old")
        set_aside(str(tmp_path), "a")
        with DataFolder.open(str(tmp_path), "a") as folder:
            assert folder.is_repairing
            assert folder.incarnation != before
            assert folder.cluster_id == "c"
        assert not (tmp_path / "checkpoint").exists()
        assert names(tmp_path / "wal") == names(tmp_path / "streams") == []
        assert (tmp_path / "checkpoint.damaged").read_text() == "old"
        assert (tmp_path / "wal.damaged" / "1.wal").read_text() == "old"
        assert (tmp_path / "streams.damaged" / "1" / "s.log").read_text() == "old"

    def test_it_goes_when_the_repair_has_ended(self, tmp_path: Path) -> None:
        grown(tmp_path, "old")
        set_aside(str(tmp_path), "a")
        with DataFolder.open(str(tmp_path), "a") as folder:
            folder.end_repair()
        with DataFolder.open(str(tmp_path), "a") as folder:
            assert not folder.is_repairing
        assert names(tmp_path) == ["format", "lock", "node", "streams", "wal"]

    def test_what_was_fetched_in_part_does_not_replace_it(self, tmp_path: Path) -> None:
        grown(tmp_path, "old")
        set_aside(str(tmp_path), "a")
        once = grown(tmp_path, "half")
        set_aside(str(tmp_path), "a")
        with DataFolder.open(str(tmp_path), "a") as folder:
            assert folder.is_repairing
            assert folder.incarnation != once
        assert (tmp_path / "checkpoint.damaged").read_text() == "old"
        assert not (tmp_path / "checkpoint").exists()
        assert names(tmp_path / "wal") == names(tmp_path / "streams") == []

    def test_a_folder_without_a_readable_mark(self, tmp_path: Path) -> None:
        before = grown(tmp_path, "old")
        (tmp_path / "node").write_bytes(b"")
        set_aside(str(tmp_path), "a")
        with DataFolder.open(str(tmp_path), "a") as folder:
            assert folder.is_repairing
            assert folder.incarnation != before
            assert folder.cluster_id is None

    def test_another_nodes_folder_is_left_alone(self, tmp_path: Path) -> None:
        grown(tmp_path, "old")
        with pytest.raises(WrongFormat):
            set_aside(str(tmp_path), "b")
        assert (tmp_path / "checkpoint").read_text() == "old"


@pytest.mark.parametrize("choose", [keep_nothing, keep_all])
def test_a_crash_while_it_is_made_does_not_spoil_it(choose: object) -> None:
    assert callable(choose)
    for steps in range(20):
        disk = MemoryFiles()
        disk.steps_max = steps
        try:
            DataFolder.open("data", "a", disk)
        except PowerLost:
            pass
        else:
            assert steps > 8
        after = disk.crash(choose)
        DataFolder.open("data", "a", after).close()
        after = after.crash(keep_nothing)
        with pytest.raises(WrongFormat):
            DataFolder.open("data", "b", after)
