"""The door `python -m tfscale.k8s +recipe=resnet job=tfjob job.image=... [override ...]`: prints manifests."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tfscale.door import arguments, guard
from tfscale.errors import CheckFailed, SecurityRefused, UsageError, without_secrets
from tfscale.streams import write_result

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tfscale.config import RunConfig
    from tfscale.k8s.pod import Manifest
    from tfscale.k8s.spec import Job, JobSpec

_APPLY = "--apply"
_OPEN = re.compile(r"job\.(env|node_selector)[.=]")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or applies; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tfscale k8s",
        description="Print the manifests with which a recipe runs in a cluster; --apply hands them to kubectl.",
        epilog="example: tfscale k8s +recipe=resnet job=tfjob job.image=registry/tfscale:0.1 job.workers=4"
        " job.run_claim=runs | kubectl apply -f -",
    )
    return guard(lambda seen: _print(parser, list(sys.argv[1:] if argv is None else argv), seen))


def _print(parser: argparse.ArgumentParser, words: list[str], seen: dict) -> int:
    options = arguments(parser, [word for word in words if word != _APPLY])
    if options.cfg:
        from omegaconf import OmegaConf

        write_result(OmegaConf.to_yaml(_compose(options.overrides, options.config_dir), resolve=False))
        return 0
    text = text_of(options.overrides, config_dir=options.config_dir)
    if _APPLY in words:
        return _apply(text)
    write_result(text)
    return 0


def text_of(overrides: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed for these overrides: YAML, or Slurm's batch script.

    Raises:
        UsageError: the recipe, the job, or both together are impossible.
        SecurityRefused: an override holds a secret.
    """
    from omegaconf import OmegaConf

    from tfscale.composition import to_run_config
    from tfscale.k8s import Job, render
    from tfscale.k8s.slurm import script

    _refuse_secrets(overrides)
    raw = _compose(overrides, config_dir)
    if OmegaConf.is_missing(raw.job, "kind"):
        raise UsageError("no kind of job was chosen", where="job", fix="add job=tfjob; --help lists the kinds")
    shared = raw.job.kind == "runtime"  # which is no recipe's
    job = Job(cast("JobSpec", OmegaConf.to_object(raw.job)), ()) if shared else _job(to_run_config(raw), overrides)
    command = shlex.join(["tfscale", "k8s", *overrides])
    if job.spec.kind == "slurm":
        shebang, rest = script(job).split("\n", 1)
        return f"{shebang}\n# {command}\n{rest}"
    return f"# {command}\n" + "---\n".join(_yaml(manifest) for manifest in render(job))


def _yaml(manifest: Manifest) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # anchors are YAML that people stumble over
            return True

    return yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=120)


def _compose(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    from tfscale.composition import compose_raw
    from tfscale.k8s.spec import JobRunConfig

    # To Hydra a key of an open mapping is a new one
    forced = [f"++{each}" if _OPEN.match(each) else each for each in overrides]
    return compose_raw(forced, config_dir=config_dir, schema=JobRunConfig)


def _job(config: RunConfig, overrides: Sequence[str]) -> Job:
    from tfscale.config import validate
    from tfscale.hardware import Hardware
    from tfscale.k8s.plans import check_plan, with_hardware
    from tfscale.k8s.spec import Job, JobRunConfig

    assert isinstance(config, JobRunConfig)
    validate(config)
    theirs = [each for each in overrides if _path(each)[0] != "job" and _path(each) != ["plan", "hardware"]]
    _refuse_secrets([f"job.env.{name}={value}" for name, value in config.job.env.items()])
    _refuse_secrets([f"job.mlflow_uri={config.job.mlflow_uri}"])
    described = Hardware.load(Path(config.plan.hardware)) if config.plan.hardware is not None else None
    spec = with_hardware(config.job, described) if described is not None else config.job
    job = Job(spec, tuple(theirs), grace=config.cluster.grace, has_store=config.run.store is not None)
    check_plan(job, config, described)
    return job


def _path(override: str) -> list[str]:
    """The parts of an override's key."""
    return re.split(r"[./]", override.lstrip("+~").partition("=")[0])


def _refuse_secrets(overrides: Sequence[str]) -> None:
    """Raises SecurityRefused where a key is a secret's, or an address holds a password: both would be printed."""
    from tfscale.redaction import is_secret

    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        inner = re.findall(r"(\w+)\s*:", value) if key == "job.env" else []
        if any(is_secret(name) for name in (_path(override)[-1], *inner)) or without_secrets(value) != value:
            raise SecurityRefused(
                f"{key} holds a secret, and manifests are read by many",
                where=key,
                fix="keep it in a Secret: job.secrets=[NAME], whose keys become environment variables",
            )


def _apply(text: str) -> int:
    """Applies by kubectl, after the server has accepted it in a dry run.

    A TrainJob is left out of that: Trainer refuses it until its runtime is there, and a dry run makes none.
    """
    dry = "---\n".join(each for each in text.split("---\n") if "\nkind: TrainJob\n" not in f"\n{each}")
    for how, documents in ((["--dry-run=server"], dry), ([], text)):
        try:
            done = subprocess.run(["kubectl", "apply", *how, "-f", "-"], input=documents, text=True, check=False)
        except FileNotFoundError:
            raise UsageError(
                "kubectl is not installed here", where=_APPLY, fix="leave --apply away, and apply what is printed"
            ) from None
        if done.returncode:
            raise CheckFailed(
                f"kubectl apply {' '.join(how)} ended with {done.returncode}",
                where=_APPLY,
                fix="see what it said above",
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
