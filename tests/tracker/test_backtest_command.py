"""`tracker backtest` as people run it: over topics of a real Kafka."""

import gc
import hashlib
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "flows" / "backtest"))
from backtest_topics import fill, made_up, recorded
from typer.testing import CliRunner

from flows.domain.market import decimal_8
from flows.replay import Replay
from tracker.main import build_app

START_MS = 1_723_161_255_000
BTC_ETH = "spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz"


def up_and_down():
    """BTC goes up and down, and ETH up; BTC trades each second, ETH every other."""
    prices = [100 + abs(n % 40 - 20) for n in range(200)]
    seconds = []
    for n, price in enumerate(prices):
        seconds.append((START_MS + 1000 * n, "BTCUSDT", [f"{price}", f"{price}.5"]))
        if n % 2 == 0:
            seconds.append((START_MS + 1000 * n + 1, "ETHUSDT", [f"{50 + n // 10}"]))
    return made_up(seconds)


@pytest.fixture(scope="module")
def waves(kafka):
    """A topic of these trades."""
    return fill(kafka, up_and_down())


@pytest.fixture
def backtest(kafka, tmp_path):
    """`backtest(words…)` runs the command in a directory of its own."""

    def run(*words, ok=True, **env):
        done = subprocess.run(
            [sys.executable, "-m", "tracker", "backtest", *words], cwd=tmp_path, capture_output=True, text=True, timeout=90,
            env={**os.environ, "BROKERS": kafka, "PYTHONPATH": str(Path(__file__).parents[2]), **env}, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == (0 if ok else 1), done.stderr
        return done

    run.directory = tmp_path
    return run


def test_result_table_json_equity_and_check(backtest, waves):
    done = backtest("buy_and_hold", "--topic", waves, "--json", "a.json", "--equity", "a.csv", "--slippage-bps", "5")
    result = json.loads((backtest.directory / "a.json").read_text())
    assert list(result) == [
        "strategy", "params", "symbols", "start", "end", "cash", "final_equity", "total_return", "buy_and_hold_return",
        "max_drawdown", "sharpe", "volatility", "turnover", "fees", "exposure", "fills", "equity_sha256", "manifest",
    ]  # fmt: skip
    assert result["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert [(f["symbol"], f["timestamp"] - START_MS, f["price"]) for f in result["fills"]] == [
        ("BTCUSDT", 1000, str(119 * Decimal("1.0005"))), ("ETHUSDT", 2000, "50.025"),
    ]  # fmt: skip
    spent = sum(Decimal(f["price"]) * Decimal(f["quantity"]) + Decimal(f["fee"]) for f in result["fills"])
    held = {f["symbol"]: Decimal(f["quantity"]) for f in result["fills"]}
    assert Decimal(result["final_equity"]) == 10000 - spent + held["BTCUSDT"] * Decimal("119.5") + held["ETHUSDT"] * 69
    equity = (backtest.directory / "a.csv").read_bytes()
    assert hashlib.sha256(equity).hexdigest() == result["equity_sha256"]
    assert len(equity.splitlines()) == 200
    for text in ("total return", "standard deviation", result["equity_sha256"], "2 fills"):
        assert text in done.stdout

    same = backtest("--check", "a.json")
    assert same.stdout == f"a.json: the same result, equity {result['equity_sha256']}\n"
    for path, value in ((("final_equity",), "1"), (("fills", 1, "price"), "50.026"), (("manifest", "sha256"), "0"),
                        (("manifest", "backtest", "fee_bps"), "9")):  # fmt: skip
        changed = json.loads(json.dumps(result))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (backtest.directory / "b.json").write_text(json.dumps(changed))
        assert "b.json: not the same result:" in backtest("--check", "b.json", ok=False).stderr


def test_a_check_over_another_topic_of_the_same_trades(backtest, kafka, waves):
    backtest("moving_average_cross", "--topic", waves, "--json", "a.json", "--param", "fast=2", "--param", "slow=5")
    other = fill(kafka, up_and_down(), after_ms=6000)
    done = backtest("--check", "a.json", "--topic", other)
    assert "the same result" in done.stdout
    assert f"note: manifest.topic: '{waves}', now '{other}'" in done.stderr
    fewer = fill(kafka, up_and_down()[:-40])
    assert "final_equity" in backtest("--check", "a.json", "--topic", fewer, ok=False).stderr


def test_a_check_after_the_topic_has_grown(backtest, kafka):
    values = up_and_down()
    topic = fill(kafka, values[:200])
    for number, words in enumerate(([], ["--to", "2024-08-08T23:57:00Z"],
                                    ["--from", "2024-08-08T23:54:30Z", "--to", "2030-01-01"])):  # fmt: skip
        backtest("buy_and_hold", "--topic", topic, *words, "--json", f"{number}.json")
    fill(kafka, values[200:], name=topic)
    for number in range(3):
        assert "the same result" in backtest("--check", f"{number}.json").stdout


STRATEGY = '''
from decimal import Decimal
from flows.backtest import Order

class Dip:
    """Buys below, sells above."""

    symbol: str
    below: Decimal = Decimal("105")
    size: int = 3

    def on_second(self, stats, account):
        bar = stats.get(self.symbol)
        if bar is None:
            return None
        if bar.close <= self.below and not account.position(self.symbol) and not account.open_orders:
            return Order.buy(self.symbol, self.size)
        if bar.close >= self.below + 10 and account.position(self.symbol):
            return Order.sell(self.symbol, account.position(self.symbol))
'''


def test_a_strategy_of_ones_own_by_file_and_path_and_what_is_said_of_its_parameters(backtest, waves):
    (backtest.directory / "dip.py").write_text(STRATEGY)
    common = ("--topic", waves, "--json", "-")
    of_file = json.loads(backtest("dip.py", *common, "--param", "symbol=BTCUSDT", "--param", "below=103.5").stdout)
    assert of_file["params"] == {"symbol": "BTCUSDT", "below": "103.5", "size": 3}
    # Below 103.5 first at 17 s (103.5 itself); the next second opens at 102.
    assert [(f["timestamp"] - START_MS, f["side"], f["price"]) for f in of_file["fills"][:2]] == [
        (18_000, "buy", "102"), (34_000, "sell", "114"),
    ]  # fmt: skip
    of_path = json.loads(backtest("dip:Dip", *common, "--param", "symbol=BTCUSDT", "--param", "below=103.5").stdout)
    assert (of_path["fills"], of_path["equity_sha256"]) == (of_file["fills"], of_file["equity_sha256"])
    for words, message in (
        ((), "Dip needs --param symbol=… (text)"),
        (("--param", "sybol=X"), "Dip has no parameter sybol; it has symbol, below, size"),
        (("--param", "symbol=BTCUSDT", "--param", "below=low"), "below=low: not a decimal"),
        (("--param", "symbol=BTCUSDT", "--param", "size=1.5"), "size=1.5: not a whole number"),
        (("--param", "symbol"), "--param symbol: write name=value"),
        (("--param", "symbol=A", "--sweep", "symbol=A,B"), "symbol is both in --param and in --sweep"),
    ):
        assert message in backtest("dip.py", "--topic", waves, *words, ok=False).stderr


def test_a_sweep_is_its_single_runs_best_first(backtest, waves):
    words = ("moving_average_cross", "--topic", waves)
    done = backtest(*words, "--sweep", "fast=2,3", "--sweep", "slow=5,8,13", "--json", "sweep.json")
    swept = json.loads((backtest.directory / "sweep.json").read_text())
    assert len(swept) == 6
    returns = [Decimal(one["total_return"]) for one in swept]
    assert returns == sorted(returns, reverse=True)
    assert len(set(returns)) > 3
    rows = [line.split()[:2] for line in done.stdout.splitlines() if re.match(r" *[23] +\d", line)]
    assert rows == [[str(one["params"]["fast"]), str(one["params"]["slow"])] for one in swept]
    for one in (swept[0], swept[-1]):
        params = [word for name, value in one["params"].items() for word in ("--param", f"{name}={value}")]
        assert json.loads(backtest(*words, *params, "--json", "-").stdout) == one
    assert "result of a sweep" in backtest("--check", "sweep.json", ok=False).stderr
    some = backtest(*words, "--sweep", "fast=3,2,7,9", "--sweep", "slow=5", "--json", "some.json")
    assert (
        "impossible, and left out: 2 of 4 combinations, the first: fast (7) must be above 0 and below slow (5)"
        in some.stderr
    )
    of_slow_5 = [one for one in swept if one["params"]["slow"] == 5]
    assert json.loads((backtest.directory / "some.json").read_text()) == of_slow_5
    assert "below slow" in backtest(*words, "--sweep", "fast=7,9", "--param", "slow=5", ok=False).stderr


def test_ranges_and_symbols(backtest, waves):
    whole = json.loads(backtest("periodic_rebalance", "--topic", waves, "--json", "-", "--param", "every_s=10").stdout)
    part = json.loads(
        backtest("periodic_rebalance", "--topic", waves, "--json", "-", "--param", "every_s=10",
                 "--to", "2024-08-08T23:55:15Z").stdout
    )  # fmt: skip
    assert part["end"] == "2024-08-08T23:55:15Z"
    before = [fill for fill in whole["fills"] if fill["timestamp"] < START_MS + 60_000]
    assert part["fills"] == before  # what came later changed nothing
    assert len(before) > 4
    one = json.loads(backtest("buy_and_hold", "--topic", waves, "--json", "-", "--symbols", "ethusdt").stdout)
    assert one["symbols"] == ["ETHUSDT"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topic", "TOPIC"], "say what to run over what"),
        (["buy_and_hold"], "say what to run over what"),
        (["nonsense", "--topic", "TOPIC"], "there is no strategy 'nonsense'; built in are buy_and_hold, moving_average_cross"),
        (["none.py", "--topic", "TOPIC"], "no such strategy file: none.py"),
        (["no.module:X", "--topic", "TOPIC"], "no module no "),
        (["buy_and_hold", "--topic", "gone"], "gone"),
        (["buy_and_hold", "--topic", "TOPIC", "--from", "soon"], "neither an ISO time"),
        (["buy_and_hold", "--topic", "TOPIC", "--from", "2030-01-01"], "error: "),
        (["buy_and_hold", "--topic", "TOPIC", "--symbols", "DOGEUSDT"], "no seconds of DOGEUSDT"),
        (["buy_and_hold", "--topic", "TOPIC", "--cash", "0"], "cash: 0 is not above 0"),
        (["buy_and_hold", "--topic", "TOPIC", "--cash", "lots"], "cash: 'lots' is no decimal"),
        (["buy_and_hold", "--topic", "TOPIC", "--fee-bps", "-1"], "fee-bps: -1 is not between 0 and 10000"),
        (["buy_and_hold", "--topic", "TOPIC", "--slippage-bps", "0.00001"], "with at most four decimals"),
        (["buy_and_hold", "--topic", "TOPIC", "--param", "x=1"], "BuyAndHold has no parameter x"),
        (["buy_and_hold", "--topic", "TOPIC", "--sweep", "x=1,2"], "BuyAndHold has no parameter x"),
        (["moving_average_cross", "--topic", "TOPIC", "--sweep", "fast=1,2", "--report", "r.html"], "are of one run"),
        (["--check", "none.json"], "none.json: No such file"),
        (["--check", "none.json", "--from", "2030-01-01", "--symbols", "DOGEUSDT", "--cash", "10000", "--allow-short"],
         "from the file; leave --from, --symbols, --cash, --allow-short out"),
        (["--check", "none.json", "--param", "x=1", "--sweep", "y=1,2"], "from the file; leave --param, --sweep out"),
        (["buy_and_hold", "--topic", "TOPIC", "--report", "none/r.html"], "none/r.html can't be written: there is no directory none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes_are_explained(kafka, waves, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKERS", kafka)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("freeze", "set_threshold"):  # it runs in this process, whose collector is to stay as it is
        monkeypatch.setattr(gc, name, lambda *_: None)
    done = CliRunner().invoke(
        build_app(["backtest"]), ["backtest", *(waves if word == "TOPIC" else word for word in words)]
    )
    assert done.exit_code == 1, done.output
    assert message in done.output


def test_a_recording(backtest, kafka, recordings):
    """Buy and hold, and an own average cross in floats' place: worked out from the replayed seconds alone."""
    topic = fill(kafka, recorded(recordings / BTC_ETH))
    words = ("--topic", topic, "--json", "-", "--fee-bps", "10", "--slippage-bps", "2")
    result = json.loads(backtest("moving_average_cross", *words, "--param", "fast=5", "--param", "slow=20").stdout)
    fee, cash, held, closes = Decimal("0.001"), Decimal(10000), {}, {}
    wanted, fills, lines, history = {}, [], [], {}
    by_time = {}
    for stat in Replay(kafka, topic).seconds():
        by_time.setdefault(stat.timestamp, []).append(stat)
    above = {}
    for time, stats in by_time.items():
        for stat in stats:
            order = wanted.get(stat.symbol)
            if order:
                del wanted[stat.symbol]
                price = Decimal(decimal_8(stat.open)) * (Decimal("1.0002") if order[0] == "buy" else Decimal("0.9998"))
                if order[0] == "buy":
                    quantity = (min(order[1], cash) / (price * (1 + fee))).quantize(Decimal("1e-8"), "ROUND_DOWN")
                    cash -= quantity * price * (1 + fee)
                    held[stat.symbol] = quantity
                else:
                    quantity = held.pop(stat.symbol)
                    cash += quantity * price * (1 - fee)
                fills.append((time, stat.symbol, order[0], quantity, price))
        for stat in stats:
            closes[stat.symbol] = Decimal(decimal_8(stat.close))
        equity = cash + sum(held[symbol] * closes[symbol] for symbol in held)
        lines.append(f"{time},{equity.normalize():f}\n")
        for stat in stats:
            seen = history.setdefault(stat.symbol, [])
            seen.append(stat.close)
            if len(seen) >= 20 and (difference := sum(seen[-5:]) * 4 - sum(seen[-20:])):
                before, above[stat.symbol] = above.get(stat.symbol), difference > 0
                if before is not None and before != above[stat.symbol]:
                    if difference > 0 and stat.symbol not in held:
                        wanted[stat.symbol] = ("buy", equity / 2)
                    elif difference < 0 and stat.symbol in held:
                        wanted[stat.symbol] = ("sell", None)
    assert len(fills) > 20
    assert [
        (f["timestamp"], f["symbol"], f["side"], Decimal(f["quantity"]), Decimal(f["price"])) for f in result["fills"]
    ] == fills
    assert Decimal(result["final_equity"]) == equity
    assert result["equity_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    first = by_time[min(by_time)]
    assert {stat.symbol for stat in first} == {"BTCUSDT", "ETHUSDT"}
