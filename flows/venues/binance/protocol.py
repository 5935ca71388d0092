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


class _Answer(msgspec.Struct):
    id: int | None = None
    result: Any = msgspec.UNSET
    code: int | None = None
    msg: str | None = None
    error: dict[str, Any] | None = None


_combined = msgspec.json.Decoder(_Combined)
_event = msgspec.json.Decoder(_Event)
_events = msgspec.json.Decoder(list[msgspec.Raw])
_answer = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class Payload:
    """One object of the exchange: its exact bytes, and what is needed to put it into the log."""

    event_type: str
    symbol: str
    event_time: int  # ms
    data: bytes


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
    event = _event.decode(data)
    return Payload(event.e, event.s, event.E, data)


def _read_answer(frame: bytes) -> Answer:
    answer = _answer.decode(frame)
    if answer.result is msgspec.UNSET and answer.code is None and answer.error is None:
        raise InvalidRecord("not a frame of the exchange: neither a payload nor an answer")
    problem = answer.error or ({"code": answer.code, "msg": answer.msg} if answer.code is not None else None)
    return Answer(answer.id, None if problem is None else f"{problem.get('msg')} (code {problem.get('code')})")


def control(method: str, streams: Sequence[str], message_id: int) -> str:
    """A SUBSCRIBE or UNSUBSCRIBE message."""
    return msgspec.json.encode({"method": method, "params": list(streams), "id": message_id}).decode()
