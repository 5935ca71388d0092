"""Many combinations of parameters on all cores: each process passes over the spool once, with its share of them."""

import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from flows.backtest.account import Terms
from flows.backtest.errors import BacktestError, ParamError
from flows.backtest.loading import load
from flows.backtest.params import Param, as_text
from flows.backtest.result import Outcome
from flows.backtest.runs import run_all
from flows.backtest.spool import Progress, Spool

MOST = 10_000  # combinations


def combinations(
    known: Mapping[str, Param], values: Mapping[str, Any], swept: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """`values` with every combination of the swept ones. Raises ParamError."""
    read = {name: [known[name].read(text) for text in texts] for name, texts in swept.items()}
    for name, several in read.items():
        if len({as_text(value) for value in several}) < len(several):
            raise ParamError(f"--sweep {name}: a value is there twice")
    found = [{**values, **dict(zip(read, chosen, strict=True))} for chosen in itertools.product(*read.values())]
    if len(found) > MOST:
        raise ParamError(f"{len(found)} combinations are more than {MOST}")
    return found


def cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sweep(
    spool: Spool, name: str, wanted: Sequence[Mapping[str, Any]], terms: Terms, progress: Progress, processes: int
) -> list[Outcome]:
    """The outcome of each combination, best total return first. `progress` counts seconds × processes.

    Raises BacktestError for the first that fails.
    """
    count = max(1, min(processes, len(wanted)))
    context = get_context("spawn")  # a Kafka client's threads do not survive a fork
    running: dict[Connection, Any] = {}
    done = dict.fromkeys(range(count), 0)
    found: list[tuple[int, Outcome]] = []
    try:
        for share in range(count):
            here, there = context.Pipe(duplex=False)
            part = wanted[share::count]
            process = context.Process(target=_work, args=(there, share, spool, name, part, terms), daemon=True)
            process.start()
            there.close()
            running[here] = process
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                try:
                    share, message = connection.recv()
                except EOFError:
                    running.pop(connection).join()
                    continue
                if isinstance(message, int):
                    done[share] = message
                    progress(sum(done.values()))
                elif isinstance(message, BaseException):
                    raise message
                else:
                    found += zip(range(share, len(wanted), count), message, strict=True)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    if len(found) != len(wanted):
        raise BacktestError("a process of the sweep was killed (is there enough memory?)")
    found.sort(key=lambda one: one[0])
    return sorted((one for _, one in found), key=lambda one: one.total_return, reverse=True)


def _work(
    connection: Connection, share: int, spool: Spool, name: str, wanted: Sequence[Mapping[str, Any]], terms: Terms
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends us
    try:
        loaded = load(name)
        outcomes = run_all(spool, loaded, wanted, terms, lambda done: connection.send((share, done)))
        connection.send((share, outcomes))
    except BacktestError as error:
        connection.send((share, type(error)(str(error))))  # without its cause, which may not pickle
    finally:
        connection.close()
