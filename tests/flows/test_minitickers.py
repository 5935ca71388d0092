"""flows.minitickers on real Kafka and Valkey, and its arithmetic against Decimal."""

import json
import signal
import time
import uuid
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from flow_process import TopicReader, create_topic, make_recovery, poll_until, produce, running_flow
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from flows.domain.errors import InvalidRecord
from flows.minitickers import kafka_msg
from flows.records import decode_miniticker

NOW = 1_790_000_000_123


def frame(symbol="BTCUSDT", at=NOW, c="64000.1", o="63000", h="65000.00000001", low="62000"):
    return json.dumps({"e": "24hrMiniTicker", "E": at, "s": symbol, "c": c, "o": o, "h": h, "l": low}).encode()


prices = st.decimals("0", "9999999", places=8).map(lambda d: f"{d:f}")


@given(prices, prices)
def test_change_is_exact_and_rounded_half_even(close, open_):
    try:
        row = json.loads(kafka_msg(decode_miniticker(frame(c=close, o=open_)), 5))
    except InvalidRecord as error:
        assert "out of range in percent" in str(error)  # noqa: PT017 - only where the open is nearly nothing
        assert Decimal(close) / Decimal(open_) > 10**7
        return
    with localcontext() as context:
        context.prec = 80
        change = Decimal(close) - Decimal(open_)
        percent = 100 * change / Decimal(open_) if Decimal(open_) else Decimal(0)
        assert Decimal(row["change_price"]) == change
        expected = percent.quantize(Decimal("1e-8"), rounding=ROUND_HALF_EVEN)
        assert Decimal(row["change_percent"]) == expected
    assert row["receive_time"] == 5


@pytest.mark.parametrize("value", [
    b"", b"{", b"[]", frame(symbol=""), frame(at=0), frame(c="-1"), frame(c="1e5"), frame(h="99999999999"),
    b'{"e":"aggTrade","E":1,"s":"X","c":"1","o":"1","h":"1","l":"1"}', b'{"e":"24hrMiniTicker","E":1,"s":"X","c":1.5}',
])  # fmt: skip
def test_poison_is_named(value):
    with pytest.raises(InvalidRecord):
        decode_miniticker(value)


def test_rows_newest_value_and_dlq(kafka, valkey, tmp_path):
    now = time.time_ns() // 1_000_000  # topics that keep 7 days lose older records within a minute
    topic, tag = f"raw-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:8].upper()
    create_topic(kafka, topic, 3)
    symbol = f"{tag}USDT"
    values = [frame(symbol, now + 1000), frame(symbol, now), b"poison", frame(symbol, now + 2000, c="1")]
    produce(kafka, topic, [(b"k", value, 1, [("received_ms", str(now + 77).encode())]) for value in values])
    recovery, log = make_recovery(tmp_path / "recovery"), tmp_path / "flow.log"
    environment = {"BROKERS": kafka, "REDIS_ADDR": valkey, "KAFKA_TOPIC": topic}
    with running_flow("flows.minitickers", recovery, log, **environment) as process:
        reader = TopicReader(kafka, "binance.miniticker")
        mine = poll_until(lambda: [m for m in reader.read() if m.key() == symbol.encode()][2:] and reader.messages)
        rows = [json.loads(m.value()) for m in mine if m.key() == symbol.encode()]
        reader.close()
        redis = Redis.from_url(f"redis://{valkey}")
        last = poll_until(lambda: json.loads(redis.get(f"miniticker:last:{symbol.lower()}") or "{}"))
        redis.close()
        dlq = TopicReader(kafka, f"{topic}.dlq")
        poison = poll_until(dlq.read)
        dlq.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
    assert [row["message_id"] for row in rows] == [f"{symbol}-{now + d}" for d in (1000, 0, 2000)]
    assert rows[0] == {
        "message_id": f"{symbol}-{now + 1000}", "event_type": "24hrMiniTicker", "event_time": now + 1000,
        "receive_time": now + 77, "symbol": symbol, "close_price": "64000.10000000",
        "open_price": "63000.00000000", "high_price": "65000.00000001", "low_price": "62000.00000000",
        "change_price": "1000.10000000", "change_percent": "1.58746032",
    }  # fmt: skip
    assert last == rows[2]
    assert [m.value() for m in poison] == [b"poison"]
    assert dict(poison[0].headers())["source_offset"] == b"2"
