"""Heartbeats never promise more than their connection knows."""

from flows.domain.heartbeat import HeartbeatClock


def seen(event_time=1000, at=10.0):
    clock = HeartbeatClock()
    clock.saw_life(at)
    clock.saw_event(event_time, at)
    return clock


def test_nothing_before_the_first_event():
    clock = HeartbeatClock()
    clock.saw_life(1.0)
    assert clock.event_time_ms(2.0, True) is None


def test_it_goes_on_while_there_is_nothing_to_read():
    assert seen().event_time_ms(10.5, True) == 1500


def test_it_stands_while_there_is_something_to_read():
    assert seen().event_time_ms(10.5, False) == 1000


def test_a_silent_line_stills_it_after_three_seconds():
    clock = seen()
    assert clock.event_time_ms(14.0, True) == 4000
    assert clock.event_time_ms(60.0, True) == 4000
    clock.saw_life(60.0)
    assert clock.event_time_ms(60.0, True) == 51_000


def test_it_never_goes_back():
    clock = seen()
    assert clock.event_time_ms(11.0, True) == 2000
    clock.saw_event(1100, 11.0)
    assert clock.event_time_ms(11.1, True) == 2000
    clock.saw_event(900, 11.2)
    assert clock.event_time_ms(11.2, False) == 2000
