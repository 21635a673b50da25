"""`tfscale k8s predict`: the Job whose pods share a prediction, what it refuses, and what its pods do, done here."""

from __future__ import annotations

import shutil

import pytest
import yaml

from tfscale.cluster import Cluster
from tfscale.errors import TfscaleError
from tfscale.k8s.__main__ import main
from tfscale.k8s.printed import text_of_prediction

JOB = ["job.image=registry/tfscale:1", "job.run_claim=runs"]
RUN = ["run.dir=runs/resnet/89c6f47174", "output=runs/preds.parquet"]


def rendered(*words: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of_prediction([*words, *JOB])))


def container(job: dict) -> dict:
    [found] = job["spec"]["template"]["spec"]["containers"]
    return found


def test_each_pod_knows_its_share(validate, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("name: photos\n")
    words = [
        *RUN,
        "predict.part=200",
        "job.workers=4",
        "job.data_claim=data",
        "job.gpus=1",
        "job.queue=gold",
        "job.ttl=60",
    ]
    found = list(yaml.safe_load_all(text_of_prediction([*words, *JOB], config_dir=str(tmp_path))))
    groups, job = found
    assert [problem for each in found for problem in validate(each)] == []
    spec, inside = job["spec"], container(job)
    assert job["metadata"]["name"] == "predict-resnet-89c6f47174"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gold" and spec["ttlSecondsAfterFinished"] == 60
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert spec["backoffLimitPerIndex"] == 10 and spec["maxFailedIndexes"] == 0 and "backoffLimit" not in spec
    codes = spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert {64, 65, 66, 73} <= set(codes) and not {74, 137, 138, 143} & set(codes)
    assert groups["data"] == {"data_mine.yaml": "name: photos\n"}
    place = "/etc/tfscale/config"
    assert inside["args"] == ["predict", "--config-dir", place, *RUN, "predict.part=200", "predict.workers=4"]
    assert "ports" not in inside and inside["resources"]["limits"]["nvidia.com/gpu"] == 1
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in inside["volumeMounts"]}
    assert mounts == {"/work/runs": False, "/work/data": True, "/tmp": False, "/dev/shm": False, place: True}
    told = {one["name"]: one["value"] for one in inside["env"]}
    clusters = [Cluster.resolve({**told, "JOB_COMPLETION_INDEX": str(index)}) for index in range(4)]
    assert [(one.num_workers, one.worker_index) for one in clusters] == [(4, index) for index in range(4)]


def test_one_pod_is_a_plain_job(validate):
    for run in ("s3://bucket/runs/resnet/89c6f47174", "models:/digits@champion", "/work/data/runs/it"):
        output = f"{RUN[1]}/"  # a folder
        [job] = rendered(f"run.dir={run}", output, "job.data_claim=data", "input=data/photos")
        assert validate(job) == []
        assert job["spec"]["completions"] == 1 and "completionMode" not in job["spec"]
        assert container(job)["args"] == ["predict", f"run.dir={run}", output, "input=data/photos"]
        assert container(job)["env"] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([RUN[0]], 64, "output"),
        ([*RUN, "output=preds.parquet"], 64, "gone with its pod"),
        ([*RUN, "output=data/preds.parquet", "job.data_claim=data"], 64, "gone with its pod"),
        ([*RUN, "output=runs/../preds.parquet"], 64, "gone with its pod"),
        ([*RUN, "output=runs/preds.csv"], 64, "no format"),
        ([*RUN, "run.dir=/home/me/runs/it"], 64, "no path that the pods see"),
        ([*RUN, "input=photos"], 64, "no path that the pods see"),
        ([*RUN, "input=s3://bucket/photos"], 64, "no path that the pods see"),
        ([*RUN, "input=data/photos"], 64, "job.data_claim"),
        ([*RUN, "predict.workers=2"], 64, "job.workers=2"),
        ([*RUN, "predict.part=0"], 64, "predict.part"),
        ([*RUN, "checkpoint=bset"], 64, "'bset' names no checkpoint"),
        ([*RUN, "data=perpared"], 64, "unknown data 'perpared'"),
        ([*RUN, "data=prepared", "data.nme=photos"], 64, "data.nme"),
        ([*RUN, "eval.splt=test"], 64, "eval.splt"),
        ([*RUN, "+recipe=resnet"], 64, "keeps its recipe"),
        (["run.dir=models:/digits", RUN[1]], 64, "names no version"),
        (["run.dir=https://host/runs/resnet/1", RUN[1]], 64, "https:// isn't what a pod reads runs from"),
        (["run.dir=s3://bucket/run", RUN[1]], 64, "names no run in a store"),
        ([*RUN, "job.workers=two"], 64, "'two' of type 'str' could not be converted to Integer | job.workers=two | "),
        ([*RUN, "inptu=x"], 64, "did you mean 'input'"),
        ([*RUN, "job.workers=0"], 64, "job.workers"),
        ([*RUN, "job.gpus=2", "job.workers=2"], 64, "job.gpus=1 job.workers=4"),
        ([*RUN, "job.evaluator=true"], 64, "job.evaluator has no effect"),
        ([*RUN, "job=jobset"], 64, "jobset"),
        ([*RUN, "job.run_claim=null"], 64, "job.run_claim"),
        ([*RUN, "job.image=null"], 64, "job.image"),
        ([*RUN, "+tracker.token=hunter2hunter2"], 77, "secret"),
    ],
)
def test_what_would_fail_there_is_refused_here(words, code, says):
    with pytest.raises(TfscaleError) as error:
        text_of_prediction([*JOB, *words])
    assert error.value.exit_code == code and says in error.value.line()


def test_an_output_lies_on_what_outlives_the_pod(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pod.yaml").write_text(
        "spec: {volumes: [{name: scratch, emptyDir: {}}, {name: out, persistentVolumeClaim: {claimName: o}}],"
        " containers: [{volumeMounts: [{name: scratch, mountPath: /scratch}, {name: out, mountPath: /out},"
        " {name: out, mountPath: /read, readOnly: true}, {name: tmp, mountPath: /more}]}]}"
    )
    for place in ("scratch", "read", "more"):
        with pytest.raises(TfscaleError, match="gone with its pod"):
            rendered(RUN[0], f"output=/{place}/preds.jsonl", "job.pod=pod.yaml")
    [job] = rendered(RUN[0], "output=/out/preds.jsonl", "input=/read/photos", "job.pod=pod.yaml")
    assert "output=/out/preds.jsonl" in container(job)["args"]


def test_long_names_keep_the_end_by_which_runs_are_told_apart_and_keys_of_the_runs_own_data_pass():
    both = [f"run.dir=runs/{'a-long-recipe-of-somebody' * 2}/{run}" for run in ("563a34baa8", "89c6f47174")]
    names = [rendered(run, RUN[1], "data.name=photos")[0]["metadata"]["name"] for run in both]
    assert all(len(name) <= 40 and name.startswith("predict-") for name in names)
    assert [name[-10:] for name in names] == ["563a34baa8", "89c6f47174"]


def test_where_no_registry_is_named_it_is_said_which_one_pods_read():
    words = ["run.dir=models:/digits@champion", RUN[1], *JOB]
    assert "registry is /work/runs/mlflow.db on the claim" in text_of_prediction(words)
    for word in ("job.mlflow_uri=http://mlflow", "job.secrets=[mlflow]", "job.env={MLFLOW_TRACKING_URI: http://m}"):
        assert "mlflow.db" not in text_of_prediction([*words, word])


def test_the_command_prints_it(capsys):
    assert main(["predict", *RUN, *JOB]) == 0
    text = capsys.readouterr().out
    assert 'EXTRAS="mlflow digits tables"' in text and "kind: Job" in text
    assert main(["predict", *RUN, *JOB, "--aply"]) == 64 and "--apply" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_pods_are_told_gives_one_file(cli, trained_run, tmp_path):
    """In processes here, one after the other; the first comes again, as one whose node was lost in the end."""
    shutil.copytree(trained_run, tmp_path / "runs" / "it")
    [job] = rendered("run.dir=runs/it", "output=runs/preds.jsonl", "predict.part=256", "job.workers=2")
    told = {one["name"]: one["value"] for one in container(job)["env"]}
    words = container(job)["args"][1:]
    said = []
    for index in ("0", "1", "0"):
        environ = {**told, "JOB_COMPLETION_INDEX": index}
        ended = cli(*words, program=("-m", "tfscale.predict"), environ=environ)
        assert ended.code == 0, ended.err
        said.append(ended.out)
    assert (
        "2 of 4 parts are there: whoever writes the last one joins them" in said[0] and "predictions of" not in said[0]
    )
    assert "1000 predictions of step 6" in said[1] and "is there already" in said[2]
    assert len((tmp_path / "runs" / "preds.jsonl").read_text().splitlines()) == 1000
    assert not list((tmp_path / "runs" / "preds.jsonl.parts").glob("part-*"))
