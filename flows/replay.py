"""SecondStats of any range of the raw log once more: the same seconds, byte for byte, as live published them.

replay = Replay("127.0.0.1:9092", "btc-2024", parse_bound("2024-08-09T00:00:00Z"), parse_bound("1723162200000"))
for stat in replay.seconds():   # SecondStats, final, in (timestamp, symbol) order
    ...
replay.manifest()               # what was read and what came out, as a dict for JSON
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.domain.errors import InvalidRange
from flows.domain.second_stat import SecondStat
from flows.replay_partition import PartitionReplay
from flows.replay_range import Bound, Offsets, ReplayRange, parse_bound, resolve

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

__all__ = ["Bound", "Progress", "Replay", "ReplaySettings", "main", "parse_bound"]

_FORMAT = 1
_CORE = ("domain", "runs.py", "run_scan.py", "records.py", "replay.py", "replay_partition.py", "replay_range.py")


@dataclass(frozen=True)
class ReplaySettings:
    """The settings that decide about bytes; live's are ALLOWED_LATENESS_MS and REVISION_HORIZON."""

    allowed_lateness_ms: int = 200
    revision_horizon_ms: int = 30 * 60 * 1000


@dataclass(frozen=True)
class Progress:
    """Records read, of about how many, and the event time in ms up to which all partitions were read (0: unknown)."""

    records: int
    expected: int
    watermark_ms: int
    seconds: int


class Replay:
    """One pass over a range of a topic of raw aggTrades, in memory that does not grow with the range.

    `start` and `end` (exclusive) are what `parse_bound` gives: epoch ms, {partition: offset}, or None for all there is.
    With `until`, the ends of an earlier pass, it is that pass once more, however far the log has grown since.
    The constructor looks the range up in Kafka; it raises NoTopic, InvalidRange (empty, or nothing there), OutOfRange
    (out of retention, with the earliest there is), all TrackerErrors, and confluent_kafka's KafkaException.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        start: Bound = None,
        end: Bound = None,
        settings: ReplaySettings | None = None,
        until: Offsets | None = None,
    ) -> None:
        self.settings = settings or ReplaySettings()
        self.range = resolve(bootstrap_servers, topic, start, end, self.settings.revision_horizon_ms, until)
        self._asked = {"from": start, "to": end}
        self._parts: list[PartitionReplay] = []
        self._bootstrap_servers = bootstrap_servers
        self._summary = Summary(self.range, self._asked, self.settings)

    def seconds(self) -> Iterator[SecondStat]:
        """Each second wholly inside the range, final, in (timestamp, symbol) order; to be called once.

        A SecondStat is a NamedTuple of a symbol and integers: times in ms, prices and base volumes in 1e-8 units,
        quote volumes in 1e-16. Raises InvalidRange at the end if there was not one second, NoTopic, OutOfRange and
        KafkaException if the log goes away meanwhile.
        """
        for stats, _ in self.batches():
            yield from stats

    def batches(self) -> Iterator[tuple[list[SecondStat], bytes]]:
        """The same in batches, each with its output lines: the final state's JSON (no `revision`) and a line end.

        There is one for each chunk read, so many are empty: a place to look at `progress`.
        """
        self._parts = [self._part(number) for number in range(len(self.range.partitions))]
        try:
            given = 0
            while active := [part for part in self._parts if not part.done]:
                # The one that is furthest back goes on, so that none has to wait long for the others in memory.
                min(active, key=lambda part: part.watermark).step()
                before = min(part.final_before for part in self._parts)
                stats = self._released(before) if before > given else []
                given = max(given, before)
                yield stats, self._summary.add([stat.final_state() for stat in stats])
        finally:
            for part in self._parts:
                part.close()
        self._summary.finish(part_manifest(part) for part in self._parts)
        if not self._summary.seconds:
            raise InvalidRange(f"not one second with trades in the range of topic {self.range.topic}")

    def _part(self, number: int) -> PartitionReplay:
        settings = self.settings
        return PartitionReplay(
            self._bootstrap_servers, self.range, self.range.partitions[number],
            settings.allowed_lateness_ms, settings.revision_horizon_ms,
        )  # fmt: skip

    def _released(self, before: int) -> list[SecondStat]:
        stats = [stat for part in self._parts for stat in part.release(before)]
        stats.sort(key=_order)
        return stats

    def progress(self) -> Progress:
        """How far it is; cheap."""
        parts = self._parts
        return Progress(
            sum(part.offset - part.part.start for part in parts),
            sum(one.likely_end - one.start for one in self.range.partitions),
            min((part.watermark for part in parts if not part.done), default=0),
            self._summary.seconds,
        )

    def manifest(self) -> dict[str, Any]:
        """What was read and what came out, once `seconds` or `batches` is exhausted; the same each time.

        Keys: topic, from, to (as asked: epoch ms, {partition: offset} or null), partitions ({partition: {start, end,
        records, trades, duplicates, invalid_rows, late, rejected}}, offsets half-open), records, trades, seconds,
        version, code (digest of the deciding sources), settings, sha256 (of the output lines).
        """
        return self._summary.manifest()


def _order(stat: SecondStat) -> tuple[int, str]:
    return stat.timestamp, stat.symbol


def part_manifest(part: PartitionReplay) -> tuple[int, dict[str, int]]:
    """A partition's number, and its part of the manifest."""
    start = part.part.start
    return part.part.partition, {"start": start, "end": part.offset, "records": part.records, **part.counts}


class Summary:
    """The manifest in the making: output lines are counted and hashed as they come, in order."""

    def __init__(self, whole: ReplayRange, asked: dict[str, Any], settings: ReplaySettings) -> None:
        self._range, self._asked, self._settings = whole, asked, settings
        self._sha256 = hashlib.sha256()
        self._parts: dict[int, dict[str, int]] | None = None
        self.seconds = 0

    def add(self, states: list[bytes]) -> bytes:
        """Take final states; gives their output lines."""
        lines = b"\n".join([*states, b""]) if states else b""
        self._sha256.update(lines)
        self.seconds += len(states)
        return lines

    def finish(self, parts: Iterator[tuple[int, dict[str, int]]]) -> None:
        """Take what the partitions counted, at the end."""
        self._parts = dict(sorted(parts))

    def manifest(self) -> dict[str, Any]:
        """See `Replay.manifest`. Raises RuntimeError before the end."""
        if self._parts is None:
            raise RuntimeError("the manifest is known when the replay is exhausted")
        totals = {name: sum(part[name] for part in self._parts.values()) for name in ("records", "trades")}
        return {
            "format": _FORMAT,
            "topic": self._range.topic,
            **{name: _json_bound(bound) for name, bound in self._asked.items()},
            "partitions": {str(number): part for number, part in self._parts.items()},
            **totals,
            "seconds": self.seconds,
            "version": metadata.version("crypto-asset-tracker"),
            "code": code_version(),
            "settings": {
                "allowed_lateness_ms": self._settings.allowed_lateness_ms,
                "revision_horizon_ms": self._settings.revision_horizon_ms,
            },
            "sha256": self._sha256.hexdigest(),
        }


def _json_bound(bound: Bound) -> Any:
    return {str(p): offset for p, offset in sorted(bound.items())} if isinstance(bound, dict) else bound


@cache
def code_version() -> str:
    """A digest of the sources that decide about bytes: two manifests with the same one come from the same code."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _CORE:
        for file in sorted((here / name).glob("*.py")) if (here / name).is_dir() else [here / name]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def main(
    topic: str, out: str, *, start: str | int | None = None, end: str | int | None = None, brokers: str | None = None
) -> "Dataflow":
    """The replay as a dataflow, for `bytewax.run`: writes `out`, and its manifest to `out`.manifest.json.

    `start` and `end` as `parse_bound` reads them; brokers and settings are the environment's. It needs no recovery
    directory: a run that ended early is begun again.
    """
    from flows.replay_flow import environment, flow_over  # noqa: PLC0415 - a Replay needs neither Bytewax nor settings

    bootstrap_servers, settings = environment(brokers)
    bounds = [None if bound is None else parse_bound(str(bound)) for bound in (start, end)]
    return flow_over(bootstrap_servers, topic, (bounds[0], bounds[1]), settings, Path(out))
