"""The deploy guide: each manifest on its pages is what the command above it prints.

    UPDATE_DEPLOY=1 python -m pytest tests/k8s/test_deploy.py

writes the pages anew.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tfscale.k8s.printed import (
    text_of,
    text_of_import,
    text_of_prediction,
    text_of_route,
    text_of_serving,
    text_of_workflow,
)
from tfscale.k8s.spec import KINDS, ROUTE_KINDS, SERVING_KINDS

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
PAGES = sorted(page for page in DEPLOY.glob("*.md") if page.name not in ("README.md", "your-code.md"))
_PRINTED = {
    "predict": text_of_prediction,
    "serve": text_of_serving,
    "route": text_of_route,
    "workflow": text_of_workflow,
}
_SHOWN = re.compile(
    r"^    tfscale k8s (?P<words>[^\n]*)\n\n```(?P<language>yaml|bash)\n(?P<text>.*?)^```$", re.M | re.S
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_its_commands_print(page):
    if page.stem == "workflow":
        pytest.importorskip("hera")

    def printed(match: re.Match) -> str:
        # The first line repeats the command, which stands above already
        words = shlex.split(match["words"])
        if words[0] in _PRINTED:
            text = _PRINTED[words[0]](words[1:])
        else:
            text = text_of_import(words[2:]) if words[:2] == ["data", "import"] else text_of(words)
        lines = text.splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("# tfscale k8s "))
        return match[0][: match.start("text") - match.start()] + text + "```"

    found = page.read_text()
    assert _SHOWN.search(found)
    expected = _SHOWN.sub(printed, found)
    if os.environ.get("UPDATE_DEPLOY"):
        page.write_text(expected)
    assert found == expected


def test_every_kind_has_a_page():
    commands = [shlex.split(match["words"]) for page in PAGES for match in _SHOWN.finditer(page.read_text())]
    shown = {word for words in commands for word in words[:3]}
    kinds = {word.removeprefix("job=") for word in shown if word.startswith("job=")}
    assert kinds == {*KINDS, *SERVING_KINDS, *ROUTE_KINDS}


def test_the_groups_and_variables_that_the_guide_names_exist():
    from tfscale.cluster import Cluster

    text = (DEPLOY / "README.md").read_text()
    assert Cluster.resolve(dict(re.findall(r"^    (TFSCALE_\w+)=\"?([^\s\"]+)", text, re.M))).num_workers == 4
    [example] = re.findall(r"^    kind: jobset\n(?:    .*\n)+", text, re.M)
    from tfscale.k8s.manifests import JobSpec

    options = yaml.safe_load(example)
    assert JobSpec(**options).queue == "gold"
    for name in re.findall(r"`job\.(\w+)", text):
        assert hasattr(JobSpec(), name), name
