"""The whole way of the digits, from one command to answers behind an Envoy, by real processes that are killed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import warm
from support.envoy_proxy import envoy
from support.peers import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = ("train", "evaluate", "export", "promote", "deploy", "serve", "smoke")
RECIPE = (
    "+recipe=resnet",
    "task.depth=8",
    "task.width=8",
    "task.augment=none",
    "task.label_smoothing=0",
    "train.global_batch=16",
    "optimizer.learning_rate=0.05",
    "checkpoint.every=40st",
    "tracker=none",
)
GOOD, WORSE = (
    (*RECIPE, "train.until=2ep", "optimizer.warmup=50st"),
    (*RECIPE, "train.until=1st", "optimizer.warmup=0st"),
)


@dataclass
class Flow:
    """The command in one folder."""

    folder: Path
    data: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2))

    @property
    def known(self) -> dict:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / "flow" / "workflow.json").read_text())["steps"]
        return {}

    def start(self, *words: str, **environ: str) -> subprocess.Popen:
        port, probes = self.ports
        own = ("workflow.name=digits", "workflow.dir=flow", f"serve.port={port}", f"serve.probes_port={probes}")
        return warm.Popen(
            [sys.executable, "-m", "tfscale", "workflow", "train_and_deploy", *own, *words],
            cwd=self.folder,
            env={**os.environ, "TFSCALE_DATA_DIR": str(self.data), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, **environ: str) -> tuple[int, str]:
        with self.start(*words, **environ) as process:
            out = process.communicate(timeout=200)[0]
        return process.returncode, out

    def killed_in(self, step: str, *words: str) -> str:
        """SIGKILL once this step is at work."""
        log = self.folder / "flow" / "logs" / f"{step}.log"
        before = log.stat().st_size if log.exists() else 0
        with self.start(*words) as process:
            self.wait_for(process, lambda: log.exists() and log.stat().st_size > before)
            time.sleep(0.3)  # its process has begun
            process.kill()
            return process.communicate(timeout=60)[0]

    def wait_for(self, process: subprocess.Popen, ready) -> None:
        until = time.monotonic() + 200
        while not ready():
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
            time.sleep(0.02)

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "flow" / "served" / "digits").iterdir())


@pytest.fixture(scope="module")
def flow(tmp_path_factory, data_dir):
    return Flow(tmp_path_factory.mktemp("workflow"), data_dir)


def passed_over(out: str) -> set[str]:
    lines = [line.partition(" ")[2] for line in out.splitlines() if line.endswith(": done before")]
    return {name.strip() for line in lines for name in line.removesuffix(": done before").split(",")}


def test_a_kill_in_any_step_and_the_same_command_goes_on(flow):
    code, out = flow.run(*GOOD, "workflow.retries=1", TFSCALE_FAULT="ckpt.before_commit:step=80:kill")
    assert code == 138 and "the step train ended with 137: it was killed" in out, out
    assert out.count("train ended with 137: it was killed") == 2 and "1 more tries" in out
    for place, step in enumerate(STEPS[1:], start=1):
        out = flow.killed_in(step, *GOOD)
        done = set(STEPS[:place]) - {"serve"}  # which is done once it was tried out
        assert done - passed_over(out) == {STEPS[place - 1]} - {"serve"}, out  # it ended in this very pass
    log = (flow.folder / "flow" / "logs" / "train.log").read_text()
    assert log.count("$ tfscale train") == 3 and "resum" in log, log
    code, out = flow.run(*GOOD)
    assert code == 0, out
    assert passed_over(out) == {"train", "evaluate", "export", "promote", "deploy"}
    assert "train ✓ → evaluate ✓ + export ✓ → promote ✓ → deploy ✓" in out.replace("\n ", "")
    assert flow.versions == ["1"] and "<svg" in (flow.folder / "flow" / "workflow.html").read_text()


def test_a_second_run_passes_over_all(flow):
    logs = {log.name: log.stat().st_size for log in (flow.folder / "flow" / "logs").iterdir()}
    code, out = flow.run(*GOOD)
    assert code == 0 and passed_over(out) == set(STEPS), out
    assert logs == {log.name: log.stat().st_size for log in (flow.folder / "flow" / "logs").iterdir()}


def test_a_worse_model_is_not_promoted_and_the_server_answers_as_before_behind_an_envoy(flow, tf, tmp_path):
    with flow.start(*GOOD, "workflow.serve=true") as process:
        try:
            lines = iter(process.stdout.readline, "")
            assert any("serves at http://127.0.0.1" in line for line in lines)
            with envoy(tmp_path, f"route.to=127.0.0.1:{flow.ports[0]}", "route.prefix=/digits") as proxy:
                before = asked(proxy)
                code, out = flow.run(*WORSE)
                assert code == 1 and "digits goes on as it is: not better" in out, out
                assert "promote ✗ → deploy ·" in out.replace("\n ", "") and flow.versions == ["1"]
                assert asked(proxy) == before
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_served_model_that_does_not_hold_is_taken_back_and_not_served_again(flow):
    """As after a second promotion: of the champion, which became version 2, the bound of p99 can't hold."""
    served, registry = flow.folder / "flow" / "served" / "digits", after_a_second_promotion(flow)
    shutil.move(served / "1", served / "2")
    shutil.copytree(served / "2", served / "1")
    watched = ("watch.seconds=120", "watch.every=0.2", "watch.least_requests=5", "watch.most_p99=0.0001")
    with flow.start(*GOOD, *watched) as process, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_until_it_ends, process, flow.ports[0])
        out = process.communicate(timeout=200)[0]
        asking.result()
    assert process.returncode == 1 and "digits didn't hold: p99 is" in out, out
    assert "version 1 is the newest again; digits: version 1 has the alias champion again" in out
    assert flow.versions == ["1", "2.taken-back"] and registry.holder("digits", "champion") == "1"
    assert "promote ✗" in out and "watch ✗" in out
    code, out = flow.run(*GOOD, *watched)
    assert code == 1 and "the alias champion was rolled back from it" in out and flow.versions[-1] == "2.taken-back"


def after_a_second_promotion(flow):
    """The registry, where the run is version 2 now, and another one was champion before it."""
    from tfscale.tracking.alias_moves import set_alias
    from tfscale.tracking.mlflow_registry import open_registry
    from tfscale.tracking.model_address import ModelAddress, Stores

    registry = open_registry(Stores(None, None), flow.folder / "flow" / "runs")
    source, tags = registry.source("digits", "1"), registry.tags("digits")["1"]
    run = registry._client.get_model_version("digits", "1").run_id
    assert registry.register("digits", run, source, {"tfscale.export": tags["tfscale.export"]}, "") == "2"
    registry.tag("digits", "1", "tfscale.export", "another")
    set_alias(registry, ModelAddress("digits", alias="champion"), "2", "1", why="better")
    return registry


def ask_until_it_ends(process, port: int) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/digits"):
            pass
        time.sleep(0.05)


def asked(proxy) -> list[int]:
    """What both protocols say of forty test digits, of which four would be right by chance."""
    from PIL import Image

    from tfscale.data.mnist import archive, digits

    examples = [example for _, example in digits(archive())["test"][:40]]
    pngs = []
    for example in examples:
        Image.fromarray(example["image"][:, :, 0]).save(file := io.BytesIO(), "png")
        pngs.append(base64.b64encode(file.getvalue()).decode())
    rows = [{"b64": png} for png in pngs]
    first = proxy.post("/digits/v1/models/digits:predict", {"instances": rows}).json["predictions"]
    tensor = {
        "name": "image",
        "shape": [40],
        "datatype": "BYTES",
        "data": pngs,
        "parameters": {"content_type": "base64"},
    }
    outputs = proxy.post("/digits/v2/models/digits/infer", {"inputs": [tensor]}).json["outputs"]
    second = next(output["data"] for output in outputs if output["name"] == "class")
    assert [one["class"] for one in first] == second
    assert sum(said == example["label"] for said, example in zip(second, examples, strict=True)) > 16
    return second


def test_one_workflow_at_a_time_and_words_that_are_wrong_before_anything_runs(flow, tmp_path):
    other = Flow(tmp_path, flow.data)
    with other.start(*WORSE) as process:
        other.wait_for(process, lambda: other.known.get("train", {}).get("state") == "running")
        code, out = other.run(*WORSE)
        assert code == 73 and "another workflow holds flow" in out and "train ▶" in out, out
        process.send_signal(signal.SIGTERM)
        out = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "stopped by SIGTERM at the step train" in out, out
    code, out = other.run("+recipe=resnet", "train.untl=1st")
    assert code == 64 and "train.untl" in out and not out.count("$ tfscale"), out
