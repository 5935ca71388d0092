from api.aggregator.subscriptions import Subscriptions, record_key, record_value


def folded(*records: tuple[str, str, bool]) -> Subscriptions:
    state = Subscriptions()
    for symbol, user, there in records:
        assert state.apply(record_key(symbol, user), record_value(symbol, user) if there else None)
    return state


def test_a_record_is_as_ingest_reads_it() -> None:
    assert record_key("BTCUSDT", "u1") == b"BTCUSDT:u1"
    assert record_value("BTCUSDT", "u1") == b'{"symbol":"BTCUSDT","user":"u1"}'


def test_users_are_counted_once() -> None:
    state = folded(("BTCUSDT", "a", True), ("BTCUSDT", "a", True), ("BTCUSDT", "b", True), ("ETHUSDT", "a", True))
    assert state.counts() == {"BTCUSDT": 2, "ETHUSDT": 1}


def test_a_symbol_without_users_is_gone() -> None:
    state = folded(("BTCUSDT", "a", True), ("BTCUSDT", "b", False), ("BTCUSDT", "a", False), ("ETHUSDT", "a", False))
    assert state.counts() == {}
    assert state.subscribers("BTCUSDT") == 0


def test_colons_belong_to_the_user() -> None:
    state = folded(("BTCUSDT", "a:b", True), ("BTCUSDT", "a", True), ("BTCUSDT", "a:b", False))
    assert state.subscribers("BTCUSDT") == 1


def test_strange_records_change_nothing() -> None:
    state = folded(("币安人生USDT", "a", True))
    for key in (None, b"", b"BTCUSDT", b":a", b"BTCUSDT:", b"\xff:a"):
        assert not state.apply(key, b"{}")
    assert state.counts() == {"币安人生USDT": 1}
