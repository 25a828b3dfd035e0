"""How the chunks of one round get from the source to the target: side by side, one by one, or all at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from appliers.applier import Applier
from appliers.batch import Chunk
from appliers.checkpoint import PlannedChunk, TableState
from appliers.errors import OrderError
from appliers.relation import Relation
from cdc.sources.source import ChunkReader, CopyRound, Source, StalePlanError

Late = dict[PlannedChunk, OrderError]
"""Chunks whose rows refer to rows that were not there, each with the target's words."""


class Lanes:
    """Copies chunks of one round, in threads of which each has a reader and an applier of its own."""

    def __init__(
        self,
        source: Source,
        applier: Applier,
        relations: Mapping[str, Relation],
        tables: Mapping[str, TableState],
        copying: CopyRound,
        beat: Callable[[], None],
        stop: Callable[[], bool],
    ) -> None:
        """`tables` are told what has been copied. Chunks that are begun are written to their end after
        `stop`."""
        self.stale: set[str] = set()
        """Tables that were rewritten since they were planned."""
        self._source = source
        self._applier = applier
        self._relations = relations
        self._tables = tables
        self._copying = copying
        self._beat = beat
        self._stop = stop
        self._lock = threading.Lock()

    def copy(self, chunks: Sequence[PlannedChunk], lanes: int) -> Late:
        """Copies chunks in so many threads at most; gives those that came too early."""
        todo = deque(chunks)
        errors: list[BaseException] = []
        late: Late = {}
        threads = [
            threading.Thread(
                target=self._lane, args=(todo, errors, late), name=f"copy-{n}", daemon=True
            )
            for n in range(min(lanes, self._applier.parallel, len(todo)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error
        return late

    def copy_together(self, late: Late) -> None:
        """Copies chunks of which none can be the first: customers that name their main contact, who
        names the customer. Raises OrderError where that is not it."""
        for error in late.values():
            if not error.may_come:
                raise error
        reader, applier = self._copying.reader(), self._applier.fork()
        try:
            for table in {c.table for c in late}:
                applier.prepare(self._relations[table], create=False)
            for each in late:
                self._clear(reader, applier, each)
            chunks = [self._read(reader, each) for each in late]
            written = applier.copy_together(chunks, str(reader.position))
            for table, rows in written.items():
                self._count(table, rows, reader)
        except StalePlanError as e:
            self.stale.add(str(e))
        finally:
            reader.close()
            applier.close()

    def _lane(self, todo: deque[PlannedChunk], errors: list[BaseException], late: Late) -> None:
        """One thread's copies, over connections of its own."""
        try:
            reader = self._copying.reader()
            applier = self._applier.fork()
            prepared: set[str] = set()
            try:
                while todo and not errors and not self._stop():
                    try:
                        chunk = todo.popleft()
                    except IndexError:
                        break
                    if chunk.table in self.stale:
                        continue
                    if chunk.table not in prepared:
                        applier.prepare(self._relations[chunk.table], create=False)
                        prepared.add(chunk.table)
                    try:
                        self._copy_chunk(reader, applier, chunk)
                    except (StalePlanError, OrderError) as e:
                        if isinstance(e, OrderError):
                            late[chunk] = e
                        else:
                            self.stale.add(chunk.table)
                        # It was in the middle of a chunk: only a new one is sure.
                        applier.close()
                        applier = self._applier.fork()
                        prepared.clear()
            finally:
                reader.close()
                applier.close()
        except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(e)

    def _copy_chunk(self, reader: ChunkReader, applier: Applier, chunk: PlannedChunk) -> None:
        self._clear(reader, applier, chunk)
        part = self._read(reader, chunk)
        self._count(chunk.table, part.counted(applier.copy(part, str(reader.position))), reader)

    def _clear(self, reader: ChunkReader, applier: Applier, chunk: PlannedChunk) -> None:
        """Before the chunk, which is struck off with its rows: a kill between them repeats both."""
        relation = self._relations[chunk.table]
        if (only := self._source.bounded_to(chunk.bounds)) is not None:
            applier.sweep(relation, reader.keys(relation, only), only, str(reader.position))

    def _read(self, reader: ChunkReader, chunk: PlannedChunk) -> Chunk:
        again = self._source.bounded_to(chunk.bounds) is not None
        blocks = self._blocks(reader, chunk)
        return Chunk(self._relations[chunk.table], chunk.number, blocks, again=again)

    def _blocks(self, reader: ChunkReader, chunk: PlannedChunk) -> Iterator[list[bytes]]:
        """Read when they are asked for: a reader reads one chunk at a time."""
        relation, plan = self._relations[chunk.table], self._tables[chunk.table].fingerprint
        yield from beating(self._beat, reader.read(relation, chunk.bounds, plan))

    def _count(self, table: str, rows: int, reader: ChunkReader) -> None:
        state = self._tables[table]
        with self._lock:
            state.rows += rows
            state.exact_at = str(reader.position)


def beating(beat: Callable[[], None], blocks: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Every block is progress."""
    for block in blocks:
        beat()
        yield block
