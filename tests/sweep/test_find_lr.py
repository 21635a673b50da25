"""Which learning rate to begin with: judged on curves whose answer is known, and found by a real training."""

from __future__ import annotations

import math
import re

import pytest

from tfscale.errors import CheckFailed
from tfscale.sweep.rate_range import RateRange, has_diverged

RATES = [1e-6 * 10 ** (7 * i / 199) for i in range(200)]
FIND = ("-m", "tfscale", "find_lr")


def falling(rate: float, where: float) -> float:
    """Falls from 2 to 0.5 within a magnitude around a rate."""
    return 2 - 1.5 / (1 + (where / rate) ** 3)


@pytest.mark.parametrize("where", [1e-3, 0.01, 0.1])
def test_it_is_where_the_loss_falls_most(where):
    losses = [falling(rate, where) + (rate / (100 * where)) ** 2 for rate in RATES]
    found = RateRange.of(RATES, losses)
    assert where / 2 < found.suggested < 4 * where  # the mean lags behind by some steps
    assert found.suggested < found.least <= found.rates[-1]


def test_a_loss_that_explodes_ends_the_test():
    losses = [falling(rate, 0.01) * (1 if rate < 0.5 else 50) for rate in RATES]
    found = RateRange.of(RATES, losses)
    assert 0.5 <= found.diverged < 2 and found.rates[-1] == found.diverged
    assert has_diverged(losses) and not has_diverged(losses[:120])
    broken = [loss if rate < 0.5 else math.nan for rate, loss in zip(RATES, losses, strict=True)]
    assert RateRange.of(RATES, broken).diverged < 0.5


@pytest.mark.parametrize("losses", [[1.0] * 200, [1 + i / 200 for i in range(200)], [1.0] * 5])
def test_where_nothing_can_be_said(losses):
    with pytest.raises(CheckFailed):
        RateRange.of(RATES, losses)


def test_a_real_training_finds_one_that_trains(cli, tmp_path, data_dir):
    small = ("+recipe=resnet", "task.depth=8", "task.width=4", "task.augment=none", "train.global_batch=32")
    ended = cli(*small, "find.steps=80", "find.plot=rates.svg", program=FIND, deadline=200)
    assert ended.code == 0, ended.out + ended.err
    (rate,) = re.findall(r"^optimizer\.learning_rate=(\S+)$", ended.out, re.MULTILINE)
    assert 1e-3 < float(rate) < 3
    assert (tmp_path / "rates.svg").read_text().startswith("<svg")
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["rates.svg"]


def test_what_is_refused(cli):
    for words, said in (
        (("optimizer.learning_rate=1",), "is what is tried"),
        (("find.from=1", "find.to=0.1"), "no rate can rise"),
        (("find.steps=3",), "no rate can rise"),
    ):
        ended = cli("+recipe=resnet", *words, program=FIND)
        assert ended.code == 64 and said in ended.err, ended.err
