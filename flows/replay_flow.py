"""The replay as a dataflow: each Kafka partition is computed by the worker that has it, one sink merges their seconds.

What the sink holds is what partitions are apart in event time, so memory is flat only if they are evenly long.
"""

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flows.domain.errors import InvalidRange
from flows.replay import ReplaySettings, Summary, part_manifest
from flows.replay_partition import PartitionReplay
from flows.replay_range import Bound, ReplayRange, resolve
from infra.settings import Settings
from infra.tls import use_kafka_tls

IDLE_WAIT = timedelta(milliseconds=5)
_OUT = "out"  # the sink's only partition

State = tuple[int, str, bytes]  # timestamp, symbol, final state


@dataclass(frozen=True)
class Final:
    """Seconds of one partition that are final, in order; all of its seconds before `final_before` have been given.

    The partition's last one has its `manifest`.
    """

    partition: int
    states: list[State]
    final_before: int
    manifest: dict[str, int] | None = None


class ReplaySource(FixedPartitionedSource[tuple[str, Final], None]):
    """Items are (the sink's key, Final)."""

    def __init__(self, bootstrap_servers: str, whole: ReplayRange, settings: ReplaySettings) -> None:
        self._bootstrap_servers, self._range, self._settings = bootstrap_servers, whole, settings

    def list_parts(self) -> list[str]:
        """The Kafka partitions of the range."""
        return [str(part.partition) for part in self._range.partitions]

    def build_part(self, _step_id: str, for_part: str, _resume_state: None) -> "ReplayPart":
        """One partition, from its start."""
        part = next(part for part in self._range.partitions if str(part.partition) == for_part)
        settings = self._settings
        return ReplayPart(
            PartitionReplay(
                self._bootstrap_servers, self._range, part, settings.allowed_lateness_ms, settings.revision_horizon_ms
            )
        )


class ReplayPart(StatefulSourcePartition[tuple[str, Final], None]):
    """A PartitionReplay, chunk by chunk."""

    def __init__(self, replay: PartitionReplay) -> None:
        self._replay = replay
        self._told = False
        self._awake: datetime | None = None

    def next_batch(self) -> list[tuple[str, Final]]:
        """What one chunk has made final. Never blocks."""
        replay = self._replay
        if self._told:
            raise StopIteration
        self._awake = None
        if not replay.done and not replay.step(wait=False):
            self._awake = datetime.now(UTC) + IDLE_WAIT
            return []
        before = replay.final_before
        states = [(stat.timestamp, stat.symbol, stat.final_state()) for stat in replay.release(before)]
        self._told = replay.done
        number, manifest = part_manifest(replay)
        return [(_OUT, Final(number, states, before, manifest if replay.done else None))]

    def next_awake(self) -> datetime | None:
        """A little later when there was nothing."""
        return self._awake

    def snapshot(self) -> None:
        """Nothing: a replay is not resumed."""

    def close(self) -> None:
        """Leave Kafka."""
        self._replay.close()


class MergedFile(FixedPartitionedSink[Final, None]):
    """One file of all partitions' lines; it is there only when it is whole, and its manifest beside it."""

    def __init__(self, out: Path, whole: ReplayRange, summary: Summary) -> None:
        self._out, self._range, self._summary = out, whole, summary

    def list_parts(self) -> list[str]:
        """One file, so one part."""
        return [_OUT]

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "MergedFilePart":
        """The file, begun anew."""
        return MergedFilePart(self._out, self._range, self._summary)


class MergedFilePart(StatefulSinkPartition[Final, None]):
    """Writes seconds as soon as every partition has got past them."""

    def __init__(self, out: Path, whole: ReplayRange, summary: Summary) -> None:
        self._out, self._summary = out, summary
        self._fresh = out.with_name(f"{out.name}.part")
        self._file = self._fresh.open("wb")
        self._before = {part.partition: 0 for part in whole.partitions}
        self._held: list[State] = []
        self._manifests: dict[int, dict[str, int]] = {}

    def write_batch(self, items: list[Final]) -> None:
        """Take what became final."""
        for final in items:
            for state in final.states:
                heapq.heappush(self._held, state)
            self._before[final.partition] = final.final_before
            if final.manifest is not None:
                self._manifests[final.partition] = final.manifest
        before = min(self._before.values())
        self._file.write(self._summary.add([*self._due(before)]))
        if len(self._manifests) == len(self._before):
            self._finish()

    def _due(self, before: int) -> Iterator[bytes]:
        while self._held and self._held[0][0] < before:
            yield heapq.heappop(self._held)[2]

    def _finish(self) -> None:
        self._file.close()
        if not self._summary.seconds:
            raise InvalidRange("not one second with trades in the range")
        self._summary.finish(iter(self._manifests.items()))
        self._fresh.replace(self._out)
        manifest = json.dumps(self._summary.manifest(), indent=2)
        self._out.with_name(f"{self._out.name}.manifest.json").write_text(f"{manifest}\n", encoding="utf-8")

    def snapshot(self) -> None:
        """Nothing: a replay is not resumed."""

    def close(self) -> None:
        """Leave the file."""
        self._file.close()


def flow_over(
    bootstrap_servers: str, topic: str, bounds: tuple[Bound, Bound], settings: ReplaySettings, out: Path
) -> Dataflow:
    """The pipeline over a range. Raises as `Replay` does."""
    whole = resolve(bootstrap_servers, topic, *bounds, settings.revision_horizon_ms)
    summary = Summary(whole, {"from": bounds[0], "to": bounds[1]}, settings)
    flow = Dataflow("replay")
    finals = op.input("seconds", flow, ReplaySource(bootstrap_servers, whole, settings))
    op.output("file", finals, MergedFile(out, whole, summary))
    return flow


def environment(brokers: str | None) -> tuple[str, ReplaySettings]:
    """(bootstrap servers, settings) of the environment."""
    settings = Settings()
    use_kafka_tls(settings.tls("kafka"))
    decisive = ReplaySettings(settings.allowed_lateness_ms, round(settings.revision_horizon * 1000))
    return brokers or settings.bootstrap_servers, decisive
