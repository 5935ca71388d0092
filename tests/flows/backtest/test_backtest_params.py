"""Strategies by name, file and path, and their typed parameters."""

import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal

import pytest
from backtest_parts import flat, run, spooled, terms

from flows.backtest import Order, ParamError, StrategyError
from flows.backtest.loading import Loaded, load
from flows.backtest.params import as_json, as_text, build, parameters, read_params
from flows.backtest.runs import run_all
from flows.backtest.strategies import MovingAverageCross


class Every:
    whole: int
    share: Decimal = Decimal("0.5")
    ratio: float = 1.5
    on: bool = False
    name: str = "x"
    side: Literal["buy", "sell"] = "buy"
    level: Literal[1, 2] = 1
    several: list[int] = []  # noqa: RUF012
    pair: tuple[Decimal, ...] = ()
    maybe: int | None = None
    LIMIT: ClassVar[int] = 3
    _own: int = 0
    plain = 7

    def on_second(self, stats, account):
        return None


@dataclass(frozen=True)
class Frozen:
    fast: int
    slow: int = 9

    def on_second(self, stats, account):
        return None


class ByInit:
    base: int = 2

    def __init__(self, power: int, name: str = "n") -> None:
        self.value = self.base**power, name

    def on_second(self, stats, account):
        return None


class Both:
    size: int = 4

    def __init__(self, size) -> None:
        self.size = size

    def on_second(self, stats, account):
        return None


def test_every_type_is_read():
    given = {
        "whole": "5", "share": "0.25", "ratio": "2", "on": "yes", "name": "a=b", "side": "sell", "level": "2",
        "several": "1, 2,3", "pair": "1.5,2", "maybe": "4",
    }  # fmt: skip
    values = read_params(Every, given)
    assert values == {
        "whole": 5, "share": Decimal("0.25"), "ratio": 2.0, "on": True, "name": "a=b", "side": "sell", "level": 2,
        "several": [1, 2, 3], "pair": (Decimal("1.5"), Decimal(2)), "maybe": 4,
    }  # fmt: skip
    assert read_params(Every, {name: as_text(value) for name, value in values.items()}) == values
    assert read_params(Every, {"whole": "1", "maybe": "none"})["maybe"] is None
    made = build(Every, values)
    assert (made.whole, made.pair, Every.share) == (5, (Decimal("1.5"), Decimal(2)), Decimal("0.5"))


def test_a_dataclass_and_an_init():
    made = build(Frozen, read_params(Frozen, {"fast": "3"}))
    assert (made.fast, made.slow) == (3, 9)
    assert list(parameters(ByInit)) == ["base", "power", "name"]
    assert build(ByInit, read_params(ByInit, {"power": "3", "base": "10"})).value == (1000, "n")
    assert build(Both, read_params(Both, {})).size == 4


class Loose:
    share: Decimal = 5
    half: Decimal = 0.5
    ratio: float | None = 2
    pair: tuple[Decimal, ...] = [1, 2.5]
    maybe: int = None
    name: str = " as it is "

    def on_second(self, stats, account):
        return None


def test_a_default_has_its_declared_type():
    values = read_params(Loose, {})
    assert values == {
        "share": 5, "half": Decimal("0.5"), "ratio": 2, "pair": (1, Decimal("2.5")), "maybe": None, "name": " as it is "
    }  # fmt: skip
    assert [type(value) for value in (values["share"], values["ratio"], *values["pair"])] == [
        Decimal, float, Decimal, Decimal,
    ]  # fmt: skip
    read = read_params(Loose, {name: as_text(value) for name, value in values.items() if name != "name"})
    assert (read, as_json([*read.values()])) == (values, as_json([*values.values()]))


def test_a_default_of_another_type_is_said():
    class Wrong:
        size: int = 0.5

        def on_second(self, stats, account):
            return None

    with pytest.raises(ParamError, match=r"size: its default 0\.5 is not a whole number"):
        read_params(Wrong, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Every needs --param whole=… (a whole number)"),
        ({"whole": "5.0"}, "whole=5.0: not a whole number"),
        ({"whole": "1", "share": "NaN"}, "share=NaN: not a decimal"),
        ({"whole": "1", "on": "perhaps"}, "on=perhaps: not true or false"),
        ({"whole": "1", "side": "hold"}, "side=hold: not one of buy, sell"),
        ({"whole": "1", "several": "1,b"}, "several=1,b: not a list of a whole number"),
        ({"whole": "1", "maybe": "b"}, "maybe=b: not a whole number or none"),
        ({"whole": "1", "plain": "2"}, "Every has no parameter plain; it has whole, share"),
        ({"whole": "1", "_own": "2"}, "Every has no parameter _own"),
    ],
)
def test_what_is_no_value_is_said(given, message):
    with pytest.raises(ParamError) as caught:
        read_params(Every, given)
    assert message in str(caught.value)


def test_a_type_that_text_can_not_be():
    class Odd:
        what: dict[str, int]

        def on_second(self, stats, account):
            return None

    with pytest.raises(StrategyError, match=r"Odd\.what: no parameter can be"):
        parameters(Odd)


ONE = "class One:\n    size: 'int' = 3\n    def on_second(self, stats, account): pass\n"


def test_by_name_file_and_path(tmp_path, monkeypatch):
    assert load("moving-average-cross").strategy is MovingAverageCross
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "mod_of_strategies.py").write_text(ONE + "class Helper: pass\n")
    (tmp_path / "two.py").write_text("import neighbour\n" + ONE + ONE.replace("One", "Two"))
    (tmp_path / "neighbour.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    of_file = load("pack/mod_of_strategies.py")
    for name in ("pack/mod_of_strategies.py:One", "pack.mod_of_strategies:One", "pack.mod_of_strategies",
                 "pack.mod_of_strategies.One"):  # fmt: skip
        found = load(name)
        assert found.strategy.__name__ == "One"
        assert found.source_sha256 == of_file.source_sha256 is not None
    assert read_params(of_file.strategy, {"size": "4"}) == {"size": 4}
    assert load("two.py:Two").strategy.__name__ == "Two"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nonsense", "", "there is no strategy 'nonsense'; built in are buy_and_hold"),
        ("gone.py", None, "no such strategy file: gone.py"),
        ("a.py", "x = 1\n", "a.py has no class with a method on_second(stats, account)"),
        ("a.py", ONE + ONE.replace("One", "Two"), "a.py has several strategies (One, Two): say which, as a.py:One"),
        ("a.py:Three", ONE, "a.py has no class Three"),
        ("a.py:Three", "class Three: pass\n", "a.py: Three has no method on_second"),
        ("a.py", "def (\n", "a.py can't be loaded: SyntaxError"),
        ("a.py", "1 / 0\n", "a.py can't be loaded: ZeroDivisionError"),
        ("gone.module:One", None, "no module gone"),
    ],
)
def test_what_can_not_be_loaded_is_said(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    if text is not None:
        (tmp_path / "a.py").write_text(text)
    with pytest.raises(StrategyError) as caught:
        load(name)
    assert message in str(caught.value)


class Counting:
    """Keeps its state in lists of its class, as many do."""

    wait: int = 1
    given: list[int] = []  # noqa: RUF012
    seen = []  # noqa: RUF012

    def on_second(self, stats, account):
        self.seen.append(1)
        self.given.append(1)
        return Order.buy("BTCUSDT", "1") if len(self.seen) == len(self.given) == self.wait else None


def test_runs_side_by_side_share_nothing(tmp_path):
    seconds = [flat(n, "BTCUSDT", str(100 + n)) for n in range(6)]
    alone = [run(tmp_path, seconds, Counting, {"wait": str(n)}).figures for n in (1, 2, 3)]
    values = [read_params(Counting, {"wait": str(n)}) for n in (1, 2, 3)]
    together = run_all(spooled(tmp_path, seconds), Loaded("Counting", Counting, None), values, terms())
    assert [one.figures for one in together] == alone
    assert [len(figures["fills"]) for figures in alone] == [1, 1, 1]


@pytest.mark.parametrize("text", ["nan", "inf", "-1e999"])
def test_a_parameter_is_finite(text):
    with pytest.raises(ParamError, match="not a number"):
        read_params(Every, {"whole": "1", "ratio": text})
