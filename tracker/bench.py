"""`tracker bench`: the benchmarks, each with its peer in the same run."""

from importlib.util import find_spec
from typing import Annotated

import typer

from tracker.config import fail


def bench(
    name: Annotated[str | None, typer.Argument(help="One benchmark; all of them without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure: run one benchmark, or all, and show each figure with its ratio to a peer."""
    if find_spec("bench") is None:
        fail("the benchmarks are in the source repository, not in the installed package; run this from a checkout")
    from bench import harness  # noqa: PLC0415 - only in a checkout

    known = harness.benchmarks()
    if name is not None and name not in known:
        fail(
            f"there is no benchmark {name!r}; there are:\n" + "\n".join(f"  {one}: {doc}" for one, doc in known.items())
        )
    results = {}
    for one in [name] if name else known:
        if not as_json:
            typer.echo(f"{one}: {known[one]}")
        results[one] = harness.measure(one)
        if not as_json:
            harness.show(one, results[one])
    if as_json:
        typer.echo(harness.as_json(results))
