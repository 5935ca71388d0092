"""`tracker record`: live trades into a file that `tracker import` and `tracker up --recording` read."""

import gzip
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import httpx
import typer
import zstandard
from confluent_kafka import KafkaException, Message, TopicPartition

from flows.channels import RAW_AGGTRADE
from flows.connectors.kafka_range import offsets_held, range_consumer
from flows.domain.errors import NoTopic, TrackerError
from flows.partitioning import partition_of
from infra.settings import go_duration_seconds
from tracker.config import DataDir, Exchange, fail, load_settings, problems_shown
from tracker.places import address_of, kafka_address, kafka_problems
from tracker.progress import ProgressLine

SUBSCRIBER = "tracker-record"
_POLL_S = 0.1
_RENEW_S = 20.0


def record(
    symbols: Annotated[str, typer.Option(help="BTCUSDT,ETHUSDT,…")],
    out: Annotated[Path, typer.Option(help="A new file: .jsonl, .jsonl.gz or .jsonl.zst.")],
    duration: Annotated[str, typer.Option("--for", help="How long: 10m, 30s, 1h; Ctrl-C ends it sooner.")] = "10m",
    *,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Record live aggTrades as combined frames, byte for byte as the exchange sent them, from now on.

    Symbols that nobody holds are subscribed for that long.
    """
    try:
        seconds = go_duration_seconds(duration)
    except ValueError as error:
        raise typer.BadParameter(f"--for: {error}") from error
    chosen = [symbol.strip().upper() for symbol in symbols.split(",") if symbol.strip()]
    if not chosen:
        raise typer.BadParameter("--symbols names none")
    if out.exists():
        fail(f"error: {out} is there already")
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    brokers = kafka_address(settings, exchange)
    aggregator = address_of("aggregator", settings, exchange) or settings.aggregator_addr
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with problems_shown(), kafka_problems(brokers), _subscribed(aggregator, chosen):
        written = _record(brokers, chosen, out, seconds, stop)
    typer.echo(f"{out}: " + ", ".join(f"{count:,} trades of {symbol}" for symbol, count in written.items()))
    if not any(written.values()):
        raise typer.Exit(1)


def _record(brokers: str, symbols: list[str], out: Path, seconds: float, stop: threading.Event) -> dict[str, int]:
    counts = dict.fromkeys(symbols, 0)
    consumer = range_consumer(brokers)
    try:
        found = consumer.list_topics(RAW_AGGTRADE, timeout=20).topics[RAW_AGGTRADE]
        if found.error is not None:
            raise NoTopic(f"there is no topic {RAW_AGGTRADE}: is the system running?")
        partitions = {partition_of(symbol, len(found.partitions)) for symbol in symbols}
        ends = offsets_held(consumer, RAW_AGGTRADE, partitions)
        consumer.assign([TopicPartition(RAW_AGGTRADE, p, end) for p, (_, end) in ends.items()])
        began = time.monotonic()
        with _opened(out) as file, ProgressLine("seconds") as line:
            while not stop.is_set() and time.monotonic() - began < seconds:
                frames = [_frame(message, counts) for message in _by_time(consumer.consume(10_000, timeout=_POLL_S))]
                file.write(b"".join(frames))
                line.update(int(time.monotonic() - began), int(seconds), f"{sum(counts.values()):,} trades")
            line.finish(f"{sum(counts.values()):,} trades")
    finally:
        consumer.close()
    return counts


def _by_time(messages: list[Message]) -> list[Message]:
    """Partitions come one after the other: their records by time, each one's still in its order."""
    good = []
    for message in messages:
        error = message.error()
        if error is None:
            good.append(message)
        elif error.fatal():
            raise KafkaException(error)
    return sorted(good, key=lambda message: message.timestamp()[1])


def _frame(message: Message, counts: dict[str, int]) -> bytes:
    """A trade of a recorded symbol as a line; nothing for other records."""
    value, key = message.value(), message.key()
    if key is None or value is None or not value.startswith(b'{"e":"aggTrade"') or b"\n" in value:
        return b""
    symbol = key.decode()
    if symbol not in counts:
        return b""
    counts[symbol] += 1
    return b'{"stream":"%s@aggTrade","data":%s}\n' % (symbol.lower().encode(), value)


@contextmanager
def _opened(out: Path) -> Iterator[IO[bytes]]:
    with out.open("xb") as raw:
        if out.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
                yield file  # type: ignore[misc]
        elif out.suffix.lower() == ".zst":
            with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as file:
                yield file
        else:
            yield raw


@contextmanager
def _subscribed(aggregator: str, symbols: list[str]) -> Iterator[None]:
    """Keep the symbols subscribed, with a lease, so that a recorder that is killed leaves nothing behind."""
    done = threading.Event()
    with httpx.Client(base_url=f"http://{aggregator}", timeout=10) as client:
        if not _is_there(client):
            print(f"no aggregator at {aggregator}: recording what streams anyway", file=sys.stderr, flush=True)
            yield
            return
        _ask(client, "GET", symbols)

        def renew() -> None:
            while not done.wait(_RENEW_S):
                try:
                    _ask(client, "GET", symbols)
                except TrackerError as error:
                    print(f"the subscription was not renewed: {error}", file=sys.stderr, flush=True)

        thread = threading.Thread(target=renew, name="renew", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            _ask(client, "DELETE", symbols)


def _is_there(client: httpx.Client) -> bool:
    try:
        client.get("/livez")
    except httpx.ConnectError:
        return False
    return True


def _ask(client: httpx.Client, method: str, symbols: list[str]) -> None:
    lease = {"ttl": "60s"} if method == "GET" else {}
    for symbol in symbols:
        try:
            answer = client.request(method, "/coin", params={"symbol": symbol, "id": SUBSCRIBER, **lease})
        except httpx.HTTPError as error:
            raise TrackerError(f"aggregator at {client.base_url}: {error}") from error
        if answer.is_error:
            detail = (
                answer.json().get("detail", answer.text) if "json" in answer.headers["content-type"] else answer.text
            )
            raise TrackerError(f"{symbol}: {detail}")
