"""Binance's market-data protocol, sans-I/O: frames to payloads, byte for byte, and the control messages.

Combined frame: `{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1790000000123,"s":"BTCUSDT",…}}`.
Raw frame: the object of `data` alone. `!miniTicker@arr`: an array of miniTicker objects.
Answer to a control message: `{"result":null,"id":1}`, or `{"code":2,"msg":"…"}` with or without an `error` around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flows.domain.errors import InvalidRecord
from flows.domain.market import scaled
from flows.domain.partition import MAX_TRADE_AFTER_EVENT_MS

MAX_TIME_MS = 1 << 53  # beyond it a time is poison, and no timestamp for Kafka
MINI_TICKERS = "!miniTicker@arr"
MAX_STREAMS = 1024  # a connection
STREAMS_A_MESSAGE = 200
CONTROL_PAUSE_S = 0.4  # 5 messages a second are allowed, and pings and pongs count


class _Combined(msgspec.Struct):
    data: msgspec.Raw
    stream: str


class _Event(msgspec.Struct):
    e: str
    E: int
    s: str = ""


class _Trade(msgspec.Struct, gc=False):
    e: str
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool


class _Answer(msgspec.Struct):
    id: int | None = None
    result: Any = msgspec.UNSET
    code: int | None = None
    msg: str | None = None
    error: dict[str, Any] | None = None


_combined = msgspec.json.Decoder(_Combined)
_trade = msgspec.json.Decoder(_Trade)
_event = msgspec.json.Decoder(_Event)
_events = msgspec.json.Decoder(list[msgspec.Raw])
_answer = msgspec.json.Decoder(_Answer)


class Payload(msgspec.Struct, gc=False):
    """One object of the exchange: its exact bytes, and what is needed to put it into the log.

    `agg_id` is None unless it is a trade that can be used: one that must come again over REST if this one can't.
    """

    event_type: str
    symbol: str
    event_time: int  # ms
    data: bytes
    agg_id: int | None = None
    first_trade: int = -1  # f and l: -1 in the exchange's invalid rows
    last_trade: int = -1
    trade_time: int = 0  # ms


@dataclass(frozen=True, slots=True)
class Answer:
    """The exchange's answer to a control message; `error` is None when it was accepted."""

    id: int | None
    error: str | None


def agg_trade_stream(symbol: str) -> str:
    """The stream of a symbol's aggregate trades."""
    return f"{symbol.lower()}@aggTrade"


def read_frame(frame: bytes) -> list[Payload] | Answer:
    """What a text frame carries. Raises InvalidRecord for anything that is not the exchange's protocol."""
    try:
        if frame.startswith(b'{"stream":'):
            data = bytes(_combined.decode(frame).data)
        elif frame.startswith((b'{"e":', b"[")):
            data = frame
        else:
            return _read_answer(frame)
        if data.startswith(b"["):
            return [_payload(bytes(item)) for item in _events.decode(data)]
        return [_payload(data)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"not a frame of the exchange: {error}") from error


def _payload(data: bytes) -> Payload:
    if data.startswith(b'{"e":"aggTrade"'):
        try:
            trade = _trade.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # the core says what is wrong with it
        else:
            if _is_usable(trade):
                return Payload(trade.e, trade.s, trade.E, data, trade.a, trade.f, trade.l, trade.T)
            return Payload(trade.e, trade.s, trade.E, data)
    event = _event.decode(data)
    return Payload(event.e, event.s, event.E, data)


def _is_usable(trade: _Trade) -> bool:
    """Whether the core takes it for a trade, or for an invalid row that stands for none."""
    if trade.a < 0 or not 0 < trade.T < MAX_TIME_MS or trade.T - trade.E > MAX_TRADE_AFTER_EVENT_MS:
        return False
    try:
        empty = scaled(trade.p) == 0, scaled(trade.q) == 0
    except InvalidRecord:
        return False
    return all(empty) if trade.f == trade.l == -1 else 0 <= trade.f <= trade.l and not any(empty)


def _read_answer(frame: bytes) -> Answer:
    answer = _answer.decode(frame)
    if answer.result is msgspec.UNSET and answer.code is None and answer.error is None:
        raise InvalidRecord("not a frame of the exchange: neither a payload nor an answer")
    problem = answer.error or ({"code": answer.code, "msg": answer.msg} if answer.code is not None else None)
    return Answer(answer.id, None if problem is None else f"{problem.get('msg')} (code {problem.get('code')})")


def control(method: str, streams: Sequence[str], message_id: int) -> str:
    """A SUBSCRIBE or UNSUBSCRIBE message."""
    return msgspec.json.encode({"method": method, "params": list(streams), "id": message_id}).decode()
