"""Entry point: `python -m tfscale.k8s +recipe=resnet job=tfjob job.image=... [override ...]`: prints manifests."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tfscale.cli import Program
from tfscale.console import write_result
from tfscale.errors import SecurityRefused, UsageError, is_plain, is_secret, without_secrets
from tfscale.k8s.apply import OPTION, apply

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tfscale.config.schema import RunConfig
    from tfscale.k8s.metadata import Manifest
    from tfscale.k8s.spec import Job, JobSpec

_log = logging.getLogger("tfscale.k8s")

_NOTE = "# Note: "
_FIELD = re.compile(r"([\w.-]+)\s*:\s*([^,{}\[\]]+)")  # of a mapping in an override
_FROM_POD = re.compile(r"\$\{oc\.env:\s*\w+\s*\}")  # in the run's own keys, which the pod resolves
_MAKE_SECRET = (
    "make a Secret, kubectl create secret generic NAME --from-literal=VARIABLE=VALUE, and give job.secrets=[NAME]: its "
    "keys become environment variables, which the run's own keys may name as '${oc.env:VARIABLE}'"
)
_OPEN = re.compile(r"job\.(env|node_selector)[.=]")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or applies; returns the exit code."""
    program = Program(
        "k8s",
        "Print the manifests with which a recipe runs in a cluster.",
        example="tfscale k8s +recipe=resnet job=tfjob job.image=registry/tfscale:0.1 job.workers=4 job.run_claim=runs"
        " | kubectl apply -f -",
    )
    program.add_argument(OPTION, action="store_true", help="hand them to kubectl, in the order that controllers need")
    return program.run(argv, _print, configuration=_configuration)


def _print(options: argparse.Namespace, _: dict) -> int:
    text = text_of(options.overrides, config_dir=options.config_dir)
    for line in text.splitlines() if options.apply or not sys.stdout.isatty() else ():
        if line.startswith(_NOTE):  # kubectl reads it, and people don't
            _log.warning(line.removeprefix(_NOTE))
    if options.apply:
        apply(text)
    else:
        write_result(text)
    return 0


def _configuration(options: argparse.Namespace) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(_compose(options.overrides, options.config_dir), resolve=False)


def text_of(overrides: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed for these overrides: YAML, or Slurm's batch script.

    Raises:
        UsageError: the recipe, the job, or both together are impossible.
        SecurityRefused: an override holds a secret.
    """
    from omegaconf import OmegaConf

    from tfscale.composition.hydra_compose import to_run_config
    from tfscale.k8s.manifests import Job, render
    from tfscale.k8s.notes import notes
    from tfscale.k8s.pod_file import read
    from tfscale.k8s.sbatch import script

    _refuse_secrets(overrides)
    raw = _compose(overrides, config_dir)
    _refuse_environment(raw)
    if OmegaConf.is_missing(raw.job, "kind"):
        raise UsageError("no kind of job was chosen", where="job", fix="add job=tfjob; --help lists the kinds")
    shared = raw.job.kind == "runtime"  # which is no recipe's
    if shared:
        spec = cast("JobSpec", OmegaConf.to_object(raw.job))
        job = Job(spec, (), pod=read(spec.pod) if spec.pod else {})
    else:
        job = _job(to_run_config(raw, overrides), overrides, config_dir)
    given = ["--config-dir", config_dir] if config_dir else []
    head = f"# {shlex.join(['tfscale', 'k8s', *given, *overrides])}\n"
    head += "".join(f"{_NOTE}{note}\n" for note in notes(job))
    if job.spec.kind == "slurm":
        shebang, rest = script(job, given).split("\n", 1)
        return f"{shebang}\n{head}{rest}"
    return head + "---\n".join(_yaml(manifest) for manifest in render(job))


def _yaml(manifest: Manifest) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # anchors are YAML that people stumble over
            return True

    return yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=120)


def _compose(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    from tfscale.composition.hydra_compose import compose_raw
    from tfscale.k8s.spec import JobRunConfig

    # To Hydra a key of an open mapping is a new one
    forced = [f"++{each}" if _OPEN.match(each) else each for each in overrides]
    return compose_raw(forced, config_dir=config_dir, schema=JobRunConfig)


def _job(config: RunConfig, overrides: Sequence[str], config_dir: str | None) -> Job:
    import yaml

    from tfscale.config.schema import validate
    from tfscale.config.unused_settings import refuse_ignored
    from tfscale.hardware import Hardware
    from tfscale.k8s import configuration
    from tfscale.k8s.plans import check_plan, with_hardware
    from tfscale.k8s.pod_file import read
    from tfscale.k8s.spec import Job, JobRunConfig

    assert isinstance(config, JobRunConfig)
    validate(config)
    refuse_ignored(config)
    theirs = [each for each in overrides if _path(each)[0] != "job" and _path(each) != ["plan", "hardware"]]
    _refuse_secrets([f"job.env.{name}={value}" for name, value in config.job.env.items()])
    _refuse_secrets([f"job.mlflow_uri={config.job.mlflow_uri}"])
    described = Hardware.load(Path(config.plan.hardware)) if config.plan.hardware is not None else None
    spec = with_hardware(config.job, described) if described is not None else config.job
    brought = configuration.read(config_dir) if config_dir and spec.kind != "slurm" else {}
    for path, text in brought.items():
        _refuse_secrets(_leaves(yaml.safe_load(text), path))
    job = Job(
        spec,
        tuple(theirs),
        grace=config.cluster.grace,
        has_store=config.run.store is not None,
        config=brought,
        pod=read(spec.pod) if spec.pod else {},
        code=tuple(prefix.rstrip(".") for prefix in config.extensions.allow),
    )
    check_plan(job, config, described)
    return job


def _leaves(node: Any, path: str) -> list[str]:
    """What a file says as overrides, but for what it leaves to the pod's environment."""
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{path}:{key}")]
    if isinstance(node, list):
        return [leaf for value in node for leaf in _leaves(value, path)]
    return [] if node is None or str(node).startswith("${") else [f"{path}={node}"]


def _path(override: str) -> list[str]:
    """The parts of an override's key."""
    return re.split(r"[./:]", override.lstrip("+~").partition("=")[0])


def _refuse_secrets(overrides: Sequence[str]) -> None:
    """Raises SecurityRefused where a key is a secret's, or an address holds a password: both would be printed."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        names = _path(key.rpartition(".yaml:")[2])
        fields = [(".".join(names), value), *_FIELD.findall(value)]
        if any(is_secret(name) and not _is_open(each) for name, each in fields) or without_secrets(value) != value:
            raise SecurityRefused(f"{key} holds a secret, and manifests are read by many", where=key, fix=_MAKE_SECRET)


def _is_open(value: str) -> bool:
    """Whether anybody may read it: a number, what only the pod looks up, or a mapping of such values."""
    text = value.strip(" '\"")
    if text.startswith("{"):
        return all(_is_open(each) for _, each in _FIELD.findall(text))
    return is_plain(text) or bool(_FROM_POD.fullmatch(text))


def _refuse_environment(raw: DictConfig) -> None:
    """Raises SecurityRefused where the job's keys ask this machine's environment, whose values would be printed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from omegaconf.resolvers import oc

    asked: list[str] = []

    def look_up(name: str, *_: Any) -> str:
        asked.append(str(name))
        return ""

    OmegaConf.register_new_resolver("oc.env", look_up, replace=True)
    try:
        with contextlib.suppress(OmegaConfBaseException):  # what else is wrong is reported elsewhere
            OmegaConf.to_container(raw.job, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    if asked:
        raise SecurityRefused(
            f"the manifest would hold what {', '.join(asked)} is on this machine", where="job", fix=_MAKE_SECRET
        )


if __name__ == "__main__":
    sys.exit(main())
