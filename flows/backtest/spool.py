"""SecondStats of a range in a temporary file: read from Kafka once, run over as often as a sweep needs."""

import marshal
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zstandard import ZstdCompressor, ZstdDecompressor

from flows.backtest.engine import by_second
from flows.backtest.errors import NothingToTest
from flows.domain.second_stat import SecondStat

BLOCK = 4096  # SecondStats
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Spool:
    """The file, with what is in it: `symbols` sorted, `stats` SecondStats in `seconds` seconds."""

    path: Path
    symbols: tuple[str, ...]
    stats: int
    seconds: int

    @classmethod
    def write(cls, path: Path, stats: Iterable[SecondStat], symbols: Collection[str] = ()) -> "Spool":
        """Take all of them, or those of some symbols. Raises NothingToTest, and BacktestError for a wrong order."""
        wanted, found, total, seconds = frozenset(symbols), set[str](), 0, 0
        compressor = ZstdCompressor(level=1)

        def chosen() -> Iterator[tuple[int | str, ...]]:
            nonlocal total, seconds
            for _, group in by_second(stats):
                kept = [stat for stat in group if stat.symbol in wanted] if wanted else group
                if kept:
                    found.update(stat.symbol for stat in kept)
                    total += len(kept)
                    seconds += 1
                    yield from map(tuple, kept)

        with path.open("wb") as file:
            rows = chosen()
            while block := list(islice(rows, BLOCK)):
                packed = compressor.compress(marshal.dumps(block))
                file.write(_LENGTH.pack(len(packed)) + packed)
        if missing := wanted - found:
            raise NothingToTest(f"no seconds of {', '.join(sorted(missing))} in the range")
        if not found:
            raise NothingToTest("there is not one second with trades in the range")
        return cls(path, tuple(sorted(found)), total, seconds)

    def read(self) -> Iterator[tuple[int, list[SecondStat]]]:
        """Each second in turn."""
        return by_second(self._stats())

    def _stats(self) -> Iterator[SecondStat]:
        decompressor = ZstdDecompressor()
        with self.path.open("rb") as file:
            while length := file.read(_LENGTH.size):
                block = decompressor.decompress(file.read(*_LENGTH.unpack(length)))
                yield from map(SecondStat._make, marshal.loads(block))  # noqa: S302 - our own file


Progress = Callable[[int], object]  # called with how many seconds are done
