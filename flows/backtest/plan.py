"""Everything that decides a run, from a command line or from a result that is to be checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from flows.backtest.account import Terms
from flows.backtest.errors import BacktestError
from flows.backtest.loading import Loaded
from flows.backtest.params import as_text
from flows.backtest.result import KEYS
from flows.backtest.units import MONEY_PLACES, RATE, plain, rate, scaled_down
from flows.replay import Bound, ReplaySettings
from flows.replay_range import LATEST_MS, Offsets

Json = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A run of a strategy over a range; params, cash and bps as text. Raises BacktestError for what can't be."""

    strategy: str
    topic: str
    start: Bound = None
    end: Bound = None
    params: Mapping[str, str] | None = None
    cash: str = "10000"
    fee_bps: str = "10"
    slippage_bps: str = "0"
    symbols: tuple[str, ...] = ()
    allow_short: bool = False
    allow_debt: bool = False
    settings: ReplaySettings = field(default_factory=ReplaySettings)
    until: Offsets | None = None

    def terms(self) -> Terms:
        """What trading costs. Raises BacktestError."""
        cash = scaled_down(self.cash, MONEY_PLACES, "cash")
        if cash <= 0:
            raise BacktestError(f"cash: {self.cash} is not above 0")
        slippage = rate(self.slippage_bps, "slippage-bps")
        if slippage == RATE:
            raise BacktestError("slippage-bps: at 10000 what is sold has no price")
        return Terms(cash, rate(self.fee_bps, "fee-bps"), slippage, self.allow_short, self.allow_debt)

    def manifest(self, replayed: Mapping[str, Any], loaded: Loaded) -> Json:
        """The replay's manifest, and under `backtest` what else decided the run."""
        terms = self.terms()
        return {
            **replayed,
            "backtest": {
                "fee_bps": plain(terms.fee_rate, 4),
                "slippage_bps": plain(terms.slippage_rate, 4),
                "symbols": list(self.symbols),
                "allow_short": self.allow_short,
                "allow_debt": self.allow_debt,
                "strategy_sha256": loaded.source_sha256,
                "code": code_version(),
            },
        }

    @classmethod
    def of_result(cls, result: object) -> Self:
        """The plan of a result as `--json` wrote it, over the same offsets. Raises BacktestError."""
        if isinstance(result, list):
            raise BacktestError("this is the result of a sweep; a check needs the result of one run")
        if not isinstance(result, dict) or (missing := [key for key in KEYS if key not in result]):
            what = f"without {', '.join(missing)}" if isinstance(result, dict) else "no JSON object"
            raise BacktestError(f"this is no result of a backtest: {what}")
        try:
            manifest = result["manifest"]
            ours = manifest["backtest"]
            if not isinstance(result["strategy"], str) or not isinstance(manifest["topic"], str):
                raise TypeError("strategy and topic are texts")
            if any(_whole(number) < 0 for number in manifest["settings"].values()):
                raise ValueError("a setting is below 0")
            ends = {int(number): _whole(part["end"]) for number, part in manifest["partitions"].items()}
            return cls(
                result["strategy"],
                manifest["topic"],
                _bound(manifest["from"]),
                _bound(manifest["to"]),
                {name: as_text(_of_json(value)) for name, value in result["params"].items()},
                result["cash"],
                ours["fee_bps"],
                ours["slippage_bps"],
                tuple(ours["symbols"]),
                ours["allow_short"],
                ours["allow_debt"],
                ReplaySettings(**manifest["settings"]),
                ends,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BacktestError(f"this result's manifest can't be read: {type(error).__name__}: {error}") from error

    def elsewhere(self, topic: str) -> Self:
        """The same run over another topic, whose offsets are its own."""
        ends = [None if isinstance(bound, dict) else bound for bound in (self.start, self.end)]
        return replace(self, topic=topic, start=ends[0], end=ends[1], until=None)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, same_topic: bool) -> tuple[list[str], list[str]]:
    """What differs between two results, and what may: versions, and offsets where the topics are two."""
    wrong = [_line(key, before[key], now[key]) for key in KEYS if key != "manifest" and before[key] != now[key]]
    notes: list[str] = []
    for path, old, new in _leaves(before["manifest"], now["manifest"]):
        name = path.removeprefix(".")
        if old == new:
            continue
        may = name in {"version", "code", "backtest.code"}
        if not same_topic:
            may |= name in {"topic", "from", "to", "records"} or name.startswith("partitions")
        (notes if may else wrong).append(_line(f"manifest.{name}", old, new))
    return wrong, notes


def _leaves(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [leaf for name in names for leaf in _leaves(old.get(name), new.get(name), f"{path}.{name}")]
    return [(path, old, new)]


def _line(key: str, old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):
        pairs = enumerate(zip(old, new, strict=False))
        at = next((number for number, (one, two) in pairs if one != two), min(len(old), len(new)))
        return f"{key}: {len(old)} and now {len(new)}, different from number {at + 1} on"
    return f"{key}: {old!r}, now {new!r}"


def _bound(value: Any) -> Bound:
    if isinstance(value, dict):
        return {int(number): _whole(offset) for number, offset in value.items()}
    return None if value is None else min(_whole(value), LATEST_MS)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _of_json(value: Any) -> Any:
    return tuple(map(_of_json, value)) if isinstance(value, list) else value


@cache
def code_version() -> str:
    """A digest of the sources of this package."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
