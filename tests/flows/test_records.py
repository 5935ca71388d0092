"""Records decoded alone and in chunks: the same, whatever stands beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.errors import InvalidRecord
from flows.records import decode_miniticker, decode_trades

GOOD = b'{"e":"aggTrade","E":%d,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,"l":1,"T":1723161600000,"m":true,"M":true}'
pieces = st.sampled_from([
    GOOD % 1723161600000, b'{"e":"heartbeat","E":1723161600000}', '{"e":"x","s":"币安人生USDT"}'.encode(), b"", b"{}", b"{",
    b"}", b"\n", b"}\n{", b'"', b"}{", b",", b'{"e":"x"}', b'"z":"', b"\xff", b" ", b"[]", b"null", None,
])  # fmt: skip


@given(st.lists(st.lists(pieces, min_size=1, max_size=3), max_size=6))
def test_a_chunk_decodes_as_its_records_alone(parts):
    values = [None if None in part else b"".join(part) for part in parts]
    assert [repr(r) for r in decode_trades(values)] == [repr(r) for v in values for r in decode_trades([v])]


@pytest.mark.parametrize("event_time", [-(2**63), -(2**63) - 1, -(10**30)])
def test_no_event_time_can_pass_for_a_missing_one(event_time):
    assert isinstance(decode_trades([GOOD % event_time])[0], InvalidRecord)


@pytest.mark.parametrize("bad", [b'"\xff":true', b'"M":"\xff"', b'"M\xff":true'])
def test_what_is_not_utf_8_is_not_json_even_in_a_field_that_nobody_reads(bad):
    value = (GOOD % 1723161600000).replace(b'"M":true', bad)
    alone, beside_another = decode_trades([value]), decode_trades([GOOD % 1723161600000, value])
    assert isinstance(alone[0], InvalidRecord)
    assert [isinstance(record, InvalidRecord) for record in beside_another] == [False, True]
    ticker = b'{"e":"24hrMiniTicker","E":1790000000000,"s":"BTCUSDT","c":"1","o":"1","h":"1","l":"1",%b}' % bad
    with pytest.raises(InvalidRecord):
        decode_miniticker(ticker)
