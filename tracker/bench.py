"""`tracker bench`: the benchmarks, each with its peer in the same run."""

import json
from importlib.util import find_spec
from typing import Annotated

import typer

from tracker.config import fail


def bench(
    name: Annotated[str | None, typer.Argument(help="One benchmark; all of them without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    bootstrap: Annotated[str | None, typer.Option(help="second-stats: brokers that have --topic.")] = None,
    topic: Annotated[str | None, typer.Option(help="second-stats: a topic of trades, to be run over once.")] = None,
    n: Annotated[int | None, typer.Option(help="second-stats: how many trades.")] = None,
    sinks: Annotated[str | None, typer.Option(help="second-stats over --topic: count, or real with --redis.")] = None,
    redis: Annotated[str | None, typer.Option(help="second-stats with real sinks: host:port.")] = None,
    processes: Annotated[int | None, typer.Option(help="second-stats over --topic: of one Bytewax cluster.")] = None,
    symbols: Annotated[int | None, typer.Option(help="How many symbols are traded.")] = None,
    per_ms: Annotated[int | None, typer.Option(help="second-stats: trades per ms of event time.")] = None,
    runs: Annotated[int | None, typer.Option(help="second-stats: the median of so many.")] = None,
    rate: Annotated[int | None, typer.Option(help="latency: trades per second; fanout: REST calls.")] = None,
    seconds: Annotated[int | None, typer.Option(help="latency, fanout: how long.")] = None,
    clients: Annotated[int | None, typer.Option(help="fanout: WebSockets.")] = None,
    workers: Annotated[int | None, typer.Option(help="fanout: processes of the BFF (HTTP_WORKERS).")] = None,
    peers: Annotated[str | None, typer.Option(help="fanout: source of the Go peer and its driver.")] = None,
) -> None:
    """Measure: run one benchmark, or all, and show each figure with its ratio to a peer.

    With a topic that is there (`--bootstrap`, `--topic`, `--n`), `second-stats` prints one result line, last.
    """
    given = {
        "bootstrap": bootstrap, "topic": topic, "n": n, "sinks": sinks, "redis": redis,
        "processes": processes, "symbols": symbols, "per_ms": per_ms, "runs": runs, "rate": rate, "seconds": seconds,
        "clients": clients, "workers": workers, "peers": peers,
    }  # fmt: skip
    options = {option: value for option, value in given.items() if value is not None}
    if find_spec("bench") is None:
        fail("the benchmarks are in the source repository, not in the installed package; run this from a checkout")
    from bench import harness  # noqa: PLC0415 - only in a checkout

    known = harness.benchmarks()
    if name is not None and name not in known:
        fail(
            f"there is no benchmark {name!r}; there are:\n" + "\n".join(f"  {one}: {doc}" for one, doc in known.items())
        )
    if options and name is None:
        fail("options are for one benchmark: name it")
    results = {}
    for one in [name] if name else known:
        if not as_json:
            typer.echo(f"{one}: {known[one]}")
        try:
            measured = harness.measure(one, options)
        except TypeError as error:
            fail(str(error))
        if isinstance(measured, dict):
            typer.echo(json.dumps(measured))
            return
        results[one] = measured
        if not as_json:
            harness.show(one, results[one])
    if as_json:
        typer.echo(harness.as_json(results))
