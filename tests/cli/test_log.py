from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cute_logger.node.cli.main import run
from cute_logger.storage import DataFolder
from support.data_folders import COMMITTED, contents, copied, facts_of, flip

SEGMENT = "streams/0000000002/00000000000000000112.log"


def cute(*words: str) -> int:
    try:
        return run(["log", *words])
    except SystemExit as end:
        return int(end.code or 0)


def dumped(capsys: pytest.CaptureFixture[str], *words: str) -> list[Any]:
    assert cute("dump", *words, "--json") == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", sorted(path.stem for path in COMMITTED.glob("v*.json")))
def test_the_folders_of_every_version_are_sound(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(COMMITTED / name)
    assert cute("verify", str(COMMITTED / name)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "sound"
    assert "MB/s" in lines[-2]
    assert cute("verify", "--json", str(COMMITTED / name)) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["damaged"], said["damages"]) == (False, [])
    assert contents(COMMITTED / name) == before


def test_the_first_damage_is_named_by_file_position_and_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied("v1-clean", tmp_path)
    flip(folder / SEGMENT, 5000)
    assert cute("verify", str(folder)) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "1 damaged; the first: " in last
    assert f"{folder / SEGMENT}, byte 4" in last
    assert ", offset 1" in last
    assert cute("verify", "--json", str(folder)) == 1
    (damage,) = json.loads(capsys.readouterr().out)["damages"]
    assert damage["file"] == str(folder / SEGMENT)
    assert 4000 < damage["position"] <= 5000
    assert 112 < damage["offset"] < 222
    assert cute("dump", str(folder)) == 1
    assert "\tdamage\t" in capsys.readouterr().out


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("v1-clean", tmp_path)
    with DataFolder.open(str(folder), "n1"):
        assert cute("verify", str(folder)) == 1
        assert cute("dump", str(folder)) == 1
    assert "is in use: stop the node first" in capsys.readouterr().err
    assert cute("verify", str(folder)) == 0


def test_what_is_no_data_folder_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cute("verify", str(tmp_path / "empty")) == 1
    assert "this is no data folder" in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []
    copied("v1-clean", tmp_path)
    assert cute("dump", str(tmp_path)) == 1
    assert "but holds some: v1-clean" in capsys.readouterr().err
    assert cute("verify", str(tmp_path / "nowhere")) == 2


def test_a_dump_shows_every_entry_batch_and_section(capsys: pytest.CaptureFixture[str]) -> None:
    rows = dumped(capsys, str(COMMITTED / "v1-torn"))
    indexes = [row["index"] for row in rows if row["kind"] == "entry"]
    assert indexes == list(range(1, facts_of("v1-torn")["applied_index"] + 1))
    commands = [each for row in rows for each in row.get("commands", []) if "command" in each]
    assert {"append_batch", "create_stream", "delete_stream", "alter_stream", "trim_stream"} <= {
        each["command"] for each in commands if isinstance(each, dict)
    }
    batches = [row for row in rows if row["kind"] == "batch" and row["stream"] == "orders"]
    assert [row["end_offset"] for row in batches][:-1] == [row["offset"] for row in batches][1:]
    assert {row["codec"] for row in batches} == {"none"}
    assert any(row["is_durable"] for row in batches)
    assert not all(row["is_durable"] for row in batches)
    assert {"mark", "meta", "stream_row", "key_rows", "producer_rows", "segment"} <= {
        row["kind"] for row in rows
    }
    assert [row["kind"] for row in rows if "reason" in row] == ["remark", "remark"]


def test_what_is_dumped_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    clean = str(COMMITTED / "v1-clean")
    entries = dumped(capsys, clean, "--wal", "--from", "10", "--to", "13")
    assert [row["index"] for row in entries] == [10, 11, 12]
    batches = dumped(capsys, clean, "--stream", "orders", "--from", "224", "--to", "230")
    assert {row["kind"] for row in batches} == {"batch"}
    assert batches[0]["offset"] <= 224 < batches[0]["end_offset"]
    assert batches[-1]["offset"] < 230 <= batches[-1]["end_offset"]
    assert dumped(capsys, clean, "--stream", "2", "--from", "224", "--to", "230") == batches
    sections = dumped(capsys, clean, "--checkpoint")
    assert {row["file"] for row in sections} == {"checkpoint"}
    assert sections[0]["applied_index"] == facts_of("v1-clean")["applied_index"]


def test_a_choice_that_means_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    clean = str(COMMITTED / "v1-clean")
    assert cute("dump", clean, "--from", "10") == 2
    assert cute("dump", clean, "--stream", "nobody") == 1
    assert "there is no stream nobody; there are: orders, empty" in capsys.readouterr().err


def test_without_json_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cute("dump", str(COMMITTED / "v1-clean"), "--wal", "--from", "1", "--to", "2") == 0
    place = f"wal/{1:020d}.wal\t104\tentry\t"
    assert capsys.readouterr().out == f'{place}index=1 term=1 size=48 commands=["no-op"]\n'
