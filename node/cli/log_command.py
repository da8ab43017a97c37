"""`cute log`: what is in a stopped node's files, and whether it is sound."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ...replication.dump import Dump, Row, Selection, UnknownName
from ...replication.verification import Verification
from ...storage.errors import FolderLocked, StorageError
from ...storage.findings import Finding
from ...storage.stopped_folder import StoppedFolder
from .connect import json_option
from .output import byte_progress, print_json

FINDINGS_LISTED = 100
"""In JSON; further ones are counted."""

_folder_argument = click.argument(
    "path", metavar="DIR", type=click.Path(exists=True, file_okay=False)
)


@click.group(epilog="Example: cute log verify cute-data/n1")
def log() -> None:
    """Look into the data folder of a stopped node; nothing is changed."""


@log.command(
    epilog="Examples: cute log dump cute-data/n1 --wal --from 100        "
    "cute log dump cute-data/n1 --stream orders --json"
)
@_folder_argument
@click.option("--wal", is_flag=True, help="Only the write-ahead log's frames.")
@click.option("streams", "--stream", metavar="NAME", multiple=True, help="Only its batches.")
@click.option("--checkpoint", is_flag=True, help="Only the checkpoint's sections.")
@click.option(
    "start",
    "--from",
    type=click.IntRange(0),
    default=0,
    help="With --wal the first Raft index, with --stream the first offset.",
)
@click.option("end", "--to", type=click.IntRange(0), help="Where to stop, exclusive.")
@json_option
def dump(
    path: str,
    wal: bool,
    streams: tuple[str, ...],
    checkpoint: bool,
    start: int,
    end: int | None,
    as_json: bool,
) -> None:
    """Print what the files of the stopped node in DIR hold.

    Frames, batches and sections, in the order of the files; with --json one object per line. Exit
    status 1 if anything was damaged.
    """
    selection = Selection(wal, checkpoint, streams, start, end)
    if selection.is_range and wal == bool(streams):
        raise click.UsageError("--from and --to go with either --wal or --stream")
    is_damaged = False
    with _opened(path) as folder:
        try:
            rows = Dump(folder, selection).rows()
        except UnknownName as error:
            raise click.ClickException(str(error)) from error
        for row in rows:
            is_damaged = is_damaged or row["kind"] == "damage"
            print(json.dumps(row, ensure_ascii=False) if as_json else _line(row))
    if is_damaged:
        sys.exit(1)


@log.command(epilog="Example: cute log verify cute-data/n1")
@_folder_argument
@json_option
def verify(path: str, as_json: bool) -> None:
    """Check everything that has a checksum in the files of the stopped node in DIR.

    Exit status 1 if anything was damaged. What a crash leaves behind, such as a torn end of the
    write-ahead log, is told, but it is no damage.
    """
    started = time.monotonic()
    damages: list[Finding] = []
    remarks: list[Finding] = []
    with _opened(path) as folder, byte_progress("verifying") as bar:
        verification = Verification(folder, bar.advance)
        bar.begin(verification.bytes_total)
        for finding in verification.run():
            (damages if finding.is_damage else remarks).append(finding)
            if not as_json:
                kind = "damage" if finding.is_damage else "remark"
                bar.print(f"{kind}\t{finding.path}\t{finding.place}\t{finding.reason}")
    _print_summary(verification, damages, remarks, time.monotonic() - started, as_json=as_json)
    if damages:
        sys.exit(1)


@contextmanager
def _opened(path: str) -> Iterator[StoppedFolder]:
    try:
        with StoppedFolder.open(path) as folder:
            yield folder
    except FolderLocked as error:
        raise click.ClickException(f"{path} is in use: stop the node first") from error
    except StorageError as error:
        raise click.ClickException(str(error)) from error


def _line(row: Row) -> str:
    """Return a row as one line: its place and kind, then what it says."""
    rest = {name: value for name, value in row.items() if name not in ("file", "position", "kind")}
    words = [f"{name}={_compact(value)}" for name, value in rest.items() if value is not None]
    return "\t".join((row["file"], str(row["position"]), row["kind"], " ".join(words)))


def _compact(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _print_summary(
    verification: Verification,
    damages: list[Finding],
    remarks: list[Finding],
    seconds: float,
    *,
    as_json: bool,
) -> None:
    tally = verification.tally
    megabytes_per_s = round(tally.bytes / 1e6 / max(seconds, 1e-6), 1)
    if as_json:
        print_json(
            {
                "damaged": bool(damages),
                "damage_count": len(damages),
                "damages": [_fields(each) for each in damages[:FINDINGS_LISTED]],
                "remarks": [_fields(each) for each in remarks[:FINDINGS_LISTED]],
                "bytes": tally.bytes,
                "frames": tally.frames,
                "streams": tally.streams,
                "batches": tally.batches,
                "records": tally.records,
                "megabytes_per_s": megabytes_per_s,
            }
        )
        return
    print(
        f"{tally.frames} frames, {tally.streams} streams, {tally.batches} batches, "
        f"{tally.records} records: {tally.bytes / 1e6:.1f} MB, {megabytes_per_s} MB/s"
    )
    if damages:
        first = damages[0]
        print(f"{len(damages)} damaged; the first: {first.path}, {first.place}: {first.reason}")
    else:
        print("sound")


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "file": finding.path,
        "position": finding.position,
        "offset": finding.offset,
        "index": finding.index,
        "reason": finding.reason,
    }
