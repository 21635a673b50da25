"""What `tfscale k8s` prints: the job of a recipe or of a script as YAML, or as Slurm's batch script.

Owns how overrides become a Job. Refuses to know the command line.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tfscale.errors import UsageError
from tfscale.k8s.secrets import key_parts, leaves, refuse_environment, refuse_secrets
from tfscale.k8s.yaml_text import yaml_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tfscale.config.schema import RunConfig
    from tfscale.k8s.metadata import Manifest
    from tfscale.k8s.script import Script
    from tfscale.k8s.spec import Job, JobRunConfig, JobSpec, MountedFiles
    from tfscale.workflow.steps import Step

NOTE = "# Note: "
_OPEN = re.compile(r"job\.(env|node_selector)[.=]")


def text_of(overrides: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a recipe for these overrides: YAML, or Slurm's batch script.

    Raises:
        UsageError: the recipe, the job, or both together are impossible.
        SecurityRefused: an override holds a secret.
    """
    from tfscale.composition.hydra_compose import to_run_config

    raw = _checked(overrides, config_dir)
    if raw.job.kind == "runtime":  # which is no recipe's
        job = _job_of(_spec(raw), ("train",))
    else:
        job = _job(to_run_config(raw, overrides), overrides, config_dir)
    return _written(job, [*_folder(config_dir), *overrides])


def text_of_script(script: Script, overrides: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a Keras script: overrides of `job` are the job's, others configure each of its fits.

    Raises:
        DataMissing: there is no such script.
        UsageError: the script, the job, or both together are impossible.
        SecurityRefused: an override or an argument holds a secret, or an address in the script a password.
    """
    from tfscale.config.override_keys import overridden
    from tfscale.hardware import Hardware
    from tfscale.k8s.plans import with_hardware
    from tfscale.k8s.script import refuse_roles
    from tfscale.keras_fit.from_python import config_before_a_fit

    pairs = zip(script.arguments, script.arguments[1:], strict=False)
    refuse_secrets([word.lstrip("-") if "=" in word else f"argument={word}" for word in script.arguments])
    refuse_secrets([f"{name.lstrip('-')}={value}" for name, value in pairs if name.startswith("--")])
    theirs = _of_the_run(overrides)
    config = config_before_a_fit(theirs, settings=False)
    usual = [f"job.name={script.name}"] if "job.name" not in overridden(overrides) else []
    raw = _checked([*usual, *overrides], config_dir)
    spec = _spec(raw)
    if raw.plan.hardware is not None:
        spec = with_hardware(spec, Hardware.load(Path(raw.plan.hardware)))
    refuse_roles(spec)
    files = script.files()
    if spec.kind == "slurm":
        job = _job_of(spec, script.words_here(theirs))
    else:
        job = _job_of(spec, script.words(spec.name, theirs), files=files, grace=config.cluster.grace)
    asked = [*(["--requirements", script.requirements] if script.requirements else []), *overrides]
    asked = [*_folder(config_dir), *asked]
    return _written(job, ["run", *script.target, *asked, *(["--", *script.arguments] if script.arguments else [])])


def text_of_import(words: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of an import: words of `job` are the job's, the others are for `tfscale data import`.

    Raises:
        UsageError: a word is wrong, or names what only this machine has.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.config.override_keys import overridden
    from tfscale.k8s import import_job

    ours, theirs = _parted(words)
    refuse_secrets([word if "=" in word else f"PATH={word}" for word in theirs])
    importing = import_job.ImportInCluster(tuple(theirs))
    usual = ["job=job"] if not any(word.startswith("job=") for word in ours) else []
    usual += [f"job.name={importing.name}"] if "job.name" not in overridden(ours) else []
    spec, in_vain = import_job.spec_of_import(_spec(_checked([*usual, *ours], config_dir, trains=False)), ours)
    job = _job_of(spec, importing.arguments(), files=importing.files())
    importing.check(import_job.mounted(dict(job.pod)))
    asked = ["data", "import", *_folder(config_dir), *words]
    return _as_text(asked, [*in_vain, *import_job.notes(importing, job)], import_job.render(job))


def text_of_prediction(words: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a prediction: words of `job` are the job's, the others are for `tfscale predict`.

    Raises:
        UsageError: a word is wrong, or names what only this machine has.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.config.override_keys import overridden
    from tfscale.k8s import predict_job
    from tfscale.k8s.import_job import mounted

    ours, theirs = _parted(words)
    refuse_secrets(theirs)
    predicting = predict_job.PredictInCluster(tuple(theirs))
    usual = ["job=job"] if not any(word.startswith("job=") for word in ours) else []
    usual += [f"job.name={predicting.name}"] if "job.name" not in overridden(ours) else []
    spec, in_vain = predict_job.spec_of_prediction(_spec(_checked([*usual, *ours], config_dir, trains=False)), ours)
    files, where = _groups(config_dir)
    job = _job_of(spec, predicting.arguments(spec.workers, where), files=files)
    predicting.check(spec, mounted(dict(job.pod)), kept=mounted(dict(job.pod), keeps=True))
    predicting.check_overrides(config_dir)
    asked = ["predict", *_folder(config_dir), *words]
    return _as_text(asked, [*in_vain, *predict_job.notes(predicting, job)], predict_job.render(job))


def text_of_serving(words: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a served model: words of `job` say where its pods run, the others what they serve.

    Raises:
        UsageError: a word is wrong, or has no effect.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.config.override_keys import overridden
    from tfscale.k8s import served_model, serving_job

    ours, theirs = _parted(words)
    refuse_secrets(theirs)
    usual = ["job=deployment"] if not any(word.startswith("job=") for word in ours) else []
    usual += ["job.name=model"] if "job.name" not in overridden(ours) else []
    spec = _spec(_checked([*usual, *ours], config_dir, trains=False))
    serving = serving_job.ServeInCluster.of(theirs, spec, ours)
    asked = ["serve", *_folder(config_dir), *words]
    return _as_text(asked, list(serving_job.notes(serving)), served_model.render(serving))


def text_of_workflow(
    words: Sequence[str],
    *,
    config_dir: str | None = None,
    refuse_bad_words: Callable[[Sequence[Step]], None] | None = None,
) -> str:
    """What is printed of a workflow: its name, `train_and_deploy`, comes first.

    Args:
        refuse_bad_words: raises what is wrong with the words of steps that are no objects of their own; this room knows
            no evaluation.

    Raises:
        UsageError: the workflow, its training or its job is impossible.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.composition.hydra_compose import to_run_config
    from tfscale.config.override_keys import overridden
    from tfscale.k8s import argo_request, argo_workflow

    argo_request.refuse_others(words[:1])
    ours, theirs = _parted(words[1:])
    refuse_secrets(theirs)
    asked = argo_request.Asked.of(theirs, ours=ours)
    usual = [f"job.name={asked.name}"] if "job.name" not in overridden(ours) else []
    overrides = [*usual, *ours, *asked.training]
    job = _job(to_run_config(_checked(overrides, config_dir), overrides), overrides, config_dir)
    if refuse_bad_words is not None:
        refuse_bad_words(asked.steps(config_dir or ""))
    workflow = argo_request.ClusterWorkflow.of(asked, job)
    notes = argo_request.notes(workflow)
    return _as_text(["workflow", *_folder(config_dir), *words], list(notes), argo_workflow.render(workflow))


def text_of_sweep(words: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a sweep: words of `job` are the job's, the others are for `tfscale sweep`, and `sweep.as`.

    Raises:
        UsageError: the sweep, one of its trainings or its job is impossible.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.composition.hydra_compose import to_run_config
    from tfscale.config.override_keys import overridden
    from tfscale.config.schema import validate
    from tfscale.k8s import sweep_manifests
    from tfscale.k8s.manifests import render
    from tfscale.k8s.notes import notes

    ours, theirs = _parted(words)
    refuse_secrets(theirs)
    request, form = sweep_manifests.in_cluster(theirs)
    usual = [f"job.name=sweep-{request.name}"] if "job.name" not in overridden(ours) else []

    def trained(number: int, values: Mapping[str, Any], more: Sequence[str]) -> tuple[Job, JobRunConfig]:
        overrides = [*usual, *ours, *request.training(number, values), *more]
        config = cast("JobRunConfig", to_run_config(_checked(overrides, config_dir), overrides))
        sweep_manifests.check_trial(config.job, form)
        return _job(config, overrides, config_dir), config

    first = {one.key: one.corners[0] for one in request.space.dimensions}
    if form == "katib":
        for corner in request.space.corners():  # what any value would be refused for is found here
            validate(to_run_config(_checked([*usual, *ours, *corner], config_dir), corner))
        job, config = trained(0, first, ["log.format=json"])
        made, told = sweep_manifests.experiment(request, config, job), notes(job)
    else:
        made, told = [], []
        for number, values in enumerate(request.drawn()):
            job, _ = trained(number, values, [])
            spec = dataclasses.replace(job.spec, name=f"{job.spec.name}-{request.trial_name(number)}")
            job = dataclasses.replace(job, spec=spec)
            made, told = [*made, *render(job)], [*told, *notes(job)]
    asked = ["sweep", *_folder(config_dir), *words]
    return _as_text(asked, list(dict.fromkeys([*sweep_manifests.notes(request, form), *told])), made)


def text_of_route(words: Sequence[str], *, config_dir: str | None = None) -> str:
    """What is printed of a route: manifests, or Envoy's configuration.

    Raises:
        UsageError: a word is wrong, or has no effect.
        SecurityRefused: a word holds a secret.
    """
    from tfscale.config.override_keys import overridden
    from tfscale.k8s import route_manifests
    from tfscale.k8s.envoy_config import envoy_config
    from tfscale.k8s.route_request import Route

    ours, theirs = _parted(words)
    refuse_secrets([word for word in theirs if not word.startswith("route.tls_secret=")])  # a Secret's name
    usual = ["job.name=models"] if "job.name" not in overridden(ours) else []
    route = Route.of(theirs, _spec(_checked([*usual, *ours], config_dir, trains=False)), asked=ours)
    made = [envoy_config(route)] if route.spec.kind == "envoy" else route_manifests.render(route)
    return _as_text(["route", *_folder(config_dir), *words], [], made)


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(words of `job`, all others)."""
    ours = [word for word in words if key_parts(word)[0] == "job" and "=" in word]
    return ours, [word for word in words if word not in ours]


def _groups(config_dir: str | None) -> tuple[MountedFiles, str | None]:
    """The user's own groups and where the container finds them; raises SecurityRefused where they hold a secret."""
    import yaml

    from tfscale.k8s import configuration
    from tfscale.k8s.spec import MountedFiles

    files = configuration.read(config_dir) if config_dir else MountedFiles()
    for path, text in files.texts.items():
        refuse_secrets(leaves(yaml.safe_load(text), path))
    return files, configuration.PLACE if files.texts else None


def _folder(config_dir: str | None) -> list[str]:
    """The option with the user's own groups, where there are some."""
    return ["--config-dir", config_dir] if config_dir else []


def _written(job: Job, words: Sequence[str]) -> str:
    from tfscale.k8s.manifests import render
    from tfscale.k8s.notes import notes
    from tfscale.k8s.sbatch import script

    if job.spec.kind == "slurm":
        shebang, rest = script(job).split("\n", 1)
        return f"{shebang}\n{_as_text(words, notes(job), [])}{rest}"
    return _as_text(words, notes(job), render(job))


def _as_text(words: Sequence[str], notes: Sequence[str], manifests: Sequence[Manifest]) -> str:
    """YAML below the command that it comes from, and what is to be known of it."""
    head = "".join(f"# {line}\n" for line in shlex.join(["tfscale", "k8s", *words]).splitlines())
    head += "".join(f"{NOTE}{note}\n" for note in [*notes, *_of_settings()])
    return head + "---\n".join(yaml_of(manifest) for manifest in manifests)


def _of_settings() -> list[str]:
    """What this machine's settings files say counts here, and nowhere else: manifests follow from their command."""
    from tfscale.config.settings_files import settings_files

    told = ", ".join(f"{file.name} ({', '.join(file.values) or 'nothing'})" for file in settings_files())
    note = f"settings of this machine don't count here: {told}; what pods need is given with the command"
    return [note] if told else []


def composed(overrides: Sequence[str], config_dir: str | None = None, *, trains: bool = True) -> DictConfig:
    """The configuration of a run and of its job, before it is checked; of the job alone where nothing is trained."""
    from tfscale.composition.hydra_compose import compose_raw
    from tfscale.k8s.spec import JobRunConfig

    # To Hydra a key of an open mapping is a new one
    forced = [f"++{each}" if _OPEN.match(each) else each for each in overrides]
    return compose_raw(forced, config_dir=config_dir, schema=JobRunConfig, whole=trains)


def _checked(overrides: Sequence[str], config_dir: str | None, *, trains: bool = True) -> DictConfig:
    from omegaconf import OmegaConf

    refuse_secrets(overrides)
    raw = composed(overrides, config_dir, trains=trains)
    refuse_environment(raw)
    if OmegaConf.is_missing(raw.job, "kind"):
        raise UsageError("no kind of job was chosen", where="job", fix="add job=tfjob; --help lists the kinds")
    return raw


def _spec(raw: DictConfig) -> JobSpec:
    from omegaconf import OmegaConf

    spec = cast("JobSpec", OmegaConf.to_object(raw.job))
    _refuse_secrets_of(spec)
    return spec


def _refuse_secrets_of(spec: JobSpec) -> None:
    """What a file of groups may say, too."""
    refuse_secrets([f"job.env.{name}={value}" for name, value in spec.env.items()])
    refuse_secrets([f"job.mlflow_uri={spec.mlflow_uri}"])


def _of_the_run(overrides: Sequence[str]) -> list[str]:
    """Those that the pods are told: the others describe the job alone."""
    return [each for each in overrides if key_parts(each)[0] != "job" and key_parts(each) != ["plan", "hardware"]]


def _job_of(spec: JobSpec, arguments: Sequence[str], **more: Any) -> Job:
    from tfscale.k8s.pod_file import read
    from tfscale.k8s.spec import Job

    return Job(spec, tuple(arguments), pod=read(spec.pod) if spec.pod else {}, **more)


def _job(config: RunConfig, overrides: Sequence[str], config_dir: str | None) -> Job:

    from tfscale.config.schema import validate
    from tfscale.config.unused_settings import refuse_ignored
    from tfscale.hardware import Hardware
    from tfscale.k8s.plans import check_plan, with_hardware
    from tfscale.k8s.spec import JobRunConfig, MountedFiles

    assert isinstance(config, JobRunConfig)
    validate(config)
    refuse_ignored(config)
    theirs = _of_the_run(overrides)
    _refuse_secrets_of(config.job)
    described = Hardware.load(Path(config.plan.hardware)) if config.plan.hardware is not None else None
    spec = with_hardware(config.job, described) if described is not None else config.job
    files, where = MountedFiles(), config_dir  # a batch script runs where the folder lies
    if spec.kind != "slurm":
        files, where = _groups(config_dir)
    job = _job_of(
        spec,
        ["train", *(["--config-dir", where] if where else []), *theirs],
        grace=config.cluster.grace,
        has_store=config.run.store is not None,
        files=files,
        code=tuple(prefix.rstrip(".") for prefix in config.extensions.allow),
    )
    check_plan(job, config, described)
    return job
