from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cute_logger.storage.errors import FolderLocked, WrongFormat
from cute_logger.storage.folder import DataFolder

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
    about = {"id": "node-1", "incarnation": incarnation, "cluster_id": "c1"}
    assert json.loads((path / "node").read_text()) == about
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
        (tmp_path / "format").write_text("cute-logger 2\n")
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

    @pytest.mark.parametrize("node", [None, "", "[]", '{"id": 3}', "[" * 3000, "\udcff"])
    def test_a_folder_that_does_not_say_whose_it_is(self, tmp_path: Path, node: str | None) -> None:
        DataFolder.open(str(tmp_path), "a").close()
        (tmp_path / "node").unlink()
        if node is not None:
            (tmp_path / "node").write_text(node, errors="surrogateescape")
        assert "does not say whose it is" in self.refused(tmp_path)


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
