"""What k8s/ writes, cluster/ reads: every pod of every job finds its own place among the same peers."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.controllers import pods, serving, slurm

from tfscale.cluster import Cluster
from tfscale.cluster.service_address import service_address
from tfscale.errors import UsageError
from tfscale.k8s.manifests import Job, JobSpec, render
from tfscale.k8s.sbatch import script

NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z")


@st.composite
def jobs(draw) -> Job:
    accelerator = draw(st.sampled_from(["cpu", "gpu", "tpu"]))
    kind = draw(st.sampled_from(["tfjob", "trainjob", "jobset", "job", "slurm"]))
    tpu = accelerator == "tpu" and kind != "slurm"
    ps = 0 if tpu else draw(st.integers(0, 3))
    spec = JobSpec(
        kind=kind,
        name=draw(NAMES),
        namespace=draw(st.sampled_from([None, "ml", "team-a"])),
        image="registry/tfscale:1",
        workers=1 if tpu else draw(st.integers(1, 12)),
        ps=ps,
        evaluator=draw(st.booleans()),
        data_workers=0 if kind == "slurm" or ps else draw(st.integers(0, 3)),
        gpus=8 if accelerator == "gpu" else 0,
        tpu="v5e" if tpu else None,
        tpu_topology="2x4" if tpu else None,
        port=draw(st.sampled_from([2222, 1, 65535])),
        run_claim="runs",
        volcano=draw(st.booleans()),
        queue=draw(st.sampled_from([None, "gold"])),
    )
    return Job(
        spec,
        (
            "train",
            "+recipe=resnet",
        ),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(job=jobs())
def test_every_pod_finds_its_place_among_the_same_peers(job, tmp_path_factory):
    roles = job.spec.roles
    if job.spec.kind == "slurm":
        found, code, _ = slurm(script(job), tmp_path_factory.mktemp("slurm") / "job")
        assert code == 0
    else:
        manifests = render(job)
        found = pods(manifests)
        serve, dispatchers = serving(manifests, found)
        found = [pod for pod in found if pod not in serve]
        _are_served(job, found, serve, dispatchers)
    assert sorted(pod.role for pod in found) == sorted(r for r, count in roles.items() for _ in range(count))
    clusters = [Cluster.resolve(pod.environ) for pod in found]
    assert len({str(cluster.shared()) for cluster in clusters if cluster.role != "evaluator"}) == 1
    for pod, cluster in zip(found, clusters, strict=True):
        assert cluster.role == pod.role or (cluster == Cluster() and len(found) == 1)
        if cluster.role == "evaluator":
            assert cluster.num_workers == 1 and not cluster.is_chief
        elif cluster.source != "local":
            assert cluster.addresses[cluster.role][cluster.index].rpartition(":")[0] == pod.host
    if len(found) > 1:
        training = {pod.host for pod in found if pod.role != "evaluator"}
        listed = [host.rpartition(":")[0] for hosts in clusters[0].shared().values() for host in hosts]
        assert sorted(listed) == sorted(training)
        assert sum(cluster.is_chief for cluster in clusters) == 1
    assert all(pod.args[-2:] == ["train", "+recipe=resnet"] for pod in found)


def _are_served(job, training, serving, dispatchers):
    """Those that train know the dispatcher, and nothing else of the data workers, which know no cluster."""
    workers = job.spec.data_workers
    assert sorted(pod.role for pod in serving) == ["data"] * workers + ["dispatcher"] * min(1, workers)
    assert len(dispatchers) == min(1, workers)
    address = f"{dispatchers[0]}:{job.spec.port}" if dispatchers else ""
    for pod in training:
        trains = pod.role in ("chief", "worker")
        assert service_address(pod.environ) == (address if trains else "")
    for pod in serving:
        assert Cluster.resolve({**pod.environ, "JOB_COMPLETION_INDEX": "", "KUBERNETES_SERVICE_HOST": ""}) == Cluster()
        assert pod.args[:3] == ["data", "serve", f"port={job.spec.port}"] and "host=$(POD_IP)" in pod.args
        assert (f"dispatcher={address}" in pod.args) == (pod.role == "data")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(nodes=st.integers(1, 40), name=NAMES)
def test_the_shared_runtime_serves_train_jobs_of_any_size(nodes, name):
    """As the Python client makes them: a TrainJob that names the runtime, an image and a number of nodes."""
    runtime = render(Job(JobSpec(kind="runtime", name="tfscale", image="registry/tfscale:1"), ()))
    train_job = {
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {
            "runtimeRef": {"name": "tfscale"},
            "trainer": {"numNodes": nodes, "args": ["train", "+recipe=resnet"]},
        },
    }
    found = pods([*runtime, train_job])
    clusters = [Cluster.resolve(pod.environ) for pod in found]
    assert [cluster.index for cluster in clusters] == list(range(nodes))
    assert all(cluster.worker_addresses == clusters[0].worker_addresses for cluster in clusters)
    assert [re.sub(r":29500$", "", each) for each in clusters[0].worker_addresses] == [pod.host for pod in found]


def test_a_batch_script_is_queued_again_for_codes_that_can_be_retried(tmp_path):
    job = Job(
        JobSpec(kind="slurm", name="digits", workers=2, max_restarts=3), ("train", "+recipe=resnet", "run.name=it's")
    )
    text = script(job)
    for case, (code, count, asked) in enumerate(
        [
            ("143", "0", "requeue 4711\n"),
            ("138", "2", "requeue 4711\n"),
            ("138", "3", ""),
            ("78", "0", ""),
            ("0", "0", ""),
        ]
    ):
        found, ended, said = slurm(text, tmp_path / str(case), SLURM_TEST_CODE=code, SLURM_RESTART_COUNT=count)
        assert (ended, said) == (int(code), asked)
        assert found[1].args[-4:] == ["tfscale", "train", "+recipe=resnet", "run.name=it's"]


@pytest.mark.parametrize("ps", [0, 1])
def test_a_code_that_would_come_again_wins_over_those_who_lost_a_peer(ps, tmp_path):
    job = Job(
        JobSpec(kind="slurm", name="digits", workers=3, ps=ps),
        (
            "train",
            "+recipe=resnet",
        ),
    )
    _, ended, said = slurm(script(job), tmp_path / "job", SLURM_TEST_CODE="138", SLURM_TEST_CODE_node1="65")
    assert (ended, said) == (65, "")
    _, ended, said = slurm(script(job), tmp_path / "again", SLURM_TEST_CODE="138")
    assert (ended, said) == (138, "requeue 4711\n")
    assert not list((tmp_path / "job").glob(".tfscale-*"))


def test_who_waits_for_a_training_that_failed_is_ended(tmp_path):
    """The evaluator and servers would wait until the time limit, and the job not be queued again."""
    job = Job(
        JobSpec(kind="slurm", name="digits", workers=2, ps=1, evaluator=True),
        (
            "train",
            "+recipe=resnet",
        ),
    )
    waits = {"SLURM_TEST_CODE_node3": "wait", "SLURM_TEST_CODE_node4": "wait"}
    began = time.monotonic()
    found, ended, said = slurm(script(job), tmp_path / "job", SLURM_TEST_CODE="138", **waits)
    assert (ended, said, len(found)) == (138, "requeue 4711\n", 5)
    assert time.monotonic() - began < 20


def test_an_image_is_run_where_the_job_was_submitted(tmp_path):
    spec = JobSpec(kind="slurm", name="digits", workers=2, image="registry.example/team/tfscale:1", cpus="7500m")
    text = script(
        Job(
            spec,
            (
                "train",
                "+recipe=resnet",
            ),
        )
    )
    slurm(text, tmp_path / "job", SLURM_CPUS_PER_TASK="8")
    options = (tmp_path / "job" / "out" / "options").read_text().splitlines()
    assert "--container-image=registry.example#team/tfscale:1" in options
    assert f"--container-workdir={tmp_path / 'job'}" in options and "--cpus-per-task=8" in text


def test_what_can_not_be_is_refused_at_once():
    try:
        Job(JobSpec(kind="job", name="No", workers=0, cpus="many", tpu="v9", gpus=-1), ())
    except UsageError as error:
        assert error.exit_code == 64
        for key in ("job.name", "job.image", "job.workers", "job.cpus", "job.tpu", "job.gpus", "job.run_claim"):
            assert key in error.where
    else:
        raise AssertionError("nothing was refused")
