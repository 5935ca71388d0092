"""Raw minitickers in Kafka to the rows of `crypto.market_tickers`: on Kafka for the ETL, on Redis the newest.

Run it: `python -m bytewax.run flows.minitickers -r RECOVERY_DIR -s 10 -b 0`.
"""

from collections.abc import Iterator
from dataclasses import replace

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink
from prometheus_client import Counter

from flows import drain
from flows.channels import MINITICKER, MINITICKERS_GROUP, RAW_MINITICKER, create_topics, miniticker_last_key
from flows.connectors.kafka_sink import KafkaSink, Record
from flows.connectors.kafka_source import Chunk, KafkaSource
from flows.connectors.redis_sink import Place, Places, RedisSink
from flows.dlq import poison_record
from flows.domain.errors import InvalidRecord
from flows.domain.market import decimal_8
from flows.domain.miniticker import MiniTicker
from flows.records import KafkaMsg, decode_miniticker
from flows.recovery import forget_uncommitted_of_this_run
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings, split_address
from infra.tls import use_kafka_tls

EVENT_TYPE = "24hrMiniTicker"
LAST_TICKERS = Places(lambda symbol: Place(miniticker_last_key(symbol), None), ("event_time",))
RECORDS = Counter("minitickers_records", "Records of the raw miniticker log, by what became of them", ["outcome"])


def kafka_msg(ticker: MiniTicker, received_ms: int | None) -> bytes:
    """The JSON of a miniticker; one without a receive time counts as received when it happened."""
    return msgspec.json.encode(
        KafkaMsg(
            ticker.message_id,
            EVENT_TYPE,
            ticker.event_time,
            ticker.event_time if received_ms is None else received_ms,
            ticker.symbol,
            decimal_8(ticker.close),
            decimal_8(ticker.open),
            decimal_8(ticker.high),
            decimal_8(ticker.low),
            decimal_8(ticker.change_price),
            decimal_8(ticker.change_percent),
        )
    )


def rows(item: tuple[str, Chunk]) -> tuple[str, list[Record]]:
    """The records of a chunk: for `binance.miniticker`, and for the DLQ."""
    part, chunk = item
    return part, [*_records(chunk)]


def _records(chunk: Chunk) -> Iterator[Record]:
    for index, value in enumerate(chunk.values):
        try:
            ticker = decode_miniticker(value)
            json = kafka_msg(ticker, chunk.received_ms[index])
        except InvalidRecord as error:
            RECORDS.labels("rejected").inc()
            yield poison_record(chunk, index, str(error))
        else:
            RECORDS.labels("published").inc()
            yield Record(MINITICKER.name, ticker.symbol.encode(), json, ticker.event_time)


def published(item: tuple[str, list[Record]]) -> tuple[str, list[Record]]:
    """The minitickers without the DLQ records."""
    part, records = item
    return part, [record for record in records if record.topic == MINITICKER.name]


def build_flow(
    source: Source[tuple[str, Chunk]],
    kafka_sink: Sink[tuple[str, list[Record]]],
    last_sink: Sink[tuple[str, list[Record]]],
) -> Dataflow:
    """The pipeline. Step ids key recovery and never change."""
    flow = Dataflow("minitickers")
    chunks = op.input("raw_minitickers", flow, source)
    records = op.map("rows", chunks, rows)
    op.output("kafka", records, kafka_sink)
    op.output("redis", op.map("published", records, published), last_sink)
    return flow


def flow() -> Dataflow:
    """The flow on its real ends; what `bytewax.run` looks for."""
    settings = Settings()
    setup_logging(settings.log_level)
    use_kafka_tls(settings.tls("kafka"))
    drain.install()
    forget_uncommitted_of_this_run()
    brokers = settings.bootstrap_servers
    topic = replace(RAW_MINITICKER, name=settings.kafka_topic or RAW_MINITICKER.name)
    create_topics(brokers, [topic.dlq, MINITICKER] if settings.kafka_topic else [topic, topic.dlq, MINITICKER])
    source = KafkaSource(brokers, topic.name, MINITICKERS_GROUP)
    serve_health(settings.host, settings.health_port, source.liveness.reason)
    parts = topic.partitions
    return build_flow(
        source,
        KafkaSink(brokers, parts),
        RedisSink(*split_address(settings.redis_addr, 6379), parts, LAST_TICKERS, settings.tls("redis")),
    )
