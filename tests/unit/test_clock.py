"""The machine's clock, as the bridge uses it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import BEAT, EARLY, until_beat

LEEWAY = 1e-6
"""Seconds: of a float that counts those since a machine's start, the last digits are not exact."""


@given(now=st.floats(0, 1e7), seconds=st.floats(BEAT, 60))
def test_a_tick_comes_hardly_too_soon_and_no_more_than_a_beat_too_late(now: float, seconds: float) -> None:
    slept = until_beat(now, seconds)
    assert seconds - EARLY - LEEWAY <= slept <= seconds + BEAT + LEEWAY
    assert (now + slept) / BEAT == pytest.approx(round((now + slept) / BEAT), abs=LEEWAY)


@given(now=st.floats(0, 1e7), late=st.floats(0, EARLY * 0.9), beats=st.integers(1, 20))
def test_what_ticks_again_and_again_keeps_its_period(now: float, late: float, beats: int) -> None:
    first = now + until_beat(now, beats * BEAT)
    assert late + until_beat(first + late, beats * BEAT) == pytest.approx(beats * BEAT, abs=LEEWAY)


@given(now=st.floats(0, 1e7), seconds=st.floats(0, BEAT, exclude_max=True))
def test_what_is_shorter_than_a_beat_stays_as_it_is(now: float, seconds: float) -> None:
    assert until_beat(now, seconds) == seconds
