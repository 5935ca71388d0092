"""`tracker import`: recordings into a raw topic."""

import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.domain.times import iso
from flows.importing import ImportCounts, TopicImport, merged, prepare_topic
from flows.recordings import BadLine, RecordingFile
from tracker.config import DataDir, Exchange, load_settings, problems_shown
from tracker.places import kafka_address, kafka_problems
from tracker.progress import ProgressLine

SHOWN = 50  # bad lines of a file; the others are counted
_UPDATE_EVERY = 2000


def import_files(
    files: Annotated[list[Path], typer.Argument(help="Recordings: .jsonl or .csv, also .gz, .zst or .zip.")],
    topic: Annotated[str, typer.Option(help="Made if it is not there; keeps everything.")],
    symbol: Annotated[str | None, typer.Option(help="Of a CSV that is not named SYMBOL-aggTrades-….")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any line is bad.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    *,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Write recorded trades into a topic, with their own times: frames, or Binance's public aggTrades CSV.

    Several files are merged by event time. Importing a file again adds nothing, and an import that was killed goes on
    where it was. A bad line is reported and skipped; a torn file is an error, what could be read of it is kept.
    """
    gc.freeze()
    brokers = kafka_address(load_settings(exchange=exchange, data_dir=data_dir), exchange)
    bad: list[BadLine] = []

    def tell(line: BadLine) -> None:
        bad.append(line)
        if line.torn or sum(one.file == line.file for one in bad[: SHOWN + 1]) <= SHOWN:
            print(f"{line.file}: line {line.number}: {line.reason}", file=sys.stderr, flush=True)

    with problems_shown(), kafka_problems(brokers):
        recordings = [RecordingFile(path, tell, symbol) for path in files]
        prepare_topic(brokers, topic)
        counts = _run(TopicImport(brokers, topic), recordings)
    skipped = sum(recording.skipped for recording in recordings)
    if as_json:
        numbers = {"topic": topic, **asdict(counts), "bad_lines": len(bad), "other_frames": skipped}
        typer.echo(json.dumps(numbers, indent=2))
    else:
        _show(topic, counts, len(bad), skipped)
    if any(line.torn for line in bad) or (strict and bad):
        raise typer.Exit(1)


def _run(into: TopicImport, recordings: list[RecordingFile]) -> ImportCounts:
    size = sum(recording.file.size for recording in recordings)
    with ProgressLine("bytes") as line:
        try:
            for number, trade in enumerate(merged(recordings)):
                into.take(trade)
                if number % _UPDATE_EVERY == 0:
                    line.update(sum(one.file.position for one in recordings), size, f"at {iso(trade.time_ms)}")
            counts = into.finish()
        finally:
            into.close()
        line.finish(f"{counts.trades + counts.known_trades:,} trades")
    return counts


def _show(topic: str, counts: ImportCounts, bad: int, skipped: int) -> None:
    typer.echo(
        f"topic {topic}: {counts.trades:,} trades and {counts.heartbeats:,} heartbeats written, "
        f"{counts.known_trades:,} trades were there already; {bad:,} bad lines, {skipped:,} frames of other kinds"
    )
    if counts.late_trades:
        print(
            f"{counts.late_trades:,} trades come more than 30 min after newer ones, so no second counts them: "
            "is a file not in the order of time?",
            file=sys.stderr,
            flush=True,
        )
    if counts.trades:
        typer.echo(f"written from {iso(counts.first_ms)} to {iso(counts.last_ms)}")
