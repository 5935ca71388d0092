"""Minitickers in Kafka to the rows of `crypto.market_tickers` in ClickHouse, each row once.

Run it: `python -m flows.clickhouse_etl`.
"""

import atexit
import logging
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException

from flows import drain
from flows.channels import CLICKHOUSE_GROUP, MINITICKER, Topic, create_topics
from flows.connectors.clickhouse_native import Column
from flows.connectors.clickhouse_sink import ClickHouseSink
from flows.connectors.clickhouse_table import ClickHouseTable, Server
from flows.connectors.dead_letters import DeadLetters
from flows.connectors.quix_batches import BatchApplication
from flows.domain.errors import InvalidRecord
from flows.domain.market import scaled
from flows.records import KafkaMsg
from infra.clickhouse.migrate import migrate
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings, split_address

log = logging.getLogger(__name__)

DECIMAL64_LIMIT = 10**18  # 18 digits, 8 of them decimals
TIME_LIMIT_MS = 10_413_792_000_000  # DateTime64 ends with the year 2299
RETRY_S = 1.0
STOP_GRACE_S = 6.0


class TickerRow(NamedTuple):
    """A row of `crypto.market_tickers`: times in ms, decimals in units of 1e-8."""

    message_id: str
    event_type: str
    event_time: int
    receive_time: int
    symbol: str
    close_price: int
    open_price: int
    high_price: int
    low_price: int
    change_price: int
    change_percent: int


_TYPES = ["String", "String", "DateTime64(3)", "DateTime64(3)", "String", *["Decimal64(8)"] * 6]
COLUMNS = [Column(name, kind) for name, kind in zip(TickerRow._fields, _TYPES, strict=True)]
KEY = ("symbol", "event_time")  # what makes a miniticker the same as another
_decoder = msgspec.json.Decoder(KafkaMsg)


def ticker_row(value: bytes | None) -> TickerRow:
    """The row of one record. Raises InvalidRecord with the reason when it is none."""
    if value is None:
        raise InvalidRecord("record without a value")
    try:
        message = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"bad JSON: {error}") from error
    if not message.message_id or not message.symbol:
        raise InvalidRecord("empty message_id or symbol")
    return TickerRow(
        message.message_id,
        message.event_type,
        _time_ms(message.event_time),
        _time_ms(message.receive_time),
        message.symbol,
        _decimal(message.close_price),
        _decimal(message.open_price),
        _decimal(message.high_price),
        _decimal(message.low_price),
        _decimal(message.change_price),
        _decimal(message.change_percent),
    )


def _time_ms(time_ms: int) -> int:
    if not 0 <= time_ms < TIME_LIMIT_MS:
        raise InvalidRecord(f"time out of range: {time_ms}")
    return time_ms


@lru_cache(maxsize=1 << 16)  # prices repeat
def _decimal(text: str) -> int:
    units = -scaled(text[1:]) if text.startswith("-") else scaled(text)
    if abs(units) >= DECIMAL64_LIMIT:
        raise InvalidRecord(f"beyond Decimal64(8): {text[:60]!r}")
    return units


def build_app(settings: Settings, server: Server, topic: str) -> BatchApplication:
    """The application, from the topic to the table; both exist. Raises quixstreams' errors when Kafka is away."""
    table = ClickHouseTable(server, settings.clickhouse_database, settings.clickhouse_table, COLUMNS, KEY)
    sink = ClickHouseSink(
        table,
        DeadLetters(settings.bootstrap_servers),
        ticker_row,
        attrgetter(*KEY),
        settings.batch_size,
        settings.batch_timeout,
    )
    app = BatchApplication(settings.bootstrap_servers, settings.kafka_group_id or CLICKHOUSE_GROUP, sink)
    source = app.topic(topic, value_deserializer="bytes", key_deserializer="bytes")
    app.dataframe(source).sink(sink)
    return app


def unready(app: BatchApplication | None, server: Server) -> str | None:
    """Why the ETL does not do its work, None when it does."""
    if app is None:
        return "waiting for Kafka and ClickHouse"
    if not app.assigned:
        return "no partitions assigned"
    try:
        urllib.request.urlopen(f"http://{server}/ping", timeout=2).close()
    except OSError as error:
        return f"ClickHouse at {server} is away: {error}"
    return None


def _keep_trying(what: str, attempt: Callable[[], object]) -> None:
    """Call `attempt` until it succeeds or this process is to stop."""
    said = False
    while not drain.draining():
        try:
            attempt()
            return
        except (ClickHouseError, KafkaException) as error:
            if not said:
                log.warning("waiting for %s: %s", what, str(error).splitlines()[0][:300])
                said = True
            drain.wait(RETRY_S)


def _clickhouse(settings: Settings) -> Server:
    host, port = settings.clickhouse_http
    if split_address(settings.clickhouse_addr, port)[1] != port:
        log.warning("CLICKHOUSE_ADDR=%s is the native port: using HTTP at port %d", settings.clickhouse_addr, port)
    return Server(host, port, settings.clickhouse_user, settings.clickhouse_password.get_secret_value())


def _end_in_time() -> None:
    """End this process STOP_GRACE_S after its first signal, whatever it waits for.

    A commit blocks for minutes while Kafka is away, in C, where no Python handler of a signal runs. What is not stored
    or committed by then is read again: an end here is one more `kill -9`.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        reader.recv(1)
        time.sleep(STOP_GRACE_S)
        log.warning("Kafka or ClickHouse does not answer: ending with a batch uncommitted, to be read again")
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=watch, name="end-in-time", daemon=True).start()
    atexit.register(writer.close)  # open as long as the process lives


def main() -> None:
    """Run until SIGTERM or SIGINT; the last batch is stored and committed first."""
    settings = Settings()
    setup_logging(settings.log_level)
    for repeated in ("urllib3.connectionpool", "clickhouse_connect"):  # the sink says it once
        logging.getLogger(repeated).setLevel(logging.ERROR)
    drain.install()
    _end_in_time()
    server = _clickhouse(settings)
    topic = Topic(settings.kafka_topic or MINITICKER.name, MINITICKER.partitions, MINITICKER.config)
    app: BatchApplication | None = None
    health = serve_health(settings.host, settings.health_port, lambda: unready(app, server))
    log.info("health at http://%s:%d", settings.host, health.port)
    database, table = settings.clickhouse_database, settings.clickhouse_table
    _keep_trying(f"ClickHouse at {server}", lambda: migrate(server.connect(), database, table))
    _keep_trying(
        f"Kafka at {settings.bootstrap_servers}", lambda: create_topics(settings.bootstrap_servers, [topic, topic.dlq])
    )
    if not drain.draining():
        app = build_app(settings, server, topic.name)
        app.run()
    health.close()


if __name__ == "__main__":
    main()
