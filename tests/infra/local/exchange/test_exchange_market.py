"""The random walk: pure."""

from collections import Counter, defaultdict

from infra.local.exchange.market import Market, Position, pairs


def made(count: int = 20_000, seed: int = 1, symbols: int = 50, **options):
    market = Market(pairs(symbols), seed=seed, rate=1000.0, **options)
    return [
        trade
        for start in range(0, count, 100)
        for trade in market.trades(100, 1_790_000_000_000 + start, 1_790_000_000_000 + start + 100)
    ]


def test_a_seed_decides_everything():
    assert made(2000) == made(2000)
    assert made(2000) != made(2000, seed=2)


def test_ids_are_contiguous_and_times_in_order():
    last = {}
    for trade in made():
        assert trade.trade_ms <= trade.event_ms
        assert 1 <= trade.trade_count <= 3
        assert sum(quantity for _, quantity in trade.pieces()) == trade.quantity
        if before := last.get(trade.symbol):
            assert trade.agg_id == before.agg_id + 1
            assert trade.first_id == before.last_id + 1
            assert trade.event_ms >= before.event_ms
            assert trade.trade_ms >= before.trade_ms
        last[trade.symbol] = trade
    assert any(trade.trade_ms < trade.event_ms for trade in last.values())


def test_prices_keep_to_the_grid_and_near_the_listing_price():
    grid = {pair.symbol: pair for pair in pairs(50)}
    seen = defaultdict(set)
    for trade in made():
        pair = grid[trade.symbol]
        assert trade.price % pair.tick == 0
        assert trade.quantity % pair.lot == 0
        assert trade.quantity > 0
        assert pair.price / 2 < trade.price < pair.price * 2
        seen[trade.symbol].add(trade.price)
    assert all(len(prices) > 1 for symbol, prices in seen.items() if symbol in {"BTCUSDT", "ETHUSDT", "XRPUSDT"})


def test_some_symbols_are_far_more_popular():
    counts = Counter(trade.symbol for trade in made())
    assert counts["BTCUSDT"] > 5 * counts["SANDUSDT"] > 0


def test_a_known_position_is_continued():
    position = Position(agg_id=500, trade_id=900, price=61_000 * 10**8, trade_ms=1_790_000_000_050)
    first = next(t for t in made(1000, positions={"BTCUSDT": position}) if t.symbol == "BTCUSDT")
    assert (first.agg_id, first.first_id) == (501, 901)
    assert abs(first.price - position.price) < position.price / 100
    assert first.trade_ms >= position.trade_ms


def test_there_can_be_thousands_of_symbols():
    symbols = [pair.symbol for pair in pairs(3000)]
    assert len(set(symbols)) == 3000
    assert symbols[0] == "BTCUSDT"
    assert "币安人生USDT" in symbols
