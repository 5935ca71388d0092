from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RawAggTradeRequest(_message.Message):
    __slots__ = ("symbols", "start")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    start: Position
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., start: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class RawMiniTickerRequest(_message.Message):
    __slots__ = ("symbols", "start")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    start: Position
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., start: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("timestamp_ms", "offset", "offsets")
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    timestamp_ms: int
    offset: int
    offsets: Offsets
    def __init__(self, timestamp_ms: _Optional[int] = ..., offset: _Optional[int] = ..., offsets: _Optional[_Union[Offsets, _Mapping]] = ...) -> None: ...

class Offsets(_message.Message):
    __slots__ = ("by_partition",)
    class ByPartitionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    BY_PARTITION_FIELD_NUMBER: _ClassVar[int]
    by_partition: _containers.ScalarMap[int, int]
    def __init__(self, by_partition: _Optional[_Mapping[int, int]] = ...) -> None: ...

class RawResponse(_message.Message):
    __slots__ = ("payload", "symbol", "event_time_ms", "receive_time_ms", "partition", "offset", "source")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    symbol: str
    event_time_ms: int
    receive_time_ms: int
    partition: int
    offset: int
    source: str
    def __init__(self, payload: _Optional[bytes] = ..., symbol: _Optional[str] = ..., event_time_ms: _Optional[int] = ..., receive_time_ms: _Optional[int] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...
