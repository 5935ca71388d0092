"""Checks of what live published. Here: SecondStats against the exchange's own 1-second candles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flows.connectors.log_excerpts import LogExcerpts
from flows.connectors.second_stats_table import SecondStatsTable
from flows.domain.errors import TrackerError
from flows.domain.market import SCALE, SECOND_MS
from flows.domain.second_stat import SecondStat
from flows.gap_ledger import LedgerRow
from flows.venues.binance.klines import Kline, KlineClient

EXACT = ("open", "high", "low", "close", "volume", "trade_count", "taker_buy_volume")
QUOTE = ("quote_volume", "taker_buy_quote_volume")  # ours in 1e-16 units, a kline's cut or rounded to 1e-8
MOST_STRAGGLING_MS = 60 * SECOND_MS
SECONDS_A_STEP = 1000  # what one request for klines gives


class NothingToCompare(TrackerError):
    """Not one second was compared: no evidence of anything."""


@dataclass(frozen=True)
class Difference:
    """A second on which we and the exchange differ.

    `kind` is `missing` (the exchange has trades, we have no SecondStat), `unexpected` (the other way round) or
    `differs`, with each field as (ours, theirs) in units of 1e-8, quote volumes of ours in 1e-16. `excused` says why
    it is no fault: the ledger names its trades lost, or the symbol was not subscribed.
    """

    symbol: str
    timestamp: int
    kind: str
    fields: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    excused: str = ""


@dataclass
class Report:
    """What a comparison of [start_ms, end_ms) found. `seconds` are those in which either side has trades."""

    start_ms: int
    end_ms: int
    symbols: list[str]
    seconds: int = 0
    matched: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def faults(self) -> list[Difference]:
        """The differences that nothing excuses."""
        return [difference for difference in self.differences if not difference.excused]

    @property
    def match_rate(self) -> float:
        """Share of the seconds that are the same; those that are excused count neither way."""
        owed = self.seconds - (len(self.differences) - len(self.faults))
        return self.matched / owed if owed else 0.0


def differing_fields(stat: SecondStat, kline: Kline) -> dict[str, tuple[int, int]]:
    """The fields that are not the same, as (ours, theirs)."""
    pairs = {name: (getattr(stat, name), getattr(kline, name)) for name in (*EXACT, *QUOTE)}
    return {
        name: (ours, theirs)
        for name, (ours, theirs) in pairs.items()
        if (abs(ours - theirs * SCALE) >= SCALE if name in QUOTE else ours != theirs)
    }


def compare(symbol: str, stats: Mapping[int, SecondStat], klines: Iterable[Kline]) -> Iterator[Difference | None]:
    """For each second in which either side has trades, in order, how it differs (None: not at all)."""
    theirs = {kline.timestamp: kline for kline in klines if kline.trade_count}
    for timestamp in sorted(theirs.keys() | stats.keys()):
        stat, kline = stats.get(timestamp), theirs.get(timestamp)
        if stat is None:
            yield Difference(symbol, timestamp, "missing")
        elif kline is None:
            yield Difference(symbol, timestamp, "unexpected")
        else:
            fields = differing_fields(stat, kline)
            yield Difference(symbol, timestamp, "differs", fields) if fields else None


def against_exchange(
    table: SecondStatsTable,
    exchange: KlineClient,
    log: LogExcerpts,
    start_ms: int,
    end_ms: int,
    symbols: Sequence[str] = (),
) -> Report:
    """Compare the whole seconds of [start_ms, end_ms); without `symbols`, of all that have a SecondStat.

    A symbol's seconds before its subscription began are not ours. Raises NothingToCompare, and the errors of its ends.
    """
    first_seconds = table.first_seconds()
    report = Report(-(-start_ms // SECOND_MS) * SECOND_MS, end_ms // SECOND_MS * SECOND_MS, [])
    report.symbols = sorted(symbols or first_seconds)
    if unknown := [symbol for symbol in report.symbols if symbol not in first_seconds]:
        raise NothingToCompare(f"no SecondStats in ClickHouse of {', '.join(unknown)}")
    losses = log.losses()
    for symbol in report.symbols:
        found: list[Difference] = []
        begin = max(report.start_ms, _owed_from(symbol, first_seconds[symbol], report.start_ms, log))
        for at in range(begin, report.end_ms, SECONDS_A_STEP * SECOND_MS):
            end = min(at + SECONDS_A_STEP * SECOND_MS, report.end_ms)
            stats = table.seconds(symbol, at, end)
            for difference in compare(symbol, stats, exchange.klines(symbol, at, end)):
                report.seconds += 1
                if difference is None:
                    report.matched += 1
                else:
                    found.append(difference)
        if found:
            report.differences += _excused(found, [loss for loss in losses if loss.symbol == symbol], table, log)
    if not report.seconds:
        raise NothingToCompare("not one second was compared: neither side has trades in this range")
    return report


def _owed_from(symbol: str, first_second: int, start_ms: int, log: LogExcerpts) -> int:
    """The first second in which all trades are owed; a straggler can bring a trade of an earlier one."""
    if start_ms >= first_second + MOST_STRAGGLING_MS:
        return first_second
    for event_time, on in log.subscriptions(symbol, first_second - SECOND_MS, first_second + MOST_STRAGGLING_MS):
        return max(first_second, event_time // SECOND_MS * SECOND_MS) if on else first_second
    return first_second


def _excused(
    found: list[Difference], losses: Sequence[LedgerRow], table: SecondStatsTable, log: LogExcerpts
) -> Iterator[Difference]:
    spans = [(*_seconds_about(loss, table), loss) for loss in losses]
    off = _unsubscribed([one.timestamp for one in found if one.kind == "missing"], found[0].symbol, table, log)
    for one in found:
        excuse = ""
        if one.kind == "missing" and any(
            start < one.timestamp + SECOND_MS and one.timestamp < end for start, end in off
        ):
            excuse = "not subscribed"
        for before, after, loss in spans:
            is_within = (before is None or before <= one.timestamp) and (after is None or one.timestamp <= after)
            if is_within and one.kind != "unexpected":
                excuse = f"lost: {loss.first_missing_a} to {loss.last_missing_a}: {loss.reason}"
        yield replace(one, excused=excuse)


def _seconds_about(loss: LedgerRow, table: SecondStatsTable) -> tuple[int | None, int | None]:
    """The first and the last second that a loss can have hit; where the ledger has no time, by ids in ClickHouse."""
    before, after = table.around(loss.symbol, loss.first_missing_a, loss.last_missing_a)
    if loss.after_ms is not None:
        before = loss.after_ms // SECOND_MS * SECOND_MS
    return before, after if loss.before_ms is None else loss.before_ms


def _unsubscribed(
    missing: Sequence[int], symbol: str, table: SecondStatsTable, log: LogExcerpts
) -> list[tuple[int, int]]:
    """The times, in ms, in which the raw log says that a symbol was not subscribed, about these seconds."""
    if not missing:
        return []
    # Off comes after the last trade before, on before the first one after.
    before, after = table.neighbours(symbol, min(missing), max(missing))
    last = max(missing) + SECOND_MS
    spans, since = [], None
    for event_time, on in log.subscriptions(symbol, before or min(missing), (after or last) + SECOND_MS):
        if not on:
            since = event_time if since is None else since
        elif since is not None:
            spans.append((since, event_time))
            since = None
    return spans if since is None else [*spans, (since, last)]
