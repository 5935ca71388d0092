"""What the aggregator answers; symbols are lowercase here."""

from pydantic import BaseModel


class Coin(BaseModel):
    """A symbol and how many users want it."""

    symbol: str
    subscribers: int


class Desired(Coin):
    """A symbol that should stream; `always_on` ones do without subscribers."""

    always_on: bool


class SubscriptionList(BaseModel):
    """What should stream, and what does (`actual` means something only where `actual_known`)."""

    desired: list[Desired]
    actual: list[str]
    actual_known: bool
