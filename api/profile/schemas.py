"""What the REST interface takes and gives (contract section 3); the names are the original's."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema

from api.profile.decimals import QUANTITY_PATTERN, parse_quantity, plain

MAX_SYMBOL = 32


def rfc3339(time: datetime) -> str:
    """UTC with Z; a fraction only as long as it must be, as Go prints it."""
    text = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{time.microsecond:06d}".rstrip("0") + "Z" if time.microsecond else f"{text}Z"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters")
    return text


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not contain half characters") from error
    return text


def _change(text: str) -> str:
    if parse_quantity(text) == 0:
        raise ValueError("must not be zero")
    return text


SymbolName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_SYMBOL),
    AfterValidator(_printable),
    Field(description="in any case", examples=["btcusdt"]),
]
QuantityChange = Annotated[
    str,
    AfterValidator(_change),
    Field(
        description="a decimal string, not zero: positive adds, negative reduces",
        examples=["1.5"],
        json_schema_extra={"pattern": QUANTITY_PATTERN},
    ),
]
# JSON can carry half a surrogate pair, which has no UTF-8 and so no place in a gRPC message.
Text = Annotated[str, AfterValidator(_encodable)]
PlainDecimal = Annotated[
    Decimal,
    PlainSerializer(plain, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["1.5"]}),
]
Time = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Credentials(BaseModel):
    """A name and its password."""

    name: Text = Field(examples=["myuser"])
    password: Text = Field(examples=["mypassword123"])


class NewPassword(BaseModel):
    """The present password and the next one."""

    currentPassword: Text = Field(examples=["mypassword123"])
    newPassword: Text = Field(examples=["another password of mine"])


class Confirmation(BaseModel):
    """That it is really the account's owner who asks."""

    password: Text | None = Field(default=None, examples=["mypassword123"])


class Session(BaseModel):
    """A login that can still be refreshed: when, from which address and by which program."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    createdAt: Time = Field(validation_alias="created_at")
    lastUsedAt: Time = Field(validation_alias="last_used_at")
    expiresAt: Time = Field(validation_alias="expires_at")
    current: bool
    address: str
    userAgent: str = Field(validation_alias="user_agent")


class AccessToken(BaseModel):
    """A JWT for `Authorization: Bearer`."""

    accessToken: str


class Message(BaseModel):
    """It is done."""

    message: str


class CoinChange(BaseModel):
    """How much of a coin to add or take away."""

    symbol: SymbolName
    quantity: QuantityChange


class CoinName(BaseModel):
    """Which coin."""

    symbol: SymbolName


class Coin(BaseModel):
    """A coin held; quantities are exact decimal strings."""

    model_config = ConfigDict(from_attributes=True)

    ID: int = Field(validation_alias="id")
    CreatedAt: Time = Field(validation_alias="created_at")
    UpdatedAt: Time = Field(validation_alias="updated_at")
    DeletedAt: Time | None = Field(default=None, validation_alias="deleted_at")
    Symbol: str = Field(validation_alias="symbol")
    Quantity: PlainDecimal = Field(validation_alias="quantity")
    UserID: uuid.UUID = Field(validation_alias="user_id")


class Profile(BaseModel):
    """A user and the coins held, by ID."""

    model_config = ConfigDict(from_attributes=True)

    ID: uuid.UUID = Field(validation_alias="id")
    Name: str = Field(validation_alias="name")
    Coins: list[Coin] = Field(validation_alias="coins")


class TradedSymbol(BaseModel):
    """A pair that can be held."""

    symbol: str = Field(examples=["btcusdt"])
    base: str = Field(examples=["BTC"])
    quote: Literal["USDT"]
