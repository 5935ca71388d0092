"""The exchanges we can listen to: one folder each, one line here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Venue:
    """Where an exchange's public market data is."""

    ws_url: str
    rest_url: str


VENUES = {
    "simulated": Venue("ws://127.0.0.1:9443", "http://127.0.0.1:9443"),
    "binance": Venue("wss://data-stream.binance.vision", "https://data-api.binance.vision"),
}
