from __future__ import annotations

import pytest

from tfscale.config.duration import Duration
from tfscale.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("90ep", 90, "ep"), ("500st", 500, "st"), ("10%", 10, "%"), ("1.5ep", 1.5, "ep"), ("30s", 30, "s"), (7, 7, "st")],
)
def test_parse(text, value, unit):
    assert Duration.parse(text) == Duration(value, unit)


@pytest.mark.parametrize("text", ["", "ep", "-3ep", "5 parsecs", "1e3st", True])
def test_parse_refuses(text):
    with pytest.raises(UsageError, match="is not a duration"):
        Duration.parse(text)


def test_steps_round_up_so_that_an_epoch_is_whole():
    assert Duration.parse("1ep").steps(steps_per_epoch=62.5) == 63
    assert Duration.parse("2ep").steps(steps_per_epoch=62.5) == 125


def test_steps_are_not_rounded_up_by_floating_point_noise():
    assert Duration.parse("3ep").steps(steps_per_epoch=100 / 3) == 100


def test_share_needs_the_whole():
    assert Duration.parse("10%").steps(steps_per_epoch=1, total_steps=1000) == 100
    with pytest.raises(UsageError):
        Duration.parse("10%").steps(steps_per_epoch=1)


def test_time_is_no_number_of_steps():
    assert Duration.parse("10m").seconds == 600
    with pytest.raises(UsageError):
        Duration.parse("10m").steps(steps_per_epoch=1)
