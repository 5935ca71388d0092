"""Real recorded trades through the core: the same seconds as the naive Decimal reference, by hash."""

import gzip
import hashlib
import json

import pytest
from naive import NaiveStats
from test_partition import final_states

from flows.domain.partition import PartitionStats
from flows.domain.second_stat import SecondStat
from flows.records import decode_trades


@pytest.mark.parametrize(("name", "seconds"), [
    ("spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz", 1000),
    ("spot_ltcusdt_2025-06-22T0500.aggtrade.jsonl.gz", 10_000),
])  # fmt: skip
def test_recording(recordings, name, seconds):
    with gzip.open(recordings / name) as lines:
        values = [line.partition(b'"data":')[2].rstrip()[:-1] for line in lines]
    last = json.loads(values[-1])["E"]
    values.append(b'{"e":"heartbeat","E":%d}' % (last + 5000))

    core = PartitionStats(200, 1_800_000)
    published = []
    for start in range(0, len(values), 1000):
        chunk = values[start : start + 1000]
        outputs = core.process(zip(decode_trades(chunk), [None] * len(chunk), strict=True))
        published += [o.to_json() for o in outputs if isinstance(o, SecondStat)]
        assert not [o for o in outputs if not isinstance(o, SecondStat)]

    def digest(final):
        return hashlib.sha256(b"\n".join(final[key] for key in sorted(final))).hexdigest()

    naive = NaiveStats().run(values)
    assert digest(final_states(published)) == digest(naive.final)
    assert len(naive.final) > seconds
