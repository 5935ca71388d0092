"""`python -m infra.local.exchange`: the simulated exchange in the foreground, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import logging
import os
import re
import resource
import signal
import sys
from pathlib import Path

import uvloop

from infra.local.exchange.app import Config, serving
from infra.local.exchange.history import HistoryInUse
from infra.local.exchange.session import KeepAlive
from infra.local.exchange.simulation import MAX_RATE, MIN_RATE

logger = logging.getLogger("infra.local.exchange")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r} (use 500ms, 20s, 10m or 24h)")
    return float(found[1]) * _SECONDS[found[2]]


def _rate(text: str) -> float:
    rate = float(text)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"{MIN_RATE:.0f} to {MAX_RATE:.0f} trades a second")
    return rate


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _speed(text: str) -> float:
    if (speed := float(text)) <= 0:
        raise argparse.ArgumentTypeError("more than 0")
    return speed


def _parser() -> argparse.ArgumentParser:
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.exchange", description="An exchange that speaks Binance's protocol."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=9443)
    add("--data-dir", type=Path, required=True, help="history of trades; ids never go back within it")
    add("--rate", type=_rate, default=environment("EXCHANGE_RATE", "200"), help="trades a second, all symbols")
    add("--seed", type=int, default=environment("EXCHANGE_SEED", "1"), help="of the random walk")
    add("--symbols", type=_positive, default=environment("EXCHANGE_SYMBOLS", "50"), help="beyond 50: made up")
    add("--recording", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help="play this once")
    add("--recording-speed", type=_speed, default="1", metavar="FACTOR")
    add("--recording-wait", action="store_true", help="until somebody listens to a trade stream")
    add("--max-connection-age", type=_duration, default="24h", metavar="DURATION")
    add("--ping-interval", type=_duration, default="20s", metavar="DURATION")
    add("--pong-timeout", type=_duration, default="60s", metavar="DURATION")
    add("--connection-limit", type=int, default="300", help="attempts in 5 minutes an address; 0: none")
    add("--weight-limit", type=int, default="6000", help="REST weight a minute an address; 0: none")
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    return Config(
        data_dir=arguments.data_dir,
        rate=arguments.rate,
        seed=arguments.seed,
        symbols=arguments.symbols,
        recordings=arguments.recording,
        recording_speed=arguments.recording_speed,
        recording_waits=arguments.recording_wait,
        keep_alive=KeepAlive(arguments.ping_interval, arguments.pong_timeout, arguments.max_connection_age),
        connection_attempts=arguments.connection_limit,
        weight_limit=arguments.weight_limit,
    )


async def _run(config: Config, host: str, port: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(config, host, port) as (_, bound, trading):
        logger.info("listening on %s:%d", host, bound)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, trading}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if trading.done() and (error := trading.exception()):
            logger.error("stopped by an error", exc_info=error)
            return 1
    return 0


def main() -> int:
    """Run until stopped; 0 after a planned stop, 1 after an error, 2 for wrong arguments."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # A file a symbol and a socket a client: more than the usual 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(_config(arguments), arguments.host, arguments.port))
    except (HistoryInUse, OSError, ValueError) as error:
        logger.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
