"""What live published against the raw log: every second is computed once more, and compared byte for byte.

Two places are looked at: the topic `binance.secondstat` and the table `second_stats` in ClickHouse. The flow and the
ETL are waited for until they have passed what was read; a difference counts only if it stays.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from flows.channels import CLICKHOUSE_GROUP, SECOND_STATS_GROUP, SECONDSTAT
from flows.connectors.published_seconds import Key, PublishedSeconds, await_passed, fields_of
from flows.connectors.second_stats_table import SecondStatsTable
from flows.domain.errors import InvalidRange, TrackerError
from flows.domain.market import SECOND_MS
from flows.replay import Progress, Replay, ReplaySettings
from flows.verify import NothingToCompare

PIECE_MS = 1_800_000  # compared in one go, in memory
SETTLE_S = 1.0
PLACES = ("topic", "clickhouse")


@dataclass(frozen=True)
class LiveDifference:
    """A second whose published state is not what the raw log gives.

    `place` is `topic` or `clickhouse`; `kind` is `missing` (not published), `unexpected` (published without trades),
    `differs` (with each field as (recomputed, published), as written), or `conflicts` (the topic holds two different
    records of one revision).
    """

    symbol: str
    timestamp: int
    place: str
    kind: str
    fields: dict[str, tuple[object, object]] = field(default_factory=dict)


@dataclass
class LiveReport:
    """What a comparison of [start_ms, end_ms) found. `seconds` are those in the raw log or in either place."""

    start_ms: int
    end_ms: int
    symbols: list[str]
    seconds: int = 0
    differences: list[LiveDifference] = field(default_factory=list)
    manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """How many seconds differ, in one place or in both."""
        return len({(one.timestamp, one.symbol) for one in self.differences})

    @property
    def match_rate(self) -> float:
        """Share of the seconds that are the same in both places."""
        return 1 - self.differing / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Live:
    """Where live is, and how it is set."""

    bootstrap_servers: str
    topic: str
    table: SecondStatsTable
    settings: ReplaySettings
    etl_group: str = CLICKHOUSE_GROUP
    wait_s: float = 60.0


def against_log(
    live: Live,
    start_ms: int,
    end_ms: int,
    symbols: Sequence[str] = (),
    told: Callable[[Progress], None] = lambda _: None,
) -> LiveReport:
    """Compare the whole seconds of [start_ms, end_ms), of these symbols or of all.

    Raises NothingToCompare for not one second, TrackerError if live does not get past what was read, and what Replay,
    Kafka and ClickHouse raise.
    """
    start_ms, end_ms = -(-start_ms // SECOND_MS) * SECOND_MS, end_ms // SECOND_MS * SECOND_MS
    report = LiveReport(start_ms, end_ms, sorted(symbols))
    seen: set[str] = set()
    with closing(PublishedSeconds(live.bootstrap_servers)) as published:
        for at in range(start_ms, end_ms, PIECE_MS):
            piece = _Piece(live, published, at, min(at + PIECE_MS, end_ms), frozenset(symbols))
            differences = piece.compare(told)
            if differences:
                time.sleep(SETTLE_S)  # live may have revised a second after what was read of the log
                again = piece.compare(told)
                differences = [one for one in again if one in differences]
            report.differences += differences
            report.seconds += len(piece.keys)
            report.manifests += [piece.manifest] if piece.manifest else []
            seen |= {symbol for _, symbol in piece.keys}
    report.symbols = report.symbols or sorted(seen)
    if not report.seconds:
        raise NothingToCompare("not one second was compared: neither the raw log nor live has any in this range")
    return report


class _Piece:
    """A part of the range, compared as a whole."""

    def __init__(
        self, live: Live, published: PublishedSeconds, start_ms: int, end_ms: int, symbols: frozenset[str]
    ) -> None:
        self._live, self._published = live, published
        self._start_ms, self._end_ms, self._symbols = start_ms, end_ms, symbols
        self.keys: set[Key] = set()
        self.manifest: dict[str, Any] = {}

    def compare(self, told: Callable[[Progress], None]) -> list[LiveDifference]:
        computed = self._compute(told)
        live, horizon_ms = self._live, self._live.settings.revision_horizon_ms
        span = self._start_ms, self._end_ms
        read = self.manifest.get("partitions", {})
        self._await(SECOND_STATS_GROUP, live.topic, {int(p): numbers["end"] for p, numbers in read.items()})
        self._await(live.etl_group, SECONDSTAT.name, self._published.ends())
        in_topic = self._published.read(*span, horizon_ms, self._symbols)
        states = {key: one.state for key, one in in_topic.items()}
        in_table = {
            (stat.timestamp, stat.symbol): stat.final_state() for stat in live.table.states(*span, self._symbols)
        }
        self.keys = computed.keys() | states.keys() | in_table.keys()
        found = [*_differences("topic", computed, states), *_differences("clickhouse", computed, in_table)]
        found += [LiveDifference(key[1], key[0], "topic", "conflicts") for key, o in in_topic.items() if o.conflicts]
        return sorted(found, key=lambda one: (one.timestamp, one.symbol, one.place))

    def _compute(self, told: Callable[[Progress], None]) -> dict[Key, bytes]:
        live = self._live
        replay = Replay(live.bootstrap_servers, live.topic, self._start_ms, self._end_ms, live.settings)
        computed: dict[Key, bytes] = {}
        try:
            for stats, _ in replay.batches():
                for stat in stats:
                    if not self._symbols or stat.symbol in self._symbols:
                        computed[stat.timestamp, stat.symbol] = stat.final_state()
                told(replay.progress())
        except InvalidRange:  # not one second: live must have none either
            return {}
        self.manifest = replay.manifest()
        return computed

    def _await(self, group: str, topic: str, ends: dict[int, int]) -> None:
        live = self._live
        behind = await_passed(
            live.bootstrap_servers, group, topic, {p: end for p, end in ends.items() if end}, live.wait_s
        )
        if behind:
            partition, (at, end) = next(iter(behind.items()))
            raise TrackerError(
                f"{group} has not passed what was read of {topic} within {live.wait_s:.0f} s: partition {partition} at "
                f"{at} of {end}; does it run?"
            )


def _differences(place: str, computed: dict[Key, bytes], live: dict[Key, bytes]) -> Iterator[LiveDifference]:
    for key in computed.keys() | live.keys():
        timestamp, symbol = key
        ours, theirs = computed.get(key), live.get(key)
        if theirs is None:
            yield LiveDifference(symbol, timestamp, place, "missing")
        elif ours is None:
            yield LiveDifference(symbol, timestamp, place, "unexpected")
        elif ours != theirs:
            yield LiveDifference(symbol, timestamp, place, "differs", _fields(ours, theirs))


def _fields(ours: bytes, theirs: bytes) -> dict[str, tuple[object, object]]:
    try:
        one, other = fields_of(ours), fields_of(theirs)
    except ValueError:
        return {"": (ours.decode(), theirs.decode(errors="replace"))}
    names = {**one, **other}
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
