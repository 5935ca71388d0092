"""Query parameters, read as strictly as Binance reads them."""

import json
import re
from collections.abc import Mapping

_SYMBOL = re.compile(r"[\w\-.&]{1,50}")
_SYMBOL_RANGE = r"^[\\w\\-._&&[^a-z]]{1,50}$"
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
MAX_ROWS = 1000


class ApiError(Exception):
    """A request Binance would refuse: its code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid_symbol() -> ApiError:
    """The error for a symbol that is not listed."""
    return ApiError(-1121, "Invalid symbol.")


def _illegal(name: str, legal: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


class Params:
    """The parameters of one request; every reader raises ApiError."""

    def __init__(self, query: Mapping[str, str], known: set[str]) -> None:
        self._query, self._known = query, known

    def check_names(self) -> None:
        """Refuse parameters the endpoint does not know."""
        if extra := len(set(self._query) - self._known):
            sent = len(self._query)
            raise ApiError(-1101, f"Too many parameters; expected '{sent - extra}' and received '{sent}'.")

    def has(self, name: str) -> bool:
        """Whether it was sent."""
        return name in self._query

    def given(self, name: str) -> str:
        """An optional parameter as it was sent, or nothing."""
        return self._query.get(name, "")

    def text(self, name: str) -> str:
        """A mandatory parameter."""
        value = self._query.get(name, "")
        if not value:
            raise ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def symbol(self) -> str:
        """The mandatory `symbol`."""
        return self._legal_symbol("symbol", self.text("symbol"))

    def symbols(self) -> list[str] | None:
        """The optional `symbols`, a JSON array: ["BTCUSDT","ETHUSDT"]."""
        if not self.has("symbols"):
            return None
        try:
            wanted = json.loads(self._query["symbols"])
        except ValueError as error:
            raise _illegal(
                "symbols", r'^\\[("[\\w\\-._&&[^a-z]]{1,50}"(,"[\\w\\-._&&[^a-z]]{1,50}"){0,})?\\]$'
            ) from error
        if not isinstance(wanted, list) or not wanted:
            raise ApiError(-1105, "Parameter 'symbols' was empty.")
        return [self._legal_symbol("symbols", str(symbol)) for symbol in wanted]

    @staticmethod
    def _legal_symbol(name: str, symbol: str) -> str:
        if not _SYMBOL.fullmatch(symbol) or re.search("[a-z]", symbol):
            raise _illegal(name, _SYMBOL_RANGE)
        return symbol

    def number(self, name: str) -> int | None:
        """An optional non-negative integer."""
        if name not in self._query:
            return None
        value = self._query[name]
        if not value:
            raise ApiError(-1105, f"Parameter '{name}' was empty.")
        if not _NUMBER.fullmatch(value):
            raise _illegal(name, "^[0-9]{1,20}$")
        number = int(value)
        if number >= 2**63:
            raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
        return number

    def limit(self, default: int) -> int:
        """`limit`, at most 1000."""
        value = self.number("limit")
        if value is None:
            return default
        if value == 0:
            raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value, MAX_ROWS)
