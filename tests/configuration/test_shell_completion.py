"""What a tab completes, by a real bash with the script that `tfscale completion` prints."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tfscale.__main__ import COMMANDS, main
from tfscale.configuration.shell_completion import script

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
ASK = """
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
IFS=$' =' read -ra COMP_WORDS <<< "$COMP_LINE"
case "$COMP_LINE" in *" ") COMP_WORDS+=("");; esac
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_tfscale
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def offered():
    text = script(list(COMMANDS))

    def ask(line):
        done = subprocess.run(["bash", "-c", text + ASK.format(line=line)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tfscale tra", ["train"]),
        ("tfscale run", ["run", "runs"]),
        ("tfscale runs c", ["compare", "clean"]),
        ("tfscale train +recipe=res", ["resnet", "resnet50_imagenet"]),
        ("tfscale train +recipe=resnet train.unt", ["train.until="]),
        ("tfscale train plan.precision=mixed_b", ["mixed_bfloat16"]),
        ("tfscale evaluate run.quiet=", ["true", "false"]),
        ("tfscale train +deb", ["+debug=fast", "+debug=profile"]),
        ("tfscale ui runs", []),
    ],
)
def test_a_tab_completes(offered, line, found):
    assert offered(line) == found


def test_zsh_gets_it_by_its_own_way_and_others_are_refused(capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit")
    assert main(["completion", "fish"]) == 64
