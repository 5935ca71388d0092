"""Who wants which symbol: the fold of the compacted topic `tracker.subscriptions`.

A record is `BTCUSDT:<user>` → `{"symbol":"BTCUSDT","user":"<user>"}`; a null value takes it back.
Symbols have no colon, so what follows the first one is the user, whatever it contains.
"""

import orjson


def record_key(symbol: str, user: str) -> bytes:
    """The key of a subscription; `symbol` is uppercase."""
    return f"{symbol}:{user}".encode()


def record_value(symbol: str, user: str) -> bytes:
    """The value of a subscription that is there."""
    return orjson.dumps({"symbol": symbol, "user": user})


class Subscriptions:
    """The users of each symbol, record by record."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> bool:
        """Take in a record of the topic; False if it is none of ours."""
        try:
            symbol, colon, user = (key or b"").decode().partition(":")
        except UnicodeDecodeError:
            return False
        if not (symbol and colon and user):
            return False
        if value is not None:
            self._users.setdefault(symbol, set()).add(user)
        elif users := self._users.get(symbol):
            users.discard(user)
            if not users:
                del self._users[symbol]
        return True

    def subscribers(self, symbol: str) -> int:
        """How many users want a symbol (uppercase)."""
        return len(self._users.get(symbol, ()))

    def counts(self) -> dict[str, int]:
        """The symbols that are wanted, each with the number of its users."""
        return {symbol: len(users) for symbol, users in self._users.items()}
