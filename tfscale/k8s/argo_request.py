"""`tfscale k8s workflow train_and_deploy`: what is asked of a workflow in a cluster, and what can't be.

Owns the words of that command, where a workflow's parts lie in its pods, and which words become parameters. Refuses to
know Argo's objects, which are argo_templates.py's.

    asked = Asked.of(["workflow.name=digits", "serve=kserve", "+recipe=resnet", "data=mnist"], ours=[])
    workflow = ClusterWorkflow.of(asked, job)          # the Job of asked.training
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from tfscale.errors import UsageError, nearest
from tfscale.k8s.import_job import ImportInCluster, mounted
from tfscale.k8s.pod import DATA, IMPORTING
from tfscale.k8s.quantities import is_quantity
from tfscale.k8s.secrets import key_parts
from tfscale.k8s.serving_job import ServeInCluster
from tfscale.k8s.spec import RUNS, Job, JobSpec, MountedFiles
from tfscale.workflow.steps import TRAIN_AND_DEPLOY, Places, Step, train_and_deploy
from tfscale.workflow.workflow_request import WorkflowRequest, value_in

KINDS = ("trainjob", "jobset", "tfjob")
SERVERS = ("deployment", "kserve", "seldon")
STAND_IN = "tfscale-run-name"  # for the workflow's name, which is known once it runs, and names its run and its job
MAX_NAME = 29  # with the time that a CronWorkflow puts behind it, it is a job's name of at most 40 characters
MODELS = "/work/served"  # where the claim of the served models lies in the step that writes them
_FOLDER = "models"  # on that claim
_ROLL_OUT = 300  # seconds in which the last pods of the version before are gone
_OWN = ("schedule", "timezone", "models_claim", "ttl")
_OF_PODS = ("cpus", "memory", "secrets")  # of `serve.`: what job.* says of the pods that train


@dataclass(frozen=True)
class Asked:
    """The words of a workflow, before its training is composed.

    Attributes:
        words: all but those of job.*, and `serve=KIND`.
        server: the kind of what serves.
        name: of the objects: job.name, or the model's in letters that Kubernetes takes.
        pods: words of `serve.` about the pods, without it.
    """

    words: tuple[str, ...]
    server: str
    name: str
    pods: Mapping[str, str]

    @classmethod
    def of(cls, words: Sequence[str], *, ours: Sequence[str]) -> Asked:
        """Args: words: of the command but for those of job.*, which are `ours`.

        Raises:
            UsageError: a word that is unknown or has no effect, or a name that Kubernetes doesn't take.
        """
        servers = [word.partition("=")[2] for word in words if word.startswith("serve=")]
        pods = dict(word.removeprefix("serve.").split("=", 1) for word in words if _is_of_pods(word))
        rest = tuple(word for word in words if not word.startswith("serve=") and not _is_of_pods(word))
        if any(word.startswith("workflow.serve=") for word in rest):
            text = "a cluster's server goes on when the workflow has ended"
            raise UsageError(text, where="workflow.serve", fix="leave it away; serve=KIND says what serves")
        request = WorkflowRequest.of(rest, own=_OWN)
        request.check_alias()
        name = value_in(ours, "job.name") or re.sub(r"[^a-z0-9]+", "-", request.name.lower()).strip("-")
        made = cls(rest, servers[-1] if servers else "deployment", name, pods)
        made._check()
        return made

    @cached_property
    def request(self) -> WorkflowRequest:
        return WorkflowRequest.of(self.words, own=_OWN)

    @property
    def places(self) -> Places:
        """Where pods find a run's parts: each run has a folder of its own for them, also for what it imports, since the
        source of the next one may have changed."""
        own = f"{self.name}/{STAND_IN}"
        run = f"{RUNS}/{own}"
        metrics = (
            f"dns+http://{self.metrics_service}:{value_in(self.request.serve, 'serve.probes_port') or 8081}/metrics"
        )
        return Places(run, f"{DATA}/imported/{own}", f"{run}/report.html", f"{MODELS}/{self.folder}", metrics=metrics)

    @property
    def folder(self) -> str:
        """Of the served models on their claim: one for each run, by which a Deployment is rolled out; of a watched
        model one for all, with numbered versions, of which running pods take the one before by themselves."""
        return f"{_FOLDER}/{self.name}/{'versions' if self.request.watch else STAND_IN}"

    @property
    def metrics_service(self) -> str:
        """Whose name has the address of each pod."""
        return f"{self.name}-metrics"

    def steps(self, config_dir: str) -> list[Step]:
        """The commands, before any word is a parameter, with a folder of people's own groups on this machine."""
        return train_and_deploy(dataclasses.replace(self.request, config_dir=config_dir), self.places)

    @property
    def training(self) -> list[str]:
        """The overrides of the training, as its pods get them."""
        [train] = [step for step in train_and_deploy(self.request, self.places) if step.name == "train"]
        return list(train.command[1:])

    def _check(self) -> None:
        if self.server not in SERVERS:
            why = "Seldon Core 2 takes models from a store, and the workflow writes them to a claim"
            what = why if self.server == "seldon2" else f"{self.server} serves no model{nearest(self.server, SERVERS)}"
            raise UsageError(what, where="serve", fix=f"use serve= with one of {', '.join(SERVERS)}")
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", self.name) or len(self.name) > MAX_NAME:
            text = f"{self.name!r} is no name of at most {MAX_NAME} lower-case letters, digits and -"
            why = ", behind which the jobs of its runs get a number"
            raise UsageError(text + why, where="job.name", fix="give job.name=NAME")
        if self.request.watch and self.server != "deployment":
            text = f"pods of serve={self.server} don't go back to the version before by themselves"
            raise UsageError(text, where="watch.seconds", fix="leave it away, or serve=deployment")
        own = self.request.own
        if "timezone" in own and "schedule" not in own:
            raise UsageError(
                "without a schedule it has no effect",
                where="workflow.timezone",
                fix='workflow.schedule="0 3 * * *", too',
            )
        if "schedule" in own and len(own["schedule"].split()) != 5 and not own["schedule"].startswith("@"):
            text = f"{own['schedule']!r} is no schedule of five fields"
            raise UsageError(text, where="workflow.schedule", fix='workflow.schedule="0 3 * * *", every day at three')
        if not own.get("ttl", "0").isdecimal():
            raise UsageError(f"{own['ttl']} are no seconds", where="workflow.ttl", fix="workflow.ttl=86400, a day")
        for key in ("cpus", "memory"):
            if key in self.pods and not is_quantity(self.pods[key]):
                text = f"{self.pods[key]} is no quantity of Kubernetes"
                raise UsageError(text, where=f"serve.{key}", fix="write 8, 500m, 64Gi")


@dataclass(frozen=True)
class ClusterWorkflow:
    """A workflow, ready to be rendered: what varies is a parameter, and the workflow's own name a stand-in.

    Attributes:
        asked: its words.
        job: the training's.
        importing: the import, or None.
        serving: what the last steps apply.
        steps: the commands, of which the training's and the server's are objects in a cluster.
        parameters: their defaults by name.
    """

    asked: Asked
    job: Job
    importing: ImportInCluster | None
    serving: ServeInCluster
    steps: tuple[Step, ...]
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, asked: Asked, job: Job) -> ClusterWorkflow:
        """Args: job: as it is rendered of `asked.training` alone.

        Raises:
            UsageError: a kind of job that the workflow can't wait for, or a claim that is missing.
        """
        _check_job(asked, job)
        parameters: dict[str, str] = {"job-image": job.spec.image or ""}
        if job.spec.mlflow_uri:
            parameters["job-mlflow_uri"] = job.spec.mlflow_uri
        tagged = [_tagged(word, parameters) for word in asked.words]
        spec = dataclasses.replace(
            job.spec,
            name=STAND_IN,
            image=tag("job-image"),
            mlflow_uri=tag("job-mlflow_uri") if job.spec.mlflow_uri else None,
        )
        places = dataclasses.replace(asked.places, url=tag("url", "inputs"), registry=spec.mlflow_uri or "")
        groups = job.files.place if job.files.texts else ""
        steps = train_and_deploy(WorkflowRequest.of(tagged, own=_OWN, config_dir=groups), places)
        [words] = [step.command[1:] for step in steps if step.name == "train"]
        words = tuple(word for word in words if key_parts(word) != ["plan", "hardware"])
        return cls(
            asked,
            dataclasses.replace(job, spec=spec, arguments=("train", *words)),
            _importing(asked, job),
            _serving(asked, job.spec),
            tuple(steps),
            parameters,
        )

    @property
    def models_claim(self) -> str:
        return _models_claim(self.asked, self.job.spec)

    @property
    def url(self) -> str:
        """Where the server is asked; "" where only its object says it."""
        name = self.asked.name
        return {"deployment": f"http://{name}", "seldon": f"http://{name}-default:8000"}.get(self.asked.server, "")

    @property
    def accounts(self) -> tuple[str, str]:
        """Of the pods that run our commands, and of those that apply objects."""
        name = self.asked.name
        return self.job.spec.service_account or f"{name}-steps", f"{name}-apply"

    def job_of(self, step: Step) -> tuple[Job, str]:
        """(the job whose pod runs a step, its role): without a GPU or TPU, but for the evaluation."""
        role = {"import": IMPORTING, "evaluate": "evaluator"}.get(step.name, step.name)
        spec = dataclasses.replace(
            self.job.spec, name=self.asked.name, data_workers=0, data_cpus=None, data_memory=None, volcano=False
        )
        if role != "evaluator":
            spec = dataclasses.replace(spec, gpus=0, tpu=None, tpu_topology=None)
        command, files = step.command, MountedFiles()
        if f"--config-dir={self.job.files.place}" in command:  # the training, which is before, has brought them
            files = dataclasses.replace(self.job.files, owner=STAND_IN)
        if step.name == "import" and self.importing is not None:
            told, files = self.importing.arguments(), self.importing.files()
            where = [word for word in step.command if word.startswith("dir=")]
            command = (*told[:2], tag("import-source"), *told[3:], *where)
        if step.name == "smoke":
            one = ["protocol=v1"] if self.serving.runtime == "tensorflow" else []
            command = (*command, *one, f"wait={_ROLL_OUT}")
        return dataclasses.replace(self.job, spec=spec, arguments=command, files=files), role


def refuse_others(first: Sequence[str]) -> None:
    """Raises UsageError where a command doesn't begin with a workflow that there is."""
    if list(first) != [TRAIN_AND_DEPLOY]:
        what = f"there is no workflow {first[0]!r}" if first else "no workflow was named"
        raise UsageError(what, where="command line", fix=f"tfscale k8s workflow {TRAIN_AND_DEPLOY} ...")


def tag(name: str, where: str = "workflow") -> str:
    """How Argo names a parameter: {{workflow.parameters.NAME}}."""
    return f"{{{{{where}.parameters.{name}}}}}"


def notes(workflow: ClusterWorkflow) -> Iterator[str]:
    """What people should know of it, one sentence each."""
    extras = {extra: None for step in workflow.steps for extra in step.extras}
    if workflow.importing is not None:
        extras |= dict.fromkeys(workflow.importing.extras())
    yield f'the image must have what its steps need: docker build --build-arg EXTRAS="{" ".join(extras)}"'
    if not workflow.job.spec.mlflow_uri:
        yield "without job.mlflow_uri models are registered in a file beside the runs, which few at a time can write"
    where = workflow.asked.folder.replace(STAND_IN, "RUN")
    yield f"each run leaves its model in {where} on the claim {workflow.models_claim}; nobody deletes old ones"
    if workflow.asked.server == "seldon":
        yield "Seldon Core reads models of a claim by pvc://, for which its storage initializer must be set up"


def _is_of_pods(word: str) -> bool:
    return any(word.startswith(f"serve.{key}=") for key in _OF_PODS)


def _tagged(word: str, parameters: dict[str, str]) -> str:
    """A word of the training, the import's source, or the alias, with a parameter for its value, which is added. One
    that would end the quotation marks around it stays as it is."""
    key, equals, value = word.partition("=")
    group = key.partition(".")[0]
    if (
        not equals
        or set('"\\\n') & set(value)
        or (group in ("workflow", "import", "validate", "evaluate", "serve", "watch") and key not in _VARY)
    ):
        return word
    name = re.sub(r"[^A-Za-z0-9_]", "-", key.lstrip("+"))
    parameters[name] = value
    return f"{key}={tag(name)}"


_VARY = ("import.source", "workflow.as")


def _models_claim(asked: Asked, spec: JobSpec) -> str:
    return asked.request.own.get("models_claim") or spec.data_claim or ""


def _importing(asked: Asked, job: Job) -> ImportInCluster | None:
    if not asked.request.source:
        return None
    [step] = [step for step in train_and_deploy(asked.request, asked.places) if step.name == "import"]
    folder = PurePosixPath(value_in(asked.request.importing, "dir") or DATA)
    if not folder.is_relative_to(DATA) or ".." in folder.parts:
        text = f"{folder} isn't on the claim, which is mounted at {DATA}"
        raise UsageError(text, where="import.dir", fix=f"import.dir={DATA}/NAME, or leave it away")
    importing = ImportInCluster(tuple(word for word in step.command[2:] if not word.startswith("dir=")))
    importing.check(mounted(dict(job.pod)))
    return importing


def _serving(asked: Asked, spec: JobSpec) -> ServeInCluster:
    is_ours, claim = asked.server == "deployment", _models_claim(asked, spec)
    folder = asked.folder
    model = f"{DATA}/{folder}" if is_ours else f"pvc://{claim}/{folder}"
    secrets = [name for name in re.split(r"[\[\], ]+", asked.pods.get("secrets", "")) if name]
    served = JobSpec(
        kind=asked.server,
        name=asked.name,
        namespace=spec.namespace,
        image=tag("job-image"),
        cpus=asked.pods.get("cpus"),
        memory=asked.pods.get("memory"),
        data_claim=claim if is_ours else None,
        secrets=secrets,
        user=spec.user,
        service_account=spec.service_account,
        pull_secrets=spec.pull_secrets,
        priority_class=spec.priority_class,
    )
    words = [f"model={model}", *asked.request.serve]
    if value_in(words, "serve.name") is None:
        words.append(f"serve.name={asked.request.name}")
    return ServeInCluster.of(words, served, asked=[])


def _check_job(asked: Asked, job: Job) -> None:
    spec, importing = job.spec, bool(asked.request.source)
    problems: list[tuple[str, str, str]] = []
    if spec.kind not in KINDS:
        text = f"a step of Argo waits for one object, and job={spec.kind} isn't one"
        problems.append(("job", text, f"use job= with one of {', '.join(KINDS)}"))
    if not spec.run_claim:
        text = "the steps are pods of their own, which hand the run on in its folder"
        problems.append(("job.run_claim", text, "give job.run_claim=CLAIM, a ReadWriteMany claim"))
    if importing and not spec.data_claim:
        text = "what the first step imports the others find on a claim"
        problems.append(("job.data_claim", text, "give job.data_claim=CLAIM"))
    if not _models_claim(asked, spec):
        text = "no claim was given for the models that are served"
        problems.append(("workflow.models_claim", text, "give workflow.models_claim=CLAIM, or job.data_claim=CLAIM"))
    if spec.data_workers and spec.kind != "jobset":
        why = "beside a TFJob they run on for ever" if spec.kind == "tfjob" else "a TrainJob doesn't say that it ended"
        problems.append(("job.data_workers", why, "use job=jobset"))
    if spec.ttl is not None:
        text = "of a job that is gone nobody learns how it ended; it goes with its workflow"
        problems.append(("job.ttl", text, "give workflow.ttl=SECONDS"))
    if asked.server == "deployment" and "secrets" not in asked.pods and "serve.auth=none" not in asked.words:
        text = "requests bring a token, and no Secret holds it"
        problems.append(
            ("serve.secrets", text, "give serve.secrets=[NAME], see docs/deploy/serve.md; or serve.auth=none")
        )
    if asked.server != "deployment" and "secrets" in asked.pods:
        problems.append(("serve.secrets", f"serve={asked.server} takes none", "leave it away"))
    if problems:
        raise UsageError(
            "; ".join(text for _, text, _ in problems),
            where=", ".join(key for key, *_ in problems),
            fix="; ".join(fix for *_, fix in problems),
        )
