"""`tracker backtest`: what a strategy would have done in a recorded range."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from flows.backtest.curves import Curves
from flows.backtest.errors import BacktestError, ParamError
from flows.backtest.loading import load
from flows.backtest.params import parameters, read_params
from flows.backtest.plan import Plan, differences
from flows.backtest.result import Outcome
from flows.backtest.runs import Watch, possible, run_all
from flows.backtest.spool import Spool
from flows.backtest.sweep import combinations, cores, sweep
from flows.domain.second_stat import SecondStat
from flows.domain.times import iso
from flows.replay import Replay
from tracker.config import DataDir, Exchange, fail, load_settings, problems_shown
from tracker.places import kafka_address, kafka_problems
from tracker.progress import ProgressLine
from tracker.replay import From, To, bound, replay_settings

WITH_CHECK = {"strategy", "topic", "report", "json_file", "equity_file", "check", "exchange", "data_dir"}


def backtest(
    context: typer.Context,
    strategy: Annotated[
        str | None,
        typer.Argument(
            help="buy_and_hold, moving_average_cross, periodic_rebalance, my.py, my.py:Class or pkg.mod:Class."
        ),
    ] = None,
    *,
    topic: Annotated[str | None, typer.Option(help="The topic of raw aggTrades.")] = None,
    start: From = None,
    end: To = None,
    symbols: Annotated[str | None, typer.Option(help="BTCUSDT,ETHUSDT,…; default: all of the range.")] = None,
    cash: Annotated[str, typer.Option(help="What the account starts with.")] = "10000",
    fee_bps: Annotated[str, typer.Option(help="Of each fill's value, in basis points.")] = "10",
    slippage_bps: Annotated[str, typer.Option(help="How much worse than the open a market order fills.")] = "0",
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter; may repeat.")] = None,
    sweep_: Annotated[
        list[str] | None, typer.Option("--sweep", metavar="NAME=A,B,C", help="Run every combination; may repeat.")
    ] = None,
    allow_short: Annotated[bool, typer.Option("--allow-short", help="Positions may be below zero.")] = False,
    allow_debt: Annotated[bool, typer.Option("--allow-debt", help="Cash may be below zero.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON; - is the output.")] = None,
    equity_file: Annotated[
        Path | None, typer.Option("--equity", help="Write the equity by second, as CSV: what equity_sha256 is of.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Run the result in a file again and compare; exit 1 if not same.")
    ] = None,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Run a strategy over recorded seconds: exact decimals, no look-ahead, the same result on any machine."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # chunks of messages hold no cycles
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    brokers = kafka_address(settings, exchange)
    with problems_shown(), kafka_problems(brokers):
        swept = _pairs(sweep_, "--sweep")
        if check is not None:
            if others := [option for name, option in _given(context).items() if name not in WITH_CHECK]:
                raise BacktestError(f"--check takes what decides the run from the file; leave {', '.join(others)} out")
            before = _read(check)
            plan = Plan.of_result(before)
            plan = plan.elsewhere(topic) if topic and topic != plan.topic else plan
            plan = replace(plan, strategy=strategy or plan.strategy)
        else:
            if strategy is None or topic is None:
                raise BacktestError("say what to run over what: tracker backtest STRATEGY --topic NAME (see --help)")
            plan = Plan(
                strategy, topic, bound(start), bound(end),
                _pairs(param, "--param"), cash, fee_bps, slippage_bps,
                tuple(sorted({one.strip().upper() for one in (symbols or "").split(",") if one.strip()})),
                allow_short, allow_debt,
                replay_settings(settings),
            )  # fmt: skip
        if swept and (report or equity_file):
            raise BacktestError("--report and --equity are of one run; leave --sweep out")
        for file in filter(None, (report, equity_file, json_file)):
            if not file.absolute().parent.is_dir():
                raise BacktestError(f"{file} can't be written: there is no directory {file.parent}")
        done = _Done.of(plan, swept, brokers, report, equity_file)
        if check is not None:
            _compare(check, before, done.results()[0], same_topic=topic in (None, before["manifest"]["topic"]))
        if json_file is not None:
            _write(json_file, json.dumps(done.results() if swept else done.results()[0], indent=2) + "\n")
        if str(json_file) != "-" and check is None:
            _show(done, list(swept))
        for written in filter(None, (report, equity_file, json_file)):
            if str(written) != "-":
                typer.echo(f"wrote {written}", err=True)


@dataclass(frozen=True)
class _Done:
    outcomes: list[Outcome]
    manifest: dict[str, Any]

    def results(self) -> list[dict[str, Any]]:
        return [outcome.as_json(self.manifest) for outcome in self.outcomes]

    @classmethod
    def of(
        cls, plan: Plan, swept: dict[str, str], brokers: str, report: Path | None, equity_file: Path | None
    ) -> "_Done":
        loaded, terms = load(plan.strategy), plan.terms()
        given = dict(plan.params or {})
        if both := sorted(given.keys() & swept.keys()):
            raise ParamError(f"{both[0]} is both in --param and in --sweep")
        known = parameters(loaded.strategy)
        values = read_params(loaded.strategy, given | {name: texts.split(",")[0] for name, texts in swept.items()})
        wanted = combinations(known, values, {name: texts.split(",") for name, texts in swept.items()})
        if swept:
            number = len(wanted)
            wanted, refusals = possible(loaded, wanted)
            if not wanted:
                raise refusals[0]
            if refusals:
                left_out = f"{len(refusals)} of {number} combinations"
                typer.echo(f"impossible, and left out: {left_out}, the first: {refusals[0]}", err=True)
        with TemporaryDirectory(prefix="tracker-backtest-") as directory:
            spool, replayed = _spooled(plan, brokers, Path(directory))
            manifest = plan.manifest(replayed, loaded)
            if swept:
                processes = min(cores(), len(wanted))
                with ProgressLine("seconds") as line:
                    total = spool.seconds * processes
                    outcomes = sweep(spool, plan.strategy, wanted, terms, lambda n: line.update(n, total), processes)
                    line.finish(f"{len(wanted)} combinations in {processes} processes")
                return cls(outcomes, manifest)
            curves = Curves(spool.symbols, terms.slippage_rate) if report else None
            with _opened(equity_file) as write, ProgressLine("seconds") as line:
                watch = Watch((curves,) if curves else (), write)
                outcomes = run_all(spool, loaded, wanted, terms, lambda n: line.update(n, spool.seconds), watch)
                line.finish(f"{loaded.strategy.__name__} over {spool.seconds:,} seconds")
            if curves and report:
                from flows.backtest.report import write_report  # noqa: PLC0415 - templates; only for a report

                write_report(report, outcomes[0], manifest, curves)
        return cls(outcomes, manifest)


def _spooled(plan: Plan, brokers: str, directory: Path) -> tuple[Spool, dict[str, Any]]:
    with ProgressLine("records") as line:
        replay = Replay(brokers, plan.topic, plan.start, plan.end, plan.settings, plan.until)

        def read() -> Iterator[SecondStat]:
            for stats, _ in replay.batches():
                now = replay.progress()
                line.update(now.records, now.expected, f"at {iso(now.watermark_ms)}" if now.watermark_ms else "")
                yield from stats

        spool = Spool.write(directory / "seconds", read(), plan.symbols)
        line.finish(f"{spool.stats:,} SecondStats from {replay.progress().records:,} records")
    return spool, replay.manifest()


def _show(done: _Done, swept: Sequence[str]) -> None:
    from tracker.backtest_view import show, show_sweep  # noqa: PLC0415 - tables; not for --json -

    if swept:
        show_sweep(done.outcomes, swept)
    else:
        show(done.outcomes[0], done.manifest)


@contextmanager
def _opened(file: Path | None) -> Iterator[Any]:
    if file is None:
        yield None
    else:
        with file.open("wb") as out:
            yield out.write


def _given(context: typer.Context) -> dict[str, str]:
    """The options of the command line by the names of their parameters."""
    options = {str(param.name): param.opts[0] for param in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in options}
    return {name: options[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ParamError(f"{option} {text}: write name=value")
        if name.strip() in pairs:
            raise ParamError(f"{option} {name.strip()} is given twice")
        pairs[name.strip()] = value
    return pairs


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BacktestError(f"{file} is not JSON: {error}") from error


def _write(file: Path, text: str) -> None:
    if str(file) == "-":
        typer.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")


def _compare(file: Path, before: dict[str, Any], now: dict[str, Any], *, same_topic: bool) -> None:
    wrong, notes = differences(before, now, same_topic=same_topic)
    for line in notes:
        typer.echo(f"note: {line}", err=True)
    if wrong:
        fail("\n".join([f"{file}: not the same result:", *(f"  {line}" for line in wrong)]))
    typer.echo(f"{file}: the same result, equity {now['equity_sha256']}")
