"""`tracker verify` without options: live against a recomputation from the raw log."""

import json
from contextlib import closing
from dataclasses import asdict
from typing import Any

import typer

from flows.channels import CLICKHOUSE_GROUP, RAW_AGGTRADE
from flows.connectors.clickhouse_table import Server
from flows.connectors.second_stats_table import SecondStatsTable
from flows.domain.times import iso
from flows.replay import Progress
from flows.verify_live import Live, LiveDifference, LiveReport, against_log
from infra.settings import Settings
from tracker.places import clickhouse_problems, kafka_problems
from tracker.progress import ProgressLine
from tracker.replay import replay_settings

SHOWN = 50


def verify_live(
    settings: Settings,
    brokers: str,
    server: Server,
    span_ms: tuple[int, int],
    symbols: tuple[str, ...],
    as_json: bool,
) -> bool:
    """Compare and report; whether anything differs. Raises TrackerError."""
    with (
        clickhouse_problems(server),
        kafka_problems(brokers),
        closing(SecondStatsTable(server, settings.clickhouse_database)) as table,
        ProgressLine("records") as line,
    ):
        group = settings.kafka_group_id or CLICKHOUSE_GROUP
        live = Live(brokers, RAW_AGGTRADE, table, replay_settings(settings), group)

        def told(now: Progress) -> None:
            line.update(now.records, now.expected, f"at {iso(now.watermark_ms)}" if now.watermark_ms else "")

        report = against_log(live, *span_ms, symbols, told)
    if as_json:
        typer.echo(json.dumps(_as_json(report), indent=2))
    else:
        _show(report)
    return bool(report.differences)


def _as_json(report: LiveReport) -> dict[str, Any]:
    return {
        "ok": not report.differences,
        "against": "raw log",
        "from": report.start_ms,
        "to": report.end_ms,
        "symbols": report.symbols,
        "seconds": report.seconds,
        "matched": report.seconds - report.differing,
        "match_rate": report.match_rate,
        "differences": [asdict(one) | {"fields": _fields(one)} for one in report.differences],
        "manifests": report.manifests,
    }


def _fields(one: LiveDifference) -> dict[str, dict[str, object]]:
    return {name: {"recomputed": ours, "published": theirs} for name, (ours, theirs) in one.fields.items()}


def _show(report: LiveReport) -> None:
    typer.echo(f"{iso(report.start_ms)} to {iso(report.end_ms)}, {len(report.symbols)} symbols")
    for one in report.differences[:SHOWN]:
        fields = ", ".join(f"{name} {ours} ≠ {theirs}" for name, (ours, theirs) in one.fields.items())
        typer.echo(f"{one.symbol} {iso(one.timestamp)} {one.place}: {one.kind} {fields}".rstrip())
    if len(report.differences) > SHOWN:
        typer.echo(f"… and {len(report.differences) - SHOWN} more; --json has all of them")
    typer.echo(
        f"{report.seconds:,} seconds recomputed and compared with the topic and ClickHouse: "
        f"{report.seconds - report.differing:,} the same, {report.differing:,} differ: {100 * report.match_rate:.4f} %"
    )
