"""How a job of stand-ins ends: its code, graces, restarts, parameter servers and the evaluator."""

from __future__ import annotations

import re
import time

import pytest
from support.stand_ins import gone, of

from tfscale.launch.job import Outcome


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit({'worker:0': 138, 'worker:1': 70}[me])", Outcome(70, "worker:1")),
        ("time.sleep(me == 'worker:0'); sys.exit(70 + (me == 'worker:0'))", Outcome(70, "worker:1")),
        ("time.sleep(me == 'worker:0'); sys.exit(143 - 5 * (me == 'worker:0'))", Outcome(143, "worker:1", "", True)),
        ("sys.exit(0 if me == 'worker:0' else 64)", Outcome(64, "worker:1")),
        ("me == 'worker:1' and os.kill(os.getpid(), 9)", Outcome(137, "worker:1", "", True)),
        ("me == 'worker:1' and os.kill(os.getpid(), 11)", Outcome(139, "worker:1", "", True)),
    ],
)  # fmt: skip
def test_the_code_is_that_of_the_cause(launched, code, expected):
    outcome, lines = launched(code)
    assert outcome == expected
    table = of("launch", lines)[-2:]
    assert re.fullmatch(r"worker:1 ended with \d+ after \d+\.\d s", table[1])
    assert f"{outcome.cause} ended with {outcome.code} " in " ".join(table)


def test_after_a_failure_the_others_get_a_grace_and_are_killed(launched):
    code = """
if me == "worker:1":
    wait_for("started")
    print("tfscale: error[E-0065] the file is torn | a.csv:7 | mend it", file=sys.stderr)
    sys.exit(65)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
once("started")
time.sleep(60)
"""
    began = time.monotonic()
    outcome, lines = launched(code, grace=0.5)
    assert time.monotonic() - began < 10
    assert outcome == Outcome(65, "worker:1", "tfscale: error[E-0065] the file is torn | a.csv:7 | mend it")
    told = of("launch", lines)
    assert told[0] == "worker:1 ended with 65: 0.5 s for worker:0 to end, too"
    assert told[1].startswith("worker:0 ended with 137")
    assert told[1].endswith(", killed by the launcher")


def test_what_a_process_leaves_behind_ends_with_it(launched, tmp_path):
    code = """
import subprocess
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(os.environ["PLACE"], "left").write_text(str(left.pid))
"""
    began = time.monotonic()
    assert launched(code, workers=1)[0].code == 0
    assert time.monotonic() - began < 10
    assert gone(int((tmp_path / "left").read_text()))


def test_a_retryable_end_starts_all_again_with_fresh_ports(launched):
    code = """
print("address", config["cluster"]["worker"])
if me == "worker:1" and once("first"):
    wait_for("up")
    os.kill(os.getpid(), signal.SIGKILL)
if me == "worker:1" and once("second"):
    sys.exit(138)
once("up")
if not pathlib.Path(os.environ["PLACE"], "second").exists():
    time.sleep(60)
"""
    outcome, lines = launched(code, max_restarts=3, grace=0.2)
    assert outcome == Outcome(0)
    told = " / ".join(of("launch", lines))
    assert "restart 1 of 3: worker:1 ended with 137" in told
    assert "restart 2 of 3: worker:1 ended with 138" in told
    assert "restart 3" not in told
    assert len(set(of("worker:1", lines))) == 3


@pytest.mark.parametrize(("code", "attempts"), [(138, 3), (137, 3), (143, 3), (70, 1), (64, 1), (81, 1), (130, 1)])
def test_only_so_often_and_only_where_it_helps(launched, code, attempts):
    outcome, lines = launched(f"print('up'); sys.exit({code})", workers=1, max_restarts=2)
    assert (outcome.code, lines.count("worker:0 | up")) == (code, attempts)


def test_when_the_chief_has_ended_the_servers_are_stopped(launched):
    code = "time.sleep(60 if me.startswith('ps') else 0)"
    outcome, lines = launched(code, workers=1, ps=2, ps_grace=0.2)
    assert (outcome, lines) == (Outcome(0), [])
    outcome, lines = launched(code + "; sys.exit(70 if me == 'chief:0' else 0)", workers=1, ps=1, ps_grace=0.2)
    assert outcome == Outcome(70, "chief:0")


LOST_WORKER = """
print(os.environ["TF_CONFIG"])
if me == "worker:1" and (once("a") or once("b")):
    os.kill(os.getpid(), signal.SIGKILL)
if me == "worker:1":
    once("back")
if me == "chief:0":
    wait_for("back" if "back" in sys.argv else "b")
    time.sleep(1)
elif me != "worker:1":
    time.sleep(60)
""".replace('"back" in sys.argv', "BACK")


def test_a_lost_worker_of_servers_is_started_again_in_the_same_place(launched):
    outcome, lines = launched(LOST_WORKER.replace("BACK", "True"), ps=1, max_restarts=2, ps_grace=0.1)
    assert outcome == Outcome(0)
    assert of("launch", lines) == [
        "worker:1 ended with 137: it is started again (1 of 2)",
        "worker:1 ended with 137: it is started again (2 of 2)",
    ]
    places_told = of("worker:1", lines)
    assert len(places_told) == 3
    assert len(set(places_told)) == 1


def test_without_restarts_left_the_job_goes_on_without_the_worker(launched):
    outcome, lines = launched(LOST_WORKER.replace("BACK", "False"), ps=1, max_restarts=1, ps_grace=0.1)
    assert outcome == Outcome(0)
    assert of("launch", lines)[-1] == "worker:1 ended with 137: the job goes on without it"


@pytest.mark.parametrize(
    ("who", "how", "expected"),
    [
        ("ps:0", "os.kill(os.getpid(), 9)", Outcome(137, "ps:0", "", True)),
        ("worker:0", "os.kill(os.getpid(), 9)", Outcome(137, "worker:0", "", True)),  # the last worker
        ("worker:0", "sys.exit(65)", Outcome(65, "worker:0")),
    ],
)
def test_a_lost_server_and_the_last_worker_end_the_job(launched, who, how, expected):
    code = f"if me == '{who}': {how}\nif me == 'chief:0': time.sleep(1); sys.exit(138)\ntime.sleep(60)"
    outcome, _ = launched(code, workers=1, ps=1, grace=5, ps_grace=0.1)
    assert outcome == expected


def test_the_evaluator_may_go_on_and_its_code_counts(launched):
    code = "if me == 'evaluator:0': time.sleep(0.5); print('evaluated'); sys.exit({})"
    outcome, lines = launched(code.format(0), evaluator=True)
    assert (outcome, of("evaluator:0", lines)) == (Outcome(0), ["evaluated"])
    assert launched(code.format(66), evaluator=True)[0] == Outcome(66, "evaluator:0")


def test_the_evaluator_is_killed_when_it_is_late_or_training_failed(launched):
    code = "time.sleep(60 if me == 'evaluator:0' else 0); sys.exit({})"
    outcome, lines = launched(code.format(0), workers=1, evaluator=True, evaluator_grace=0.3)
    assert outcome == Outcome(138, "evaluator:0")
    assert of("launch", lines)[0] == "evaluator:0 is stopped: the training ended 0.3 s ago"
    began = time.monotonic()
    assert launched(code.format(65), workers=1, evaluator=True)[0] == Outcome(65, "worker:0")
    assert time.monotonic() - began < 10
