"""Requests to stop, in processes of their own: when signals are raised, when they wait, and when nobody asks them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tfscale.errors import Interrupted, Preempted
from tfscale.process.stopping import Stopping, error_of

_PROGRAM = """
import ctypes, signal, sys, time
from tfscale.errors import Preempted, TfscaleError
from tfscale.process.stopping import Stopping

def say(text):
    print(text, flush=True)

def compiled(seconds):
    "Like a long call of TensorFlow: Python in this thread runs afterwards only, whatever is sent to it."
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.CDLL(None).sleep(seconds)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)

def swallow():
    "Like TensorFlow's preemption notifier: a handler of C's in the place of Python's."
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGTERM, ctypes.cast(libc.getpid, ctypes.c_void_p))

try:
    with Stopping(grace={grace}, owns_process={owns}).listening() as stopping:
        stopping.before_exit.append(lambda error: say(f"told {{error.exit_code}}"))
        {body}
except TfscaleError as error:
    say(f"raised {{error.exit_code}}")
    sys.exit(error.exit_code)
say("well")
"""
_LOOP = "say('ready')\n        while not stopping.stop_requested: time.sleep(0.05)\n        say(f'asked {stopping.stop_requested}')"


def ended(body: str, *signals: int, grace: float = 20.0, owns: bool = True, pause: float = 0.7):
    """(exit code, lines, standard error, seconds from the last signal to the end) of a program with this body."""
    text = _PROGRAM.format(body=body, grace=grace, owns=owns)
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    for i, signum in enumerate(signals):
        time.sleep(pause if i else 0.1)
        process.send_signal(signum)
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, (first + out).split("\n")[:-1], err, time.monotonic() - began


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_with_nothing_to_keep_the_main_thread_raises_at_once(signum, code):
    returned, lines, _, seconds = ended("say('ready'); time.sleep(15)", signum)
    assert (returned, lines) == (code, ["ready", f"raised {code}"])
    assert seconds < 2


def test_where_the_main_thread_does_not_answer_the_process_is_ended():
    returned, lines, err, seconds = ended("say('ready'); compiled(15)", signal.SIGTERM)
    assert (returned, lines) == (143, ["ready", "told 143"])
    assert err.startswith("tfscale: error[E-0143] stopped by SIGTERM")
    assert seconds < 3


@pytest.mark.parametrize(("signum", "number"), [(signal.SIGTERM, 15), (signal.SIGINT, 2), (signal.SIGHUP, 15)])
def test_with_work_to_keep_it_waits_to_be_asked_for(signum, number):
    returned, lines, *_ = ended(f"stopping.hold(); {_LOOP.lstrip()}", signum)
    assert (returned, lines) == (0, ["ready", f"asked {number}", "well"])


def test_a_compiled_loop_is_asked_afterwards():
    returned, lines, *_ = ended(
        "stopping.hold(); say('ready'); compiled(3); say(stopping.stop_requested)", signal.SIGTERM
    )
    assert (returned, lines) == (0, ["ready", "15", "well"])


def test_a_second_signal_ends_the_process_at_once():
    returned, lines, _, seconds = ended("stopping.hold(); say('ready'); compiled(15)", signal.SIGTERM, signal.SIGTERM)
    assert (returned, lines) == (143, ["ready", "told 143"])
    assert seconds < 2


def test_the_same_signal_twice_at_once_counts_once():
    body = f"stopping.hold(); {_LOOP}; time.sleep(1)"
    returned, lines, *_ = ended(body, signal.SIGTERM, signal.SIGTERM, pause=0.05)
    assert (returned, lines) == (0, ["ready", "asked 15", "well"])


def test_a_storm_of_signals_counts_once():
    body = f"stopping.hold(); {_LOOP}; time.sleep(2)"
    returned, lines, *_ = ended(body, *[signal.SIGTERM] * 12, pause=0.15)
    assert (returned, lines) == (0, ["ready", "asked 15", "well"])


def test_the_first_signal_after_another_request_is_no_second_one():
    """A notice of the machine's or a peer's end comes first, the cluster's SIGTERM while the work is being kept."""
    body = (
        "stopping.hold(); stopping.request_stop(Preempted('maintenance')); time.sleep(0.7); say('ready'); time.sleep(1)"
    )
    returned, lines, *_ = ended(body, signal.SIGTERM)
    assert (returned, lines) == (0, ["ready", "well"])


def test_the_grace_period_is_kept_come_what_may():
    returned, lines, _, seconds = ended("stopping.hold(); say('ready'); compiled(15)", signal.SIGTERM, grace=1.5)
    assert (returned, lines) == (143, ["ready", "told 143"])
    assert 1 < seconds < 4


def test_what_others_do_with_the_signal_does_not_matter():
    returned, lines, *_ = ended("swallow(); stopping.hold(); " + _LOOP, signal.SIGTERM)
    assert (returned, lines) == (0, ["ready", "asked 15", "well"])


def test_a_signal_that_comes_while_no_python_runs_is_not_lost():
    """TensorFlow's own rendezvous holds the interpreter's lock while it waits."""
    body = "stopping.hold(); say('ready'); ctypes.PyDLL(None).sleep(2); time.sleep(0.5); say(stopping.stop_requested)"
    returned, lines, *_ = ended(body, signal.SIGTERM)
    assert (returned, lines) == (0, ["ready", "15", "well"])


def test_in_a_process_that_is_not_ours_a_replaced_handler_comes_back():
    body = "swallow(); stopping.listen_again(); stopping.hold(); " + _LOOP
    returned, lines, *_ = ended(body, signal.SIGTERM, owns=False)
    assert (returned, lines) == (0, ["ready", "asked 15", "well"])


def test_a_replaced_handler_hears_nothing():
    """What listen_again() is for: the test of the test above."""
    body = "stopping.hold(); swallow(); say('ready'); time.sleep(1); say(stopping.stop_requested)"
    assert ended(body, signal.SIGTERM, owns=False)[1] == ["ready", "0", "well"]


def test_another_thread_may_ask():
    body = (
        "import threading\n        threading.Timer(0.3, lambda: stopping.request_stop(Preempted('maintenance'))).start()\n"
        "        say('ready'); time.sleep(15)"
    )
    returned, lines, _, seconds = ended(body)
    assert (returned, lines) == (143, ["ready", "raised 143"])
    assert seconds < 3


def test_in_a_process_that_is_not_ours_the_second_signal_is_a_keyboard_interrupt():
    body = "stopping.hold(); say('ready'); time.sleep(15)"
    returned, _, err, seconds = ended(body, signal.SIGINT, signal.SIGINT, owns=False)
    assert returned != 0 and "KeyboardInterrupt" in err
    assert seconds < 3


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stopping(grace=1).listening() as stopping:
        assert signal.getsignal(signal.SIGTERM) == stopping._on_signal
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_request_before_hold_is_not_forgotten():
    stopping = Stopping(grace=1)
    stopping.request_stop(Preempted("a notice"))
    with pytest.raises(Preempted, match="a notice"):
        stopping.hold()


def test_whoever_holds_already_is_not_interrupted():
    stopping = Stopping(grace=1)
    stopping.hold()
    stopping.request_stop(Preempted("a notice"))
    stopping.hold()
    assert stopping.stop_requested == 15


_SWALLOWED = """say('ready')
        with stopping.as_request():
            try: time.sleep(15)
            except TfscaleError: pass
            raise RuntimeError('pybind11: ORIGINAL UnavailableError REPLACED BY Preempted')"""


@pytest.mark.parametrize(("owns", "signum", "code"), [(True, signal.SIGTERM, 143), (False, signal.SIGINT, 130)])
def test_what_a_request_was_made_into_on_its_way_is_the_request(owns, signum, code):
    returned, lines, err, _ = ended(_SWALLOWED, signum, owns=owns)
    assert (returned, lines) == (code, ["ready", f"raised {code}"]), err


def test_an_error_of_ones_own_stays_what_it_is():
    stopping = Stopping()
    for error in (RuntimeError("x"), Preempted("y")):
        with pytest.raises(type(error)) as caught, stopping.as_request():
            raise error
        assert caught.value is error
    stopping.request_stop(Preempted("asked for, and not raised yet"))
    with pytest.raises(RuntimeError), stopping.as_request():
        raise RuntimeError("x")


@pytest.mark.parametrize(("behind", "code"), [(False, 65), (True, 143)])
def test_an_error_of_ours_is_the_request_only_where_that_is_behind_it(behind, code):
    raised = "raise DataCorrupt('x', where='y', fix='z')"
    body = f"""from tfscale.errors import DataCorrupt
        say('ready')
        with stopping.as_request():
            try: time.sleep(15)
            except TfscaleError:
                {raised if behind else "pass"}
            {raised}"""
    returned, lines, err, _ = ended(body, signal.SIGTERM)
    assert (returned, lines) == (code, ["ready", f"raised {code}"]), err


def test_errors_say_what_is_safe():
    assert isinstance(error_of(signal.SIGINT), Interrupted)
    assert error_of(signal.SIGTERM, kept="all is kept").what == "stopped by SIGTERM; all is kept"
