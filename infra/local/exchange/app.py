"""The simulated exchange, wired: streams, REST, /sim, /livez and /readyz on one port."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from infra.local.exchange.engine import TICK_S, Clock, Engine, MarketSource, Source
from infra.local.exchange.exchange_info import ExchangeInfo
from infra.local.exchange.faults import Faults
from infra.local.exchange.history import History
from infra.local.exchange.limits import ConnectionAttempts, RequestWeights
from infra.local.exchange.market import Market, Pair, Position, pairs
from infra.local.exchange.metrics import Health
from infra.local.exchange.recording import NOTE, Contents, RecordingSource, survey
from infra.local.exchange.rest import Rest
from infra.local.exchange.session import KeepAlive, Sessions
from infra.local.exchange.simulation import Simulation
from infra.local.exchange.streams import Hub
from infra.local.exchange.tickers import Tickers


@dataclass(frozen=True)
class Config:
    """How to run an exchange."""

    data_dir: Path
    rate: float = 200.0
    seed: int = 1
    symbols: int = 50
    recordings: list[Path] = field(default_factory=list)
    recording_speed: float = 1.0
    recording_waits: bool = False  # for the first listener to a trade stream
    keep_alive: KeepAlive = field(default_factory=KeepAlive)
    connection_attempts: int = 300  # in 5 minutes from an address; 0: no limit
    weight_limit: int = 6000  # a minute; 0: no limit
    shutdown_notice_s: float = 0.5  # from the serverShutdown event to the end


def _position(history: History, pair: Pair) -> Position | None:
    """Where the history of a pair ends; invalid rows, which have no single trades, are passed over for their id."""
    last = history.symbol(pair.symbol).last
    if last is None:
        return None
    traded = next((t for t in history.symbol(pair.symbol).newest_first() if t.trade_count), last)
    return Position(last.agg_id, traded.last_id, traded.price or pair.price, last.trade_ms)


class Exchange:
    """All parts, wired; raises HistoryInUse, or ValueError for recordings that can't be played."""

    def __init__(self, config: Config) -> None:
        self.config = config
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self.history = History(config.data_dir)
        contents = survey(config.recordings) if config.recordings else None
        listed = contents.pairs if contents else pairs(config.symbols)
        known = {pair.symbol: found for pair in listed if (found := _position(self.history, pair))}
        self.clock = Clock(max((position.trade_ms for position in known.values()), default=0))
        now_ms = self.clock.now_ms()
        self.market: Market | None = None
        self.recording: RecordingSource | None = None
        try:
            source = self._source(contents, listed, known, now_ms)
        except ValueError:
            self.history.close()
            raise
        self.hub = Hub()
        self.faults = Faults(config.seed)
        prices = {pair.symbol: known[pair.symbol].price if pair.symbol in known else pair.price for pair in listed}
        self.tickers = Tickers(config.data_dir / "minutes.jsonl", prices, self.history, now_ms)
        self.engine = Engine(source, self.faults, self.history, self.tickers, self.hub, self.clock)
        self.sessions = Sessions(self.hub, ConnectionAttempts(config.connection_attempts), config.keep_alive)
        self.info = ExchangeInfo(listed, config.weight_limit)
        self.weights = RequestWeights(config.weight_limit)

    def _source(self, contents: Contents | None, listed: list[Pair], known: dict[str, Position], now_ms: int) -> Source:
        """The market or the recording; one may not go on in the other's data directory, as their ids do not fit."""
        config = self.config
        if contents is None:
            if (config.data_dir / NOTE).exists():
                raise ValueError(f"{config.data_dir} holds a recording: take another data directory")
            self.market = Market(listed, config.seed, config.rate, known)
            return MarketSource(self.market, now_ms)
        self.recording = RecordingSource(config.recordings, contents, config.data_dir, config.recording_speed)
        if known and not self.recording.begun:
            raise ValueError(f"{config.data_dir} holds other trades: take another data directory")
        self.recording.catch_up(self.history, now_ms)
        return self.recording

    def application(self) -> web.Application:
        """The web application; its life is the exchange's."""
        app = web.Application()
        rest = Rest(self.history, self.tickers, self.info, self.weights, self.faults, self.clock)
        parts = (self.sessions, rest, Simulation(self), Health(self))
        app.add_routes([route for part in parts for route in part.routes()])
        return app

    async def run(self) -> None:
        """Trade until cancelled; ends early only by an error."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sessions.keep_alive())
            group.create_task(self.engine.run())
            if self.recording:
                group.create_task(self._play(self.recording))

    async def _play(self, recording: RecordingSource) -> None:
        if self.config.recording_waits:
            while not any(s.endswith(("@aggTrade", "@trade")) for s in self.hub.listeners()):  # noqa: ASYNC110 - it ticks
                await asyncio.sleep(TICK_S)
        recording.start(self.clock.now_ms())

    async def stop(self) -> None:
        """Announce the end, wait a moment, close the connections."""
        self.engine.announce_shutdown()
        if self.hub.connections:
            await asyncio.sleep(self.config.shutdown_notice_s)
        await self.sessions.end_all()

    def close(self) -> None:
        """Let the files go."""
        self.tickers.close()
        self.history.close()


@contextlib.asynccontextmanager
async def serving(config: Config, host: str, port: int) -> AsyncIterator[tuple[Exchange, int, asyncio.Task[None]]]:
    """Run an exchange: (exchange, port, the task that trades). On leaving it stops as planned."""
    exchange = Exchange(config)
    # 1024 stream names in one URL are longer than a server usually reads.
    runner = web.AppRunner(exchange.application(), access_log=None, max_line_size=2**17, shutdown_timeout=1.0)
    await runner.setup()
    trading: asyncio.Task[None] | None = None
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        trading = asyncio.create_task(exchange.run())
        yield exchange, int(runner.addresses[0][1]), trading
        if not trading.done():
            await exchange.stop()
    finally:
        if trading:
            trading.cancel()
            await asyncio.gather(trading, return_exceptions=True)
        await runner.cleanup()
        exchange.close()
