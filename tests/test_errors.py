from __future__ import annotations

from tfscale import errors

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


def test_nearest():
    assert errors.nearest("resnt", ["resnet", "bert"]) == "; did you mean 'resnet'?"
    assert errors.nearest("xyz", ["resnet"]) == ""
