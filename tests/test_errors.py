from __future__ import annotations

import json

import pytest

from tfscale import errors
from tfscale.errors import UsageError

CODES = {
    "CheckFailed": 1,
    "UsageError": 64,
    "DataCorrupt": 65,
    "DataMissing": 66,
    "InternalError": 70,
    "OutputError": 73,
    "IOFailure": 74,
    "CheckpointUnusable": 76,
    "SecurityRefused": 77,
    "ClusterConfigError": 78,
    "Diverged": 81,
    "Interrupted": 130,
    "ClusterFault": 138,
    "Preempted": 143,
}


def test_one_class_per_exit_code():
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TfscaleError) and value is not errors.TfscaleError
    }
    assert found == CODES


def test_line_is_one_line_with_fact_place_and_fix():
    error = errors.UsageError("global_batch=100 is\nnot divisible", where="train.global_batch", fix="use 96")
    assert error.line() == "tfscale: error[E-0064] global_batch=100 is; not divisible | train.global_batch | use 96"


def test_the_cause_behind_what_libraries_put_before_it():
    told = "(raised as a result of Query-invoked autoflush; consider ...)\n(sqlite3.OperationalError) disk is full\n[SQL: X]"
    assert errors.first_line(ValueError(told)) == "(sqlite3.OperationalError) disk is full"
    assert errors.first_line(ValueError("Graph execution error:\n\nbad shape")) == "bad shape"
    assert errors.first_line(ValueError()) == "ValueError"
    told = "{{function_node __wrapped__IteratorGetNext_device_}} ValueError: no such page\nTraceback (most recent call last):\n"
    assert errors.first_line(ValueError(told)) == "ValueError: no such page"


def test_nearest():
    assert errors.nearest("resnt", ["resnet", "bert"]) == "; did you mean 'resnet'?"
    assert errors.nearest("xyz", ["resnet"]) == ""


@pytest.mark.parametrize("letter", ["x", "ü", "漢", "😀", '"', "\n", "\udcff"])
def test_a_container_leaves_its_reason_as_one_line_that_is_not_cut(tmp_path, letter):
    """Kubernetes takes 4096 bytes of it, wherever that cuts."""
    from tfscale.console import leave_reason

    file = tmp_path / "termination-log"
    leave_reason(UsageError("absent"), file)
    assert not file.exists()  # no container
    for count in (1, 3000):
        file.write_text("")
        leave_reason(UsageError(f"what {letter * count}", where=letter * count, fix="mend it"), file)
        data = file.read_bytes()
        assert len(data) <= 4096 and data.count(b"\n") == 1 and data.endswith(b"\n")
        told = json.loads(data.decode("utf-8"))
        assert told["exit_code"] == 64 and told["what"].startswith("what") and told["fix"] == "mend it"
