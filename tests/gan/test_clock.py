"""The clock of a sitting, on a time that the tests set."""

import pytest

from cxr_tasks.gan import clock as module
from cxr_tasks.gan.clock import Clock


class Time:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    fake = Time()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_speed_leaves_the_first_call_out_once_there_is_a_second(time):
    clock = Clock(first_step=10, batch=8, before=0.0)
    time.now += 60
    clock.call_ended(11)
    # All there is to go by, and slow for the compilation.
    assert clock.speed(11) == pytest.approx(8 / 60)

    time.now += 4
    clock.call_ended(13)

    assert clock.speed(13) == pytest.approx(2 * 8 / 4)
    assert clock.seconds_left(13, 23) == pytest.approx(20)


def test_earlier_sittings_count_for_the_hours_and_not_for_this_sitting(time):
    clock = Clock(first_step=0, batch=8, before=3600.0)

    time.now += 30

    assert clock.this_sitting() == 30 and clock.all_sittings() == 3630


def test_progress_is_told_every_ten_seconds_and_checkpoints_are_counted_from_the_last(time):
    clock = Clock(first_step=0, batch=8, before=0.0)
    told = []
    for _ in range(25):
        time.now += 1
        told.append(clock.is_time_to_speak())
    assert [second for second, spoken in enumerate(told, 1) if spoken] == [10, 20]

    clock.checkpoint_written()
    time.now += 3

    assert clock.since_checkpoint() == 3
