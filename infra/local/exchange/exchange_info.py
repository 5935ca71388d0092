"""What /api/v3/exchangeInfo answers."""

import json
from typing import Any

from infra.local.exchange.market import Pair
from infra.local.exchange.wire import decimal

_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]


class ExchangeInfo:
    """The listed pairs and the limits, serialised once."""

    def __init__(self, pairs: list[Pair], weight_limit: int) -> None:
        self._rows = {pair.symbol: _dumps(_row(pair)) for pair in pairs}
        limits = [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight_limit},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
        ]
        self._limits = _dumps(limits)

    def body(self, now_ms: int, symbols: list[str] | None) -> bytes:
        """The JSON answer for these symbols, or for all."""
        rows = self._rows.values() if symbols is None else (self._rows[symbol] for symbol in symbols)
        return (
            f'{{"timezone":"UTC","serverTime":{now_ms},"rateLimits":{self._limits},'
            f'"exchangeFilters":[],"symbols":[{",".join(rows)}]}}'
        ).encode()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _row(pair: Pair) -> dict[str, Any]:
    return {
        "symbol": pair.symbol,
        "status": "TRADING",
        "baseAsset": pair.base,
        "baseAssetPrecision": 8,
        "quoteAsset": pair.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": decimal(pair.tick),
                "maxPrice": decimal(10**15),
                "tickSize": decimal(pair.tick),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": decimal(pair.lot),
                "maxQty": decimal(10**18),
                "stepSize": decimal(pair.lot),
            },
            {"filterType": "NOTIONAL", "minNotional": decimal(5 * 10**8), "applyMinToMarket": True},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
    }
