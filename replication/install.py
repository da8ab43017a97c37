"""A snapshot on its way in: staged, verified, and put in place by one rename.

A node that is too far behind for the log gets another node's checkpoint and the bytes of the
streams' segments that it lacks; replicas are equal byte for byte, so what it has it keeps.

    checkpoint.fetching                     the other node's checkpoint while the rest is fetched
    streams/<stream>/<base>-<start>.piece   bytes of that segment from position `start` on
    streams/<stream>/<base>-<generation>-<start>.piece        … of one that compaction made
    checkpoint.fetched                      the same checkpoint: everything verified and durable

The rename to `checkpoint.fetched` decides that the next start installs it. Everything after it is
repeated at the next start if the process dies in between: pieces go to their segments, then the
checkpoint replaces this node's own. Only this process can still take the name back, if it turned to
another snapshot, or back to the log, while this one was being verified. The write-ahead log ends
before the new checkpoint, so it begins anew. Nothing is moved from one folder to another: whether
such a move is one step after a power loss, file systems differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..storage import checkpoint
from ..storage.batch import CHAIN_START
from ..storage.errors import CorruptBatch, Damaged, StorageError
from ..storage.filesystem import FileSystem, write_again
from ..storage.folder import DataFolder
from ..storage.log import LogState
from ..storage.log_state import Compacted
from ..storage.names import SegmentName, parse_stem, stem, store_path
from ..storage.store import Store

FETCHING = ".fetching"
FETCHED = ".fetched"
PIECE_SUFFIX = ".piece"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of one segment that this node lacks."""

    stream_id: int
    base_offset: int
    start: int
    end: int
    generation: int = 0
    seam: Compacted | None = None
    """Of a segment that compaction made."""

    @property
    def name(self) -> str:
        return f"{stem(self.base_offset, self.generation)}-{self.start:020d}{PIECE_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Held:
    """How far this node's own log of a stream reaches."""

    state: LogState
    digest: bytes
    """Of its newest batch."""
    links: Mapping[int, bytes] = field(default_factory=dict)
    """What the batches at some offsets, where segments end that are kept, have to carry."""

    @property
    def newest(self) -> bytes | None:
        """The digest; None if it is unknown, because that batch is damaged."""
        is_known = self.digest != CHAIN_START or not self.state.log_end_offset
        return self.digest if is_known else None


class BadSnapshot(StorageError):
    """What was fetched is not what the checkpoint says, or does not continue what is here."""


class Staging:
    """What was fetched so far. Everything blocks and runs on the streams lane."""

    def __init__(self, files: FileSystem, folder: DataFolder) -> None:
        self._files = files
        self._folder = folder
        self._fetching = checkpoint.path_in(folder.path) + FETCHING
        self._fetched = checkpoint.path_in(folder.path) + FETCHED
        self._sure: set[str] = set()
        """Pieces of which this process knows that they are durable, as far as they go."""

    def begin(self) -> None:
        """Make room for another node's checkpoint; pieces fetched before are kept."""
        if self._files.exists(self._fetched):
            # Its pieces are about to become another snapshot's, or nobody's.
            self._files.remove(self._fetched)
            self._files.sync_folder(self._folder.path)
        if self._files.exists(self._fetching):
            self._files.remove(self._fetching)

    def write_checkpoint(self, position: int, data: bytes) -> None:
        self._write(self._fetching, position, data)

    def checkpoint_sections(self) -> list[bytes]:
        """The sections fetched; raises BadSnapshot."""
        try:
            return checkpoint.read(self._files, self._fetching)
        except (Damaged, FileNotFoundError) as error:
            raise BadSnapshot(str(error)) from error

    def _path(self, piece: Piece) -> str:
        return f"{self._folder.stream_folder(piece.stream_id)}/{piece.name}"

    def staged_bytes(self, piece: Piece) -> int:
        """How much of `piece` is here from an earlier attempt."""
        path = self._path(piece)
        if not self._files.exists(path):
            return 0
        file = self._files.open(path)
        try:
            return min(file.size(), piece.end - piece.start)
        finally:
            file.close()

    def doubtful(self) -> list[str]:
        """The pieces here that an earlier process has written: `settle` them before anything is
        written behind them.
        """
        return [path for path in _pieces(self._files, self._folder) if path not in self._sure]

    def settle(self, path: str, length: int) -> None:
        """Make a piece of an earlier process durable, which wrote up to `length` bytes at a time.

        Its last write it may have been unable to sync: that is written again. All before that was
        synced, or the process would have written no more.
        """
        if not self._files.exists(path):
            return  # it was discarded
        file = self._files.open(path)
        try:
            size = file.size()
            write_again(file, max(0, size - length), size)
            file.sync()
        finally:
            file.close()
        self._sure.add(path)

    def write_piece(self, piece: Piece, position: int, data: bytes) -> None:
        """Write bytes of the segment at `position` (counted in the segment), durably.

        Synced as they come, not all at the end: the disk takes gigabytes in one go before it takes
        anybody's next fsync.
        """
        path = self._path(piece)
        self._files.make_folder(self._folder.stream_folder(piece.stream_id))
        self._write(path, position - piece.start, data, syncs=True)
        self._sure.add(path)

    def _write(self, path: str, position: int, data: bytes, *, syncs: bool = False) -> None:
        file = self._files.open(path, create=not self._files.exists(path))
        try:
            file.write_at(position, [data])
            if syncs:
                file.sync()
        finally:
            file.close()

    def discard(self) -> None:
        """Forget everything fetched."""
        self.begin()
        for path in _pieces(self._files, self._folder):
            self._files.remove(path)

    def commit(self, pieces: Sequence[Piece], held: Mapping[int, Held]) -> None:
        """Verify every piece, make all of it durable, and let the next start install it.

        Raises BadSnapshot, with everything fetched discarded, or OSError.
        """
        try:
            self._verify(pieces, held)
        except BadSnapshot:
            self.discard()
            raise
        self._remove_others(pieces)
        for stream_id in {piece.stream_id for piece in pieces}:
            self._files.sync_folder(self._folder.stream_folder(stream_id))
        self._files.sync_folder(self._folder.streams_folder)
        self._sync(self._fetching)
        self._files.rename(self._fetching, self._fetched)
        self._files.sync_folder(self._folder.path)

    def _remove_others(self, pieces: Sequence[Piece]) -> None:
        """Remove what an earlier fetch left and this one does not want: it is not verified, and
        would take the place of what is here.
        """
        wanted = {self._path(piece) for piece in pieces}
        for path in _pieces(self._files, self._folder):
            if path not in wanted:
                self._files.remove(path)
                self._files.sync_folder(path.rpartition("/")[0])

    def _verify(self, pieces: Sequence[Piece], held: Mapping[int, Held]) -> None:
        """Walk the pieces of each stream in order: checksums, offsets, and the chain of digests."""
        stream_id, due = -1, -1
        chain: bytes | None = None
        for piece in pieces:
            if piece.stream_id != stream_id or piece.start or piece.base_offset != due:
                stream_id = piece.stream_id
                chain, due = _joint(piece, held.get(stream_id))
            chain, due = self._verify_piece(piece, chain, due)

    def _verify_piece(self, piece: Piece, chain: bytes | None, due: int) -> tuple[bytes, int]:
        """Returns what the batch behind has to carry, and its offset."""
        path = self._path(piece)
        assert path in self._sure, "nobody has settled it"
        store = Store.open(self._files, path, is_durable=True)
        try:
            if store.size > piece.end - piece.start:
                store.cut(piece.end - piece.start)
            if store.size < piece.end - piece.start:
                raise BadSnapshot(f"{path}: {store.size} bytes are too few")
            for batches in store.scan(0, _COPY_BYTES):
                for batch in batches:
                    # A log that begins with a trim has no known digest before its first batch.
                    linked = chain is None or batch.chain == chain
                    if batch.base_offset != due or not linked:
                        raise BadSnapshot(f"{path}: batch {batch.base_offset} does not follow")
                    chain, due = batch.digest(), batch.next_offset
            store.sync()
        except CorruptBatch as error:
            raise BadSnapshot(str(error)) from error
        finally:
            store.close()
        assert chain is not None, "a piece is not empty"
        if piece.seam is None:
            return chain, due
        if chain != piece.seam.digest:
            raise BadSnapshot(f"{path}: not what compaction made")
        return piece.seam.bridge, due

    def _sync(self, path: str) -> None:
        file = self._files.open(path)
        try:
            file.sync()
        finally:
            file.close()


def plan(wanted: Mapping[int, LogState], held: Mapping[int, Held]) -> list[Piece]:
    """What has to be fetched so that the streams' segments are as `wanted` lists them.

    Of a segment that compaction made here and not there, or there and not here, nothing is kept.
    """
    pieces = []
    for stream_id, state in sorted(wanted.items()):
        here = _sizes(held[stream_id].state) if stream_id in held else {}
        newest = max(here, default=None)
        seams = {each.base_offset: each for each in state.compacted}
        for name, size in _sizes(state).items():
            start = here.get(name, 0)
            if start > size or (start < size and name != newest):
                start = 0
            if start < size:
                base_offset, generation = name
                seam = seams.get(base_offset)
                pieces.append(Piece(stream_id, base_offset, start, size, generation, seam))
    return pieces


def kept_ends(wanted: LogState, held: LogState) -> list[int]:
    """Where segments end that are kept, and the next one is to be fetched."""
    here, ends, is_kept = _sizes(held), list[int](), False
    for name, size in _sizes(wanted).items():
        is_next_kept = here.get(name) == size
        if is_kept and not is_next_kept:
            ends.append(name.base_offset)
        is_kept = is_next_kept
    return ends


def _sizes(state: LogState) -> dict[SegmentName, int]:
    sizes = (size for _, size in state.segments)
    return dict(zip(state.names(), sizes, strict=True))


def _joint(piece: Piece, held: Held | None) -> tuple[bytes | None, int]:
    """What a stream's piece behind none, or behind kept segments, has to follow: digest, offset."""
    if held is not None and piece.start:
        return held.newest, held.state.log_end_offset
    if held is not None and piece.base_offset in held.links:
        return held.links[piece.base_offset], piece.base_offset
    if held is not None and held.state.log_end_offset == piece.base_offset:
        return held.newest, piece.base_offset
    return CHAIN_START if piece.base_offset == 0 else None, piece.base_offset


def is_fetching(files: FileSystem, folder: DataFolder) -> bool:
    """Was a fetch interrupted, whose pieces are of use when it goes on?"""
    return files.exists(checkpoint.path_in(folder.path) + FETCHING)


def finish_install(files: FileSystem, folder: DataFolder) -> None:
    """Put a committed snapshot in place, before anything else is opened."""
    fetched = checkpoint.path_in(folder.path) + FETCHED
    if not files.exists(fetched):
        return
    for path in _pieces(files, folder):
        _place(files, path)
    for stream in files.listdir(folder.streams_folder):
        # Also what a start before this one, cut short, has put in its place.
        files.sync_folder(f"{folder.streams_folder}/{stream}")
    files.rename(fetched, checkpoint.path_in(folder.path))
    files.sync_folder(folder.path)


def _pieces(files: FileSystem, folder: DataFolder) -> Iterator[str]:
    for stream in files.listdir(folder.streams_folder):
        path = f"{folder.streams_folder}/{stream}"
        for name in files.listdir(path):
            if name.endswith(PIECE_SUFFIX):
                yield f"{path}/{name}"


def piece_place(name: str) -> tuple[SegmentName, int]:
    """The segment, and where in it the piece with that name begins."""
    segment, _, start = name.removesuffix(PIECE_SUFFIX).rpartition("-")
    parsed = parse_stem(segment)
    assert parsed is not None, f"a piece without a segment: {name}"
    return parsed, int(start)


def _place(files: FileSystem, path: str) -> None:
    """Make a piece part of its segment; may be repeated after a crash."""
    stream_folder, _, name = path.rpartition("/")
    segment, start = piece_place(name)
    target = store_path(stream_folder, *segment)
    if start == 0:
        files.rename(path, target)
    else:
        _append(files, path, target, start)
        files.remove(path)


def _append(files: FileSystem, piece: str, target: str, start: int) -> None:
    source, file = files.open(piece), files.open(target)
    try:
        position = 0
        while data := source.read_at(position, _COPY_BYTES):
            file.write_at(start + position, [data])
            position += len(data)
        file.sync()
    finally:
        source.close()
        file.close()
