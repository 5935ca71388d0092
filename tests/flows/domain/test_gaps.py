"""The gap logic against a model: a set of ids."""

from hypothesis import given
from hypothesis import strategies as st

from flows.domain.gaps import GRACE_S, Continuity, Gap

FIRST_A, PIECES, BASE_MS = 1000, 3, 1_790_000_000_000


def feed(continuity, a, now_s=0.0, shift=0):
    """The trade with id a: three raw trades, 100 ms after the one before."""
    first = (a - FIRST_A) * PIECES + shift
    continuity.saw(a, first, first + PIECES - 1, BASE_MS + 100 * (a - FIRST_A), now_s)


def ids(gaps, state):
    return [a for gap in gaps if gap.state == state for a in range(gap.first, gap.last + 1)]


def final(told):
    """The last state of each key, as a compacted topic keeps it."""
    return list({(gap.symbol, gap.first): gap for gap in told}.values())


@st.composite
def feeds(draw):
    """(ids in the order of the log, some twice; those that come after their grace; those that never come)."""
    count = draw(st.integers(2, 40))
    fates = draw(st.lists(st.sampled_from("ssssflt"), min_size=count, max_size=count))
    fates[0] = "s"
    numbered = [(FIRST_A + n, fate) for n, fate in enumerate(fates)]
    stream = [a for a, fate in numbered if fate == "s"]
    jitter = draw(st.lists(st.integers(0, 3), min_size=len(stream), max_size=len(stream)))
    order = sorted(range(1, len(stream)), key=lambda n: (n + jitter[n], n))
    ordered = [stream[0], *(stream[n] for n in order)]
    twice = draw(st.lists(st.sampled_from(stream), max_size=5))
    later = draw(st.permutations([a for a, fate in numbered if fate in "ft"]))
    return [*ordered, *twice], later, [a for a, fate in numbered if fate == "l"]


@given(feeds())
def test_every_id_is_in_the_log_or_in_the_ledger(feeds):
    stream, later, _never = feeds
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    for a in stream:
        feed(continuity, a)
    top = max(stream)
    missing = set(range(FIRST_A, top)) - set(stream)
    assert {a for h in continuity.holes for a in range(h.first, h.last + 1)} == missing
    assert not continuity.expire(GRACE_S * 0.99)
    assert not told
    opened = continuity.expire(GRACE_S)
    assert ids(told, "open") == sorted(missing)
    assert {(h.first, h.last) for h in opened} == {(g.first, g.last) for g in told}
    for gap in told:
        assert gap.after_ms == BASE_MS + 100 * (gap.first - 1 - FIRST_A)
        assert gap.before_ms == BASE_MS + 100 * (gap.last + 1 - FIRST_A)
    assert all(continuity.lacks(a) == (a in missing or a > top) for a in range(FIRST_A, top + 3))

    came = [a for a in later if a < top]
    for a in came:
        feed(continuity, a)
    lost = missing - set(came)
    assert {a for h in continuity.holes for a in range(h.first, h.last + 1)} == lost
    while continuity.holes:
        continuity.lose(continuity.holes[0], "gone")
    assert ids(final(told), "open") == []
    assert sorted(ids(final(told), "lost")) == sorted(lost)
    assert sorted(ids(final(told), "backfilled")) == sorted(missing - lost)


@given(feeds(), st.integers(0, 60))
def test_a_restart_goes_on_where_the_log_and_the_ledger_end(feeds, cut):
    stream, later, _never = feeds
    told: list[Gap] = []
    before = Continuity("X", told.append)
    for a in stream:
        feed(before, a)
    before.expire(GRACE_S)
    top = max(stream)
    missing = set(range(FIRST_A, top)) - set(stream)
    came = [a for a in later if a < top]
    half = came[: len(came) // 2]
    for a in half:  # confirmed by Kafka, but the process dies before the ledger says so
        feed(Continuity("other", told.append), a)
    log = [*stream, *half]
    read = log[min(cut, len(stream) - 1) :]  # only its end is read

    ledger = final(told)
    after = Continuity("X", told.append)
    for a in read:
        feed(after, a)
    for gap in ledger:
        after.restore(gap)
    owed = {a for h in after.holes for a in range(h.first, h.last + 1)}
    assert owed >= missing - set(half)
    assert after.next_a == max([*read, *(gap.last for gap in ledger)]) + 1
    for a in sorted(owed - set(half)):
        feed(after, a)
    for a in half:
        feed(after, a)
    assert not after.holes
    assert sorted(ids(final(told), "backfilled")) == sorted(missing)


def test_contiguous_ids_with_broken_raw_ids_are_lost_at_once():
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    feed(continuity, 1000)
    feed(continuity, 1001, shift=2)
    assert told == [Gap("X", 1001, 1001, "lost", "broken f/l: 1000 ends with trade 2, 1001 begins with 5",
                        BASE_MS, BASE_MS + 100)]  # fmt: skip
    feed(continuity, 1003, shift=2)
    feed(continuity, 1002, shift=2)
    assert len(told) == 1
    feed(continuity, 1006, shift=3)
    feed(continuity, 1005, shift=3)
    feed(continuity, 1004, shift=2)
    assert [gap.first for gap in told] == [1001, 1005]
    assert not continuity.expire(100)


def test_invalid_rows_have_no_raw_ids_that_could_break():
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    feed(continuity, 1000)
    continuity.saw(1001, -1, -1, BASE_MS, 0.0)
    feed(continuity, 1002, shift=-3)
    assert not told
    assert not continuity.holes


def test_silence_is_no_gap_and_nothing_is_owed_between_off_and_on():
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    feed(continuity, 1000, now_s=0)
    feed(continuity, 1001, now_s=7200)
    continuity.expire(7300)
    feed(continuity, 1003, now_s=7300)
    continuity.end()
    feed(continuity, 1500, now_s=9000)
    feed(continuity, 1501, now_s=9000)
    feed(continuity, 1002, now_s=9000)  # what was owed before the end still is
    continuity.expire(9999)
    assert not told
    assert not continuity.holes


def test_what_is_beyond_reach_is_lost_and_the_log_goes_on_after_it():
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    feed(continuity, 1000)
    continuity.skip_to(1001, "old")
    assert not told
    continuity.skip_to(1050, "old", BASE_MS + 5000)
    assert told == [Gap("X", 1001, 1049, "lost", "old", BASE_MS, BASE_MS + 5000)]
    feed(continuity, 1050, shift=77)
    assert len(told) == 1
    assert not continuity.holes


def test_a_row_whose_following_trade_did_not_reach_the_log():
    told: list[Gap] = []
    continuity = Continuity("X", told.append)
    feed(continuity, 1000)
    continuity.restore(Gap("X", 1001, 1004, "open", "missing", BASE_MS, BASE_MS + 500))
    assert [(h.first, h.last) for h in continuity.holes] == [(1001, 1004)]
    assert continuity.next_a == 1005
    for a in range(1001, 1006):
        feed(continuity, a)
    assert [(g.first, g.last, g.state) for g in told] == [(1001, 1004, "backfilled")]
