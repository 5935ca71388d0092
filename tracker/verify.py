"""`tracker verify`: whether what was published is right."""

import json
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from api.symbols import rest_url
from flows.connectors.clickhouse_table import Server
from flows.connectors.log_excerpts import LogExcerpts
from flows.connectors.second_stats_table import SecondStatsTable
from flows.domain.errors import InvalidRange
from flows.domain.market import SECOND_MS, decimal_8, decimal_16
from flows.domain.times import iso
from flows.replay_range import parse_bound
from flows.venues.binance.klines import KlineClient
from flows.verify import QUOTE, Difference, Report, against_exchange
from infra.settings import Settings, split_address
from tracker.config import DataDir, Exchange, load_settings, problems_shown, running_homes
from tracker.places import clickhouse_problems, kafka_problems
from tracker.verify_live import verify_live

# A second is final 200 ms after its end; then it waits for a batch, 10 s at the most.
SETTLED_MS = 30 * SECOND_MS
USUAL_RANGE_MS = 3600 * SECOND_MS
SHOWN = 50


def verify(
    exchange_klines: Annotated[
        bool, typer.Option("--against-exchange", help="Compare with the exchange's own 1-second klines.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", help="ISO time or epoch ms; default: an hour before the end.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same, exclusive; default: half a minute ago.")] = None,
    symbols: Annotated[str | None, typer.Option(help="BTCUSDT,ETHUSDT,…; default: all in ClickHouse.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    *,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Check what live published: recompute it from the raw log, and compare the topic and ClickHouse byte for byte.

    Exit 1 on any difference; with --against-exchange on any that the gap ledger does not explain.
    """
    now_ms = time.time_ns() // 1_000_000
    end_ms = min(now_ms - SECOND_MS, _time_ms(end, "--to")) if end else now_ms - SETTLED_MS
    start_ms = _time_ms(start, "--from") if start else end_ms - USUAL_RANGE_MS
    if start_ms >= end_ms:
        raise typer.BadParameter("--from is not before --to")
    chosen = tuple(symbol.strip().upper() for symbol in (symbols or "").split(",") if symbol.strip())
    places = _places(load_settings(exchange=exchange, data_dir=data_dir), exchange)
    if not exchange_klines:
        with problems_shown():
            differs = verify_live(places.settings, places.kafka, places.server, (start_ms, end_ms), chosen, as_json)
        raise typer.Exit(int(differs))
    with problems_shown():
        report = _compare(places, start_ms, end_ms, chosen)
    if as_json:
        typer.echo(json.dumps(_as_json(report), indent=2))
    else:
        _show(report)
    if report.faults:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Places:
    """Where the running stack's parts are, or else those that the environment names."""

    settings: Settings
    kafka: str
    clickhouse: tuple[str, int]
    rest_url: str

    @property
    def server(self) -> Server:
        settings = self.settings
        password = settings.clickhouse_password.get_secret_value()
        return Server(*self.clickhouse, settings.clickhouse_user, password, settings.tls("clickhouse"))


def _places(settings: Settings, exchange: str | None) -> _Places:
    kafka, clickhouse, url = settings.bootstrap_servers, settings.clickhouse_http, rest_url(settings)
    for home, state in running_homes(settings)[:1]:
        if exchange is None or home.name == exchange:
            addresses = {part.name: part.address for part in state.parts}
            kafka = addresses.get("kafka", kafka)
            clickhouse = split_address(addresses["clickhouse"], 8123) if "clickhouse" in addresses else clickhouse
            url = f"http://{addresses['exchange']}" if "exchange" in addresses else url
    return _Places(settings, kafka, clickhouse, url)


def _compare(places: _Places, start_ms: int, end_ms: int, symbols: tuple[str, ...]) -> Report:
    with (
        clickhouse_problems(places.server),
        kafka_problems(places.kafka),
        closing(SecondStatsTable(places.server, places.settings.clickhouse_database)) as table,
        closing(KlineClient(places.rest_url)) as klines,
        closing(LogExcerpts(places.kafka)) as log,
    ):
        return against_exchange(table, klines, log, start_ms, end_ms, symbols)


def _time_ms(text: str, option: str) -> int:
    try:
        time_ms = parse_bound(text)
    except InvalidRange as error:
        raise typer.BadParameter(f"{option}: {error}") from error
    if not isinstance(time_ms, int):
        raise typer.BadParameter(
            f"{option}: give an ISO time or epoch ms. Offsets do not say which seconds are final: records after them "
            "revise seconds before them. tracker replay shows the seconds of offsets"
        )
    return time_ms


def _fields(difference: Difference) -> dict[str, dict[str, Any]]:
    """Each field as decimals, ours as we publish it."""
    shown: dict[str, dict[str, Any]] = {}
    for name, (ours, theirs) in difference.fields.items():
        if name == "trade_count":
            shown[name] = {"ours": ours, "exchange": theirs}
        else:
            shown[name] = {"ours": (decimal_16 if name in QUOTE else decimal_8)(ours), "exchange": decimal_8(theirs)}
    return shown


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "ok": not report.faults,
        "against": "exchange",
        "from": report.start_ms,
        "to": report.end_ms,
        "symbols": report.symbols,
        "seconds": report.seconds,
        "matched": report.matched,
        "match_rate": report.match_rate,
        "excused": len(report.differences) - len(report.faults),
        "differences": [
            {
                "symbol": one.symbol,
                "timestamp": one.timestamp,
                "kind": one.kind,
                "fields": _fields(one),
                "excused": one.excused or None,
            }
            for one in report.differences
        ],
    }


def _show(report: Report) -> None:
    typer.echo(f"{iso(report.start_ms)} to {iso(report.end_ms)}, {len(report.symbols)} symbols")
    for one in report.differences[:SHOWN]:
        fields = ", ".join(f"{name} {two['ours']} ≠ {two['exchange']}" for name, two in _fields(one).items())
        excuse = f" ({one.excused})" if one.excused else ""
        typer.echo(f"{one.symbol} {iso(one.timestamp)} {one.kind} {fields}".rstrip() + excuse)
    if len(report.differences) > SHOWN:
        typer.echo(f"… and {len(report.differences) - SHOWN} more; --json has all of them")
    excused = len(report.differences) - len(report.faults)
    typer.echo(
        f"{report.seconds} seconds compared, {report.matched} the same, {len(report.faults)} differ, "
        f"{excused} excused: {100 * report.match_rate:.4f} % of what is owed"
    )
