"""The matmul peak: which of several windows counts, and what is told of a machine that others used meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tfscale.measures.processor_time import Moment, Shares, moment, shares

ALONE, BESIDE = Shares(0.97, 0.0, 0.0, 1.0), Shares(0.5, 0.5, 0.0, 0.5)


def best(*windows):
    from tfscale.measures.peak import Window, best_of

    return best_of(Window(flops, had) for flops, had in windows)


def test_the_best_window_that_nobody_disturbed_counts(tf):
    assert best((200.0, ALONE), (390.0, ALONE), (401.0, BESIDE), (385.0, ALONE)) == best((390.0, ALONE))
    assert best((390.0, ALONE)).busy == ""


def test_on_a_busy_machine_the_work_of_each_second_of_a_processor_counts(tf):
    peak = best((190.0, Shares(0.475, 0.5, 0.0, 0.5)), (230.0, Shares(0.6, 0.3, 0.1, 0.6)))
    assert peak.flops == pytest.approx(400.0)
    assert peak.busy == "other programs had 50 %"
    assert Shares(0.6, 0.3, 0.1, 0.6).busy == "other programs had 30 % and the virtual machine's host had 10 %"


def test_a_product_that_leaves_free_processors_idle_is_not_called_disturbed():
    assert Shares(0.5, 0.02, 0.0, 0.98).busy == ""


def test_shares_count_what_the_threads_can_use():
    begin, end = Moment(0.0, 0.0, 0.0, 0.0, 64), Moment(1.0, 2.0, 22.0, 1.0, 64)
    had = shares(begin, end, threads=2)
    assert (had.own, had.others, had.free) == (1.0, 20 / 64, 43 / 2)  # 43 processors are free for 2 threads
    assert shares(Moment(0.0, 0.0, None, None, 2), Moment(1.0, 0.5, None, None, 2), 2).busy == ""  # nothing is known


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="counts by Linux's counters")
def test_another_program_on_the_same_processor_is_seen():
    where = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    spin = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{where}])\nwhile True: pass"])
    try:
        os.sched_setaffinity(0, [where])  # of this thread, which is the one that computes
        time.sleep(0.3)  # until it has started
        begin = moment()
        while time.perf_counter() - begin.wall < 0.5:
            pass
        had = shares(begin, moment(), threads=1)
    finally:
        os.sched_setaffinity(0, before)
        spin.kill()
        spin.wait()
    assert had.own < 0.9 and had.others > 0.1
    assert had.busy.startswith("other programs had")


def test_the_products_are_those_of_the_precision_and_are_measured_once(tf, monkeypatch):
    from support.tiny_run import plan_for

    from tfscale.measures import peak

    monkeypatch.setattr(peak, "_measured", {})
    monkeypatch.setattr(peak, "_WINDOW_SECONDS", 0.05)
    plan = plan_for(8)
    measured = peak.matmul_peak(plan)
    assert measured.flops > 0
    if not measured.busy:
        assert peak.matmul_peak(plan) is measured
    assert [key[1] for key in peak._measured] == ["float32"]
