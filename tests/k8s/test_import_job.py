"""`tfscale k8s data import`: the Job that fills a claim, what it refuses, and what its pod does, done here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml
from support.s3_server import S3

from tfscale.errors import TfscaleError
from tfscale.k8s.__main__ import main
from tfscale.k8s.printed import text_of, text_of_import

JOB = ["job.image=registry/tfscale:1", "job.data_claim=data"]
URL = ["s3://bucket/t.csv", "name=trips", "data.label=x > 3"]


def rendered(*words: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of_import([*words, *JOB])))


def test_the_pod_writes_the_claim_that_trainings_mount_read_only(validate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("columns: {x: {type: number}}\n")
    (tmp_path / "pod.yaml").write_text(
        "spec: {volumes: [{name: raw, nfs: {server: a, path: /b}}],"
        " containers: [{volumeMounts: [{name: raw, mountPath: /raw}]}]}"
    )
    found = rendered(*URL, "data.schema=mine.yaml", "job.queue=gold", "job.ttl=60", "job.secrets=[store]")
    training = yaml.safe_load_all(text_of(["+recipe=tabular", "data.name=trips", "job=job", "job.run_claim=r", *JOB]))
    assert [problem for each in found for problem in validate(each)] == []
    schema, job = found
    assert list(schema["data"].values()) == ["columns: {x: {type: number}}\n"]
    assert job["metadata"]["name"] == "import-trips" and job["spec"]["ttlSecondsAfterFinished"] == 60
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gold"
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["args"] == ["data", "import", *URL, "data.schema=/schema/schema.yaml"]
    [claim] = [one for one in pod["volumes"] if one["name"] == "data"]
    assert claim["persistentVolumeClaim"] == {"claimName": "data"} and pod["restartPolicy"] == "Never"
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in container["volumeMounts"]}
    assert mounts == {"/work/data": False, "/tmp": False, "/dev/shm": False, "/schema": True}
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsUser"] == 65532
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}] and "ports" not in container
    # The same claim, at the same place
    [theirs] = [one["spec"]["template"]["spec"] for one in training if one["kind"] == "Job"]
    [mount] = [one for one in theirs["containers"][0]["volumeMounts"] if one["name"] == "data"]
    assert mount == {"name": "data", "mountPath": "/work/data", "readOnly": True}
    assert {"claimName": "data", "readOnly": True} in [one.get("persistentVolumeClaim") for one in theirs["volumes"]]
    # A path that the pod has
    for path in ("/work/data/raw/t.csv", "/raw/t.csv", "tfds:mnist"):
        [job] = rendered(path, "name=trips", "job.pod=pod.yaml")
        assert job["spec"]["template"]["spec"]["containers"][0]["args"][2] == path


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["t.csv", "name=x"], 64, "on this machine"),
        (["/work/data/../../etc", "name=x"], 64, "on this machine"),
        (["file:///t.csv", "name=x"], 64, "file://"),
        (["s3://b/t.csv"], 64, "no name"),
        ([*URL, "data.dir=d"], 64, "the claim is mounted"),
        ([*URL, "data.text.tokenizer=mine.model"], 64, "data.text.tokenizer"),
        ([*URL, "data.labl=x"], 64, "label"),
        ([*URL, "job.workers=2"], 64, "job.workers"),
        ([*URL, "job.run_claim=runs"], 64, "job.run_claim"),
        ([*URL, "job=jobset"], 64, "jobset"),
        ([*URL, "job.data_claim=null"], 64, "job.data_claim"),
        ([*URL, "job.image=null"], 64, "job.image"),
        ([*URL, "job.wrkers=2"], 64, "workers"),
        (["s3://me:secret@b/t.csv", "name=x"], 77, "secret"),
        ([*URL, "job.env.AWS_SECRET_ACCESS_KEY=abc"], 77, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_what_would_fail_there_is_refused_here(words, code, says):
    with pytest.raises(TfscaleError) as error:
        text_of_import([*JOB, *words])
    assert error.value.exit_code == code and says in error.value.line()
    assert "secret@" not in error.value.line()


def test_the_command_tells_what_a_group_says_in_vain(tmp_path, capsys):
    (tmp_path / "job").mkdir()
    site = "kind: job\nimage: registry/tfscale:2\nrun_claim: runs\ndata_claim: all\nvolcano: true\n"
    (tmp_path / "job" / "gold.yaml").write_text(site)
    assert main(["data", "import", *URL, "job=gold", "--config-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "# Note: job.run_claim has no effect on an import\n# Note: job.volcano has no effect" in text
    assert 'EXTRAS="mlflow digits tables s3"' in text
    [job] = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    assert "schedulerName" not in pod and pod["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "all"}
    assert main(["data", "import", *URL, "--aply"]) == 64 and "--apply" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_pod_is_told_fills_the_claim_once(tmp_path):
    """In a process here, from a real store; a second pod copies nothing."""
    [job] = rendered(*URL)
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    store = S3().start()
    try:
        store.empty()
        store.write("t.csv", ("x,y\n" + "".join(f"{n % 7},{n}\n" for n in range(100))).encode())
        environ = {**os.environ, **store.environ}
        said = []
        for _ in range(2):
            command = [sys.executable, "-m", "tfscale", *words]
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    finally:
        store.stop()
    assert "copied 1 files" in said[0] and "copied" not in said[1] and "is there already" in said[1]
    about = json.loads((tmp_path / "data/trips/1.0.0/import.json").read_text())
    assert sum(split["examples"] for split in about["splits"].values()) == 100
    assert not list((tmp_path / "data").glob("incomplete*"))
