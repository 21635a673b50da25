"""What a terminal shows of a run that goes on, at every width."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from tfscale.console.live_panel import LivePanel, Trend, ago, sparkline

FIGURES = {"loss": 0.1234567, "accuracy": 0.98, "examples_per_second": 1440.4, "input_wait": 0.02}


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def drawn(panel, columns, *, rows=24, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=columns, height=rows, force_terminal=True, no_color=True, color_system=None)
    console.print(panel)
    file.flush()
    lines = file.buffer.getvalue().decode(encoding).splitlines()
    assert all(len(line) <= columns for line in lines), lines
    return lines


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def panel(clock):
    """After ten steps and an evaluation."""
    panel = LivePanel("runs/resnet/563a34baa8", workers=2, now=clock)
    for step in range(1, 11):
        panel.live(step, {**FIGURES, "loss": 1 / step}, bound="compute", kept=8 if step >= 8 else None)
    panel.evaluated(10, "test", {"loss": 0.5, "accuracy": 0.875})
    clock.time = 75.0
    return panel


def test_figures_with_their_trends_speed_and_what_is_kept(panel):
    assert drawn(panel, 80) == [
        "train   loss 0.1 █▄▃▂▁▁▁▁▁▁  accuracy 0.98 ▁▁▁▁▁▁▁▁▁▁",
        "test    loss 0.5  accuracy 0.875  at step 10",
        "speed   1,440 examples/s  input wait 2%  bounded by compute",
        "run     checkpoint of step 8, 1 min ago  2 workers  runs/resnet/563a34baa8",
    ]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_what_does_not_fit_is_counted(panel, columns):
    many = {f"metric_{i}": i / 7 for i in range(40)}
    panel.live(11, many)
    first, *_ = drawn(panel, columns)
    shown = first.count("metric_")
    assert 0 < shown < 40 and first.endswith(f"  +{40 - shown}")


def test_a_small_terminal_has_no_panel_and_one_without_unicode_no_trend(panel):
    assert drawn(panel, 59) == drawn(panel, 80, rows=9) == []
    assert drawn(panel, 80, encoding="ascii")[0] == "train   loss 0.1  accuracy 0.98"


def test_before_the_first_step_and_after_a_resume():
    assert drawn(LivePanel(), 80) == ["speed   no step timed yet", "run     no checkpoint yet"]
    assert drawn(LivePanel(kept=40), 80)[1] == "run     checkpoint of step 40"


def test_a_step_counts_once(panel):
    before = drawn(panel, 80)
    panel.live(10, {**FIGURES, "loss": 7.0}, bound="compute", kept=8)
    assert drawn(panel, 80) == before


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, ""),
        ([1.0], 8, ""),
        ([0.0, 7.0], 8, "▁█"),
        ([5.0, 5.0, 5.0], 8, "▁▁▁"),
        ([0.0, 0.0, 7.0, 7.0], 2, "▁█"),
        ([0.0, math.nan, 7.0], 8, "▁×█"),
        ([math.nan, math.inf], 8, "××"),
        ([-1.7e308, 1.7e308, 1.7e308], 3, "▁██"),
    ],
)
def test_lines_of_blocks(values, width, line):
    assert sparkline(values, width) == line


def test_the_trend_of_a_long_run_stays_small_and_whole():
    trend = Trend()
    for value in range(100_000):
        trend.add(float(value))
    assert 128 <= len(trend.values) <= 256 and trend.values[0] == 0 and trend.values[-1] > 99_000
    steps = {b - a for a, b in zip(trend.values, trend.values[1:], strict=False)}
    assert len(steps) == 1


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h")])
def test_ages(seconds, said):
    assert ago(seconds) == said
