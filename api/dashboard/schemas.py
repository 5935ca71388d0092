"""What a page is asked for by its URL, and the rows and series that go on it."""

import base64
import binascii
import json
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_SYMBOL = 64
MAX_CURSOR = 2048
TIME_LIMIT_MS = 10_413_792_000_000  # DateTime64 ends with the year 2299


class PriceColumn(StrEnum):
    """The columns that can be charted: the only names that ever get into a query."""

    CLOSE = "close_price"
    OPEN = "open_price"
    HIGH = "high_price"
    LOW = "low_price"
    CHANGE = "change_price"
    PERCENT = "change_percent"

    @property
    def label(self) -> str:
        """As people call it."""
        return {"change_price": "Change", "change_percent": "Change %"}.get(self.value, self.name.capitalize())


class Range(StrEnum):
    """How far back a chart goes."""

    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H6 = "6h"
    H24 = "24h"
    D7 = "7d"

    @property
    def ms(self) -> int:
        """Its length."""
        return int(self[:-1]) * {"m": 60_000, "h": 3_600_000, "d": 86_400_000}[self[-1]]


class TickerRow(NamedTuple):
    """A row of the table: times in ms, decimals exact."""

    message_id: str
    event_type: str
    event_ms: int
    receive_ms: int
    symbol: str
    close_price: Decimal
    open_price: Decimal
    high_price: Decimal
    low_price: Decimal
    change_price: Decimal
    change_percent: Decimal


@dataclass(frozen=True)
class Cursor:
    """A row's place in the order of the pages: newest first, then by symbol and message id."""

    event_ms: int
    symbol: str
    message_id: str

    @classmethod
    def of(cls, row: TickerRow) -> Self:
        """The place of a row."""
        return cls(row.event_ms, row.symbol, row.message_id)

    def __str__(self) -> str:
        text = json.dumps([self.event_ms, self.symbol, self.message_id], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor of a URL. Raises ValueError."""
        try:
            event_ms, symbol, message_id = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", True))
            f"{symbol}{message_id}".encode()  # JSON can hold half a character, a query can't
        except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError) as error:
            raise ValueError("not a place in the table; start again from the newest rows") from error
        if type(event_ms) is not int or not isinstance(symbol, str) or not isinstance(message_id, str):
            raise ValueError("not a place in the table; start again from the newest rows")
        if not 0 <= event_ms < TIME_LIMIT_MS:
            raise ValueError("a place outside of time; start again from the newest rows")
        return cls(event_ms, symbol, message_id)


def _cursor(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > MAX_CURSOR:
        raise ValueError("not a place in the table; start again from the newest rows")
    return Cursor.parse(value) if value else None


def _symbol(value: Any) -> Any:
    return value.strip().upper()[:MAX_SYMBOL] if isinstance(value, str) else value


Place = Annotated[Cursor | None, BeforeValidator(_cursor), WithJsonSchema({"type": "string", "maxLength": MAX_CURSOR})]


class View(BaseModel):
    """The parameters of the page; `before` and `after` are places of rows, without them it is the newest page."""

    model_config = ConfigDict(frozen=True)

    symbol: Annotated[str, BeforeValidator(_symbol)] = ""
    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    before: Place = None
    after: Place = None
    column: PriceColumn = PriceColumn.CLOSE
    range: Range = Range.H1
    live: bool = True

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if self.before and self.after:
            raise ValueError("a page lies before a row or after one, not both")
        return self

    @property
    def newest(self) -> bool:
        """Is it the page that changes as rows arrive?"""
        return self.before is None and self.after is None

    def url(self, path: str = "/", **changes: object) -> str:
        """The address of this page with some parameters changed; what is as usual is left out."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | changes
        usual = {name: field.default for name, field in type(self).model_fields.items()}
        given = {name: _text(value) for name, value in values.items() if value != usual[name] and value is not None}
        return f"{path}?{urlencode(given)}" if given else path


def _text(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


class Point(NamedTuple):
    """What became of a chart's bucket: its last row's time and value, and the extremes."""

    time_ms: int
    last: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True)
class Series:
    """A column of a symbol over a range that ends with its newest row; never empty, in order of time.

    `start_ms` is that of the first row in the range; a point stands for `bucket_ms`.
    """

    symbol: str
    column: PriceColumn
    range: Range
    start_ms: int
    end_ms: int
    bucket_ms: int
    rows: int
    points: list[Point]
