"""Who wants which symbol: the fold of the compacted topic `tracker.subscriptions`.

A record is `BTCUSDT:<user>` → `{"symbol":"BTCUSDT","user":"<user>"}`; a null value takes it back. A lease has
`"until_ms"` besides: the aggregator takes it back when that has passed and nobody has renewed it.
Symbols have no colon, so what follows the first one is the user, whatever it contains.
"""

import msgspec
import orjson


class _Value(msgspec.Struct):
    until_ms: int | None = None


_value = msgspec.json.Decoder(_Value)


def record_key(symbol: str, user: str) -> bytes:
    """The key of a subscription; `symbol` is uppercase."""
    return f"{symbol}:{user}".encode()


def record_value(symbol: str, user: str, until_ms: int | None = None) -> bytes:
    """The value of a subscription that is there; `until_ms` makes it a lease."""
    lease = {} if until_ms is None else {"until_ms": until_ms}
    return orjson.dumps({"symbol": symbol, "user": user} | lease)


class Subscriptions:
    """The users of each symbol, record by record."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}
        self._leases: dict[tuple[str, str], int] = {}  # (symbol, user) → until_ms

    def apply(self, key: bytes | None, value: bytes | None) -> bool:
        """Take in a record of the topic; False if it is none of ours."""
        try:
            symbol, colon, user = (key or b"").decode().partition(":")
        except UnicodeDecodeError:
            return False
        if not (symbol and colon and user):
            return False
        self._leases.pop((symbol, user), None)
        if value is not None:
            try:
                until_ms = _value.decode(value).until_ms
            except (msgspec.DecodeError, UnicodeDecodeError):
                return False
            self._users.setdefault(symbol, set()).add(user)
            if until_ms is not None:
                self._leases[symbol, user] = until_ms
        elif users := self._users.get(symbol):
            users.discard(user)
            if not users:
                del self._users[symbol]
        return True

    def run_out(self, now_ms: int) -> list[tuple[str, str]]:
        """(symbol, user) of the leases that nobody has renewed in time."""
        return [lease for lease, until_ms in self._leases.items() if until_ms <= now_ms]

    def subscribers(self, symbol: str) -> int:
        """How many users want a symbol (uppercase)."""
        return len(self._users.get(symbol, ()))

    def counts(self) -> dict[str, int]:
        """The symbols that are wanted, each with the number of its users."""
        return {symbol: len(users) for symbol, users in self._users.items()}
