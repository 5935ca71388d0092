"""A portfolio through recorded seconds, by hand."""

import json
from decimal import Decimal
from typing import Any

import pytest

from api.profile.portfolio import Holding, user_head
from api.profile.prices import Quote
from api.profile.replay_request import Refusal, ReplayRequest, parse_request
from api.profile.replay_script import Scene, Script

START = 1_790_000_000_000


def script(**coins: str) -> Script:
    holdings = [Holding(Decimal(quantity), Quote(symbol)) for symbol, quantity in coins.items()]
    return Script(user_head("id", "me"), holdings, 60_000)


def row(second: int, symbol: str, close: str) -> bytes:
    return f"{START + second * 1000}\t{symbol}\t{close}".encode()


def told(scenes: list[Scene]) -> list[tuple[int, str, int, list[str]]]:
    """(second of the clock, total, second of AsOf, stale) of each."""
    pushes: list[dict[str, Any]] = [json.loads(scene.push.numbered(1)) for scene in scenes]
    assert all(push["Replay"] is True for push in pushes)
    return [
        ((scene.at_ms - START) // 1000, push["TotalValue"], (push["AsOf"] - START) // 1000, push["Stale"])
        for scene, push in zip(scenes, pushes, strict=True)
    ]


def test_a_push_a_second_with_the_last_known_prices() -> None:
    play = script(btcusdt="1.5", ethusdt="2")
    assert play.begin(START, []) is None
    rows = [row(0, "BTCUSDT", "10"), row(1, "BTCUSDT", "11.1"), row(1, "ETHUSDT", "0.00000001"), row(4, "ETHUSDT", "3")]
    assert told(list(play.play(rows, START + 9000))) == [
        (1, "15", 1, []),
        (2, "16.65000002", 2, []),
        (5, "22.65", 5, []),
    ]


def test_what_is_known_before_is_the_first_push_and_turns_stale_by_the_recorded_clock() -> None:
    play = script(btcusdt="1", ethusdt="1")
    opening = play.begin(START, [row(-31, "BTCUSDT", "7")])
    assert opening
    assert told([opening]) == [(0, "7", -30, [])]
    first = [row(0, "ETHUSDT", "1")]
    assert told(list(play.play(first, START + 31_000))) == [(1, "8", 1, []), (31, "8", 1, ["btcusdt"])]
    assert told(list(play.play([], START + 61_000))) == []
    later = [row(100, "BTCUSDT", "9")]
    assert told(list(play.play(later, START + 200_000))) == [
        (62, "8", 1, ["btcusdt", "ethusdt"]),
        (101, "10", 101, ["ethusdt"]),
        (162, "10", 101, ["btcusdt", "ethusdt"]),
    ]


def test_live_quotes_are_not_touched() -> None:
    live = Quote("btcusdt")
    play = Script(user_head("id", "me"), [Holding(Decimal(1), live)], 60_000)
    assert len(list(play.play([row(0, "BTCUSDT", "5")], START + 1000))) == 1
    assert live.price is None


@pytest.mark.parametrize("speed", [60, 0.5, 1e9])
def test_ranges_are_whole_seconds_that_are_past(speed: float) -> None:
    message = {"from": START + 1, "to": "2026-09-21T14:13:25.999Z", "speed": speed}
    assert parse_request(message, START + 60_000) == ReplayRequest(START + 1000, START + 5000, speed)
    assert parse_request({**message, "to": 10**17}, START + 2999).end_ms == START + 2000
    assert parse_request({"from": str(START), "to": START + 1000}, START + 1000).speed == 1


def test_a_number_that_no_float_holds() -> None:
    assert parse_request({"from": -(10**400), "to": 10**400, "speed": 10**400}, START).speed == 1e12


@pytest.mark.parametrize("speed", ["max", 0, 0.0])
def test_as_fast_as_possible(speed: object) -> None:
    assert parse_request({"from": START, "to": START + 1000, "speed": speed}, START + 1000).speed is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"from": None}, '"from" must be'),
        ({"to": True}, '"to" must be'),
        ({"to": 1.5}, '"to" must be'),
        ({"to": "yesterday"}, "neither an ISO time nor epoch ms"),
        ({"to": START}, "the range is empty"),
        ({"to": START + 999}, "the range is empty"),
        ({"from": START + 50_000, "to": START + 60_000}, "that is past (now is 2026-09-21T14:13:40Z)"),
        ({"from": -(10**30), "to": -1}, "the range is empty"),
        ({"speed": -1}, '"speed" must be'),
        ({"speed": True}, '"speed" must be'),
        ({"speed": "fast"}, '"speed" must be'),
        ({"speed": float("inf")}, '"speed" must be'),
        ({"speed": float("nan")}, '"speed" must be'),
        ({"speed": None}, '"speed" must be'),
    ],
)
def test_what_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(Refusal, match=said.replace("(", r"\(").replace(")", r"\)")):
        parse_request({"from": START, "to": START + 5000, "speed": 1, **change}, START + 20_000)
