"""Minitickers and SecondStats in Kafka to rows in ClickHouse: `crypto.market_tickers` and `crypto.second_stats`.

Run it: `python -m flows.clickhouse_etl`. Each topic is read by a thread of its own, with its own batches and offsets.
A miniticker is stored once; of a SecondStat every revision is, and the view `second_stats` shows the highest.
"""

import logging
import threading
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException

from flows import drain
from flows.channels import CLICKHOUSE_GROUP, MINITICKER, SECONDSTAT, Topic, create_topics
from flows.connectors.clickhouse_native import Column
from flows.connectors.clickhouse_sink import ClickHouseSink
from flows.connectors.clickhouse_table import ClickHouseTable, Server
from flows.connectors.dead_letters import DeadLetters
from flows.connectors.json_columns import JsonColumns
from flows.connectors.quix_batches import BatchApplication
from flows.records import KafkaMsg, SecondStatMsg
from infra.clickhouse.migrate import migrate
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings, split_address
from infra.tls import use_kafka_tls

log = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True)
class Lane:
    """The way of one topic into its table. Records are JSON objects with a field for each column."""

    topic: Topic
    table: str
    message: type[msgspec.Struct]
    types: Sequence[str]
    key: tuple[str, str]  # what makes a row the same as another
    replacing: bool = False

    @property
    def columns(self) -> list[Column]:
        """The columns of the table."""
        names = self.message.__struct_fields__
        return [Column(name, kind) for name, kind in zip(names, self.types, strict=True)]


def tickers(topic: str, table: str) -> Lane:
    """Minitickers, under the names that the environment may give."""
    types = ["String", "String", "DateTime64(3)", "DateTime64(3)", "String", *["Decimal64(8)"] * 6]
    return Lane(
        Topic(topic, MINITICKER.partitions, MINITICKER.config), table, KafkaMsg, types, ("symbol", "event_time")
    )


# Amounts are below 2⁸⁰ units, so that no sum of them comes near the 38 and 76 digits of these types.
SECOND_STATS = Lane(
    SECONDSTAT,
    "second_stats_revisions",
    SecondStatMsg,
    [
        "String", "DateTime64(3, 'UTC')", *["Decimal128(8)"] * 5, "Decimal256(16)", "UInt64", "Decimal128(8)",
        "Decimal256(16)", "Int64", "Int64", "UInt32",
    ],
    ("symbol", "timestamp"),
    replacing=True,
)  # fmt: skip


def build_app(settings: Settings, server: Server, lane: Lane) -> BatchApplication:
    """The application of one lane, whose topic and table exist. Raises quixstreams' errors when Kafka is away."""
    columns = lane.columns
    table = ClickHouseTable(
        server, settings.clickhouse_database, lane.table, columns, lane.key, replacing=lane.replacing
    )
    sink = ClickHouseSink(
        table,
        DeadLetters(settings.bootstrap_servers),
        JsonColumns(lane.message, columns).decode,
        settings.batch_size,
        settings.batch_timeout,
    )
    app = BatchApplication(settings.bootstrap_servers, settings.kafka_group_id or CLICKHOUSE_GROUP, sink)
    source = app.topic(lane.topic.name, value_deserializer="bytes", key_deserializer="bytes")
    app.dataframe(source).sink(sink)
    return app


def run(apps: Sequence[BatchApplication]) -> None:
    """Run them side by side until this process is to stop, or one fails: then all stop. Raises its error."""
    failures: list[Exception] = []

    def work(app: BatchApplication) -> None:
        try:
            app.run()
        except Exception as error:
            log.exception("the ETL can't go on")
            failures.append(error)
            drain.fail()

    threads = [threading.Thread(target=work, args=(app,), name=repr(app)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def unready(apps: Sequence[BatchApplication], server: Server) -> str | None:
    """Why the ETL does not do its work, None when it does."""
    if not apps:
        return "waiting for Kafka and ClickHouse"
    if not all(app.assigned for app in apps):
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
    password = settings.clickhouse_password.get_secret_value()
    return Server(host, port, settings.clickhouse_user, password, settings.tls("clickhouse"))


def main() -> None:
    """Run until SIGTERM or SIGINT; the last batch is stored and committed first."""
    settings = Settings()
    setup_logging(settings.log_level)
    use_kafka_tls(settings.tls("kafka"))
    for repeated in ("urllib3.connectionpool", "clickhouse_connect"):  # the sink says it once
        logging.getLogger(repeated).setLevel(logging.ERROR)
    # A commit can block for minutes while Kafka is away; what is not committed by the end is read again.
    drain.install(code_at_limit=0)
    server = _clickhouse(settings)
    lanes = [tickers(settings.kafka_topic or MINITICKER.name, settings.clickhouse_table), SECOND_STATS]
    apps: list[BatchApplication] = []
    health = serve_health(settings.host, settings.health_port, lambda: unready(apps, server))
    log.info("health at http://%s:%d", settings.host, health.port)
    database, table = settings.clickhouse_database, settings.clickhouse_table
    _keep_trying(f"ClickHouse at {server}", lambda: migrate(server.connect(), database, table))
    topics = [topic for lane in lanes for topic in (lane.topic, lane.topic.dlq)]
    _keep_trying(f"Kafka at {settings.bootstrap_servers}", lambda: create_topics(settings.bootstrap_servers, topics))
    if not drain.draining():
        apps += [build_app(settings, server, lane) for lane in lanes]
        run(apps)
    health.close()


if __name__ == "__main__":
    main()
