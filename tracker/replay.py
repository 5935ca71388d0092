"""`tracker replay`: the SecondStats of a range of a topic once more."""

import gc
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from flows.domain.times import iso
from flows.replay import Bound, Replay, ReplaySettings, parse_bound
from infra.settings import Settings
from tracker.config import DataDir, Exchange, load_settings, problems_shown
from tracker.places import kafka_address, kafka_problems
from tracker.progress import ProgressLine

TopicName = Annotated[str, typer.Option("--topic", help="A topic of raw aggTrades, live or imported.")]
From = Annotated[str | None, typer.Option("--from", help="ISO time, epoch ms or partition:offset,…")]
To = Annotated[str | None, typer.Option("--to", help="The same, exclusive.")]


def replay(
    topic: TopicName,
    out: Annotated[Path, typer.Option(help="Where the lines go, a SecondStat each; - for stdout, without manifest.")],
    start: From = None,
    end: To = None,
    *,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Recompute the SecondStats of [X, Y) from the raw log; print a manifest (offsets, counts, sha256) as JSON.

    A line is the final state of a second that is wholly inside the range, in (timestamp, symbol) order.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # chunks of messages hold no cycles
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    brokers = kafka_address(settings, exchange)
    with problems_shown(), kafka_problems(brokers):
        one = Replay(brokers, topic, bound(start), bound(end), replay_settings(settings))
        write(one, out)
    typer.echo(json.dumps(one.manifest(), indent=2), err=str(out) == "-")


def bound(text: str | None) -> Bound:
    """An option's value as a Replay takes it. Raises InvalidRange."""
    return None if text is None else parse_bound(text)


def replay_settings(settings: Settings) -> ReplaySettings:
    """What live runs with."""
    return ReplaySettings(settings.allowed_lateness_ms, round(settings.revision_horizon * 1000))


def write(one: Replay, out: Path) -> None:
    """The output lines into a file, which is there only when it is whole; progress on stderr."""
    fresh = None if str(out) == "-" else out.with_name(f"{out.name}.part")
    with ExitStack() as stack:
        file = sys.stdout.buffer
        if fresh is not None:
            stack.callback(fresh.unlink, missing_ok=True)
            file = stack.enter_context(fresh.open("wb"))
        line = stack.enter_context(ProgressLine("records"))
        for _, lines in one.batches():
            file.write(lines)
            now = one.progress()
            line.update(now.records, now.expected, f"at {iso(now.watermark_ms)}" if now.watermark_ms else "")
        file.flush()
        now = one.progress()
        line.finish(f"{now.seconds:,} seconds from {now.records:,} records")
        if fresh is not None:
            fresh.replace(out)
