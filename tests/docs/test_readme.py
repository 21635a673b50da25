"""The README's own lines, run as written."""

from __future__ import annotations

import json
import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_ten_lines_train_a_model(cli, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    ended = cli(program=("-c", code))
    assert ended.code == 0, ended.err
    assert float(ended.out.splitlines()[-1]) > 0.9
    result = json.loads((tmp_path / "runs" / "digits" / "result.json").read_text())
    assert (result["status"], result["step"]) == (
        "complete",
        315,
    )  # 5 epochs of 4,000 in 63 steps of 64, the last one smaller


def test_its_folder_is_the_one_that_the_main_job_makes():
    from tfscale.composition.hydra_compose import compose
    from tfscale.preflight import locate

    made = locate(compose(["+recipe=resnet"])).path
    assert set(re.findall(r"runs/resnet/([0-9a-f]{10})", README)) == {made.name}
    assert README.index("activate") < README.index("    tfscale ")


def test_the_groups_of_data_are_those_that_there_are():
    from tfscale.cli import groups

    table = README.split("| data | what it reads |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table.replace("`tf.train.Example`", ""))) >= set(groups()["data"]) - {"synthetic"}


def test_a_laptop_run_becomes_a_cluster_job_by_another_program():
    """Both lines stand beside each other, and the pods' arguments are the first line's."""
    import yaml
    from support.controllers import pods

    from tfscale.composition.hydra_compose import compose
    from tfscale.k8s.__main__ import text_of

    [(train, k8s)] = re.findall(r"^    tfscale train (.*)\n    tfscale k8s +(.*)$", README, re.MULTILINE)
    assert k8s.startswith(train + " job=")
    assert compose(train.split()).run.recipe == "resnet"
    found = pods(list(yaml.safe_load_all(text_of(k8s.split()))))
    assert len(found) == 4 and all(pod.args == ["train", *train.split()] for pod in found)
