"""The steps from files to a served model: one definition, for processes of this machine and for a cluster's pods.

Owns which commands there are, in which order, and what each reads and leaves. Refuses to know how a command is run,
where its output goes, and when it is done.

    request = WorkflowRequest.of(["workflow.name=digits", "+recipe=resnet", "data=mnist"])
    places = Places(run="work/run", data="work/data", report="work/report.html", versions="work/served/digits")
    for step in train_and_deploy(request, places):
        print("tfscale", *step.command)         # tfscale train +recipe=resnet data=mnist run.dir=work/run
"""

from __future__ import annotations

from dataclasses import dataclass

from tfscale.workflow.workflow_request import WorkflowRequest, value_in

TRAIN_AND_DEPLOY = "train_and_deploy"
STEPS = ("import", "validate", "train", "evaluate", "export", "promote", "deploy", "serve", "smoke")
WATCH = "watch"  # the last step, of a workflow that was asked for it
NOT_BETTER = 1  # what `promote` ends with where the model isn't better: an answer, and no failure
_HOST, _PORT, _PROBES = "127.0.0.1", "8080", "8081"  # of `tfscale serve`


@dataclass(frozen=True)
class Places:
    """Where a workflow's parts lie: paths of this machine, or of a volume that pods mount, or URLs.

    Attributes:
        run: the folder of the training's run.
        data: the folder of data sets, to which is imported.
        report: the page of the evaluation; "" for none.
        versions: the folder of the numbered versions that are served.
        url: of the server; "" for that which the words of `serve` say. metrics: of what it counts, likewise.
        registry: of the models; "" for the run's own tracker.
    """

    run: str
    data: str
    report: str
    versions: str
    url: str = ""
    metrics: str = ""
    registry: str = ""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        command: the words after "tfscale".
        needs: names of the steps before it.
        reads: files and folders of people's own; where they change it is done anew.
        leaves: patterns of files that are there once it is done.
        extras: of tfscale's that must be installed.
        may_refuse: whether exit code 1 is an answer, after which the later steps have nothing to do.
        stays: whether it is a server, which doesn't end by itself.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    may_refuse: bool = False
    stays: bool = False


def train_and_deploy(request: WorkflowRequest, places: Places) -> list[Step]:
    """The steps in their order, without those of `left_out`."""
    run, groups = f"run.dir={places.run}", (f"--config-dir={request.config_dir}",) * bool(request.config_dir)
    allowed = tuple(word for word in request.train if word.lstrip("+").startswith("extensions.allow="))
    whose = (f"as={request.alias}", f"name={request.name}")
    registry = (f"tracker.uri={places.registry}",) if places.registry else ()
    url = places.url or url_of(request.serve)
    served = (f"serve.name={request.name}", *request.serve)
    before = ("validate",) if request.source else ()
    report, export = _report(request, places), f"{places.run}/export/export.json"
    asked = tuple(word for word in served if word.startswith(("serve.name=", "serve.token_file=", "serve.tls_cert=")))
    return [
        *_data_steps(request, places),
        Step(
            "train",
            ("train", *groups, *_training(request, places), run),
            needs=before,
            reads=read_by_training(request),
            leaves=(f"{places.run}/result.json",),
        ),
        Step(
            "evaluate",
            ("evaluate", *groups, run, *report, *allowed, *_without(request.evaluate, "report")),
            needs=("train",),
            leaves=tuple(word.partition("=")[2] for word in report),
            extras=("report",) if report else (),
        ),
        Step("export", ("export", *groups, run, *allowed), needs=("train",), leaves=(export,)),
        Step(
            "promote",
            ("promote", *groups, run, *whose, *request.promote, *allowed, *registry),
            needs=("evaluate", "export"),
            extras=("mlflow", "report"),
            may_refuse=True,
        ),
        Step(
            "deploy",
            ("export", *groups, run, f"versions={places.versions}"),
            needs=("promote",),
            leaves=(f"{places.versions}/*/saved_model.pb",),
        ),
        Step(
            "serve",
            ("serve", f"model={places.versions}", *served),
            needs=("deploy",),
            extras=("serve",),
            stays=True,
        ),
        Step("smoke", ("smoke", f"url={url}", f"model={places.run}", *asked), needs=("serve",)),
        *_watch_steps(request, places, (run, *whose, *allowed, *registry)),
    ]


def _watch_steps(request: WorkflowRequest, places: Places, whose: tuple[str, ...]) -> list[Step]:
    """Args: whose: the words that say which alias of which registry goes back."""
    if not request.watch:
        return []
    own = value_in(request.promote, "tracker.uri")
    metrics = places.metrics or metrics_of(request.serve)
    back = ("back=true", *whose, *([f"tracker.uri={own}"] if own else []), f"versions={places.versions}")
    return [
        Step(
            WATCH,
            ("watch", f"metrics={metrics}", f"model={request.name}", *request.watch, *back),
            needs=("smoke",),
            extras=("mlflow", "serve"),
            may_refuse=True,
        )
    ]


def left_out(request: WorkflowRequest) -> dict[str, str]:
    """Of each of STEPS that a workflow doesn't have the reason, for people."""
    if request.source:
        return {}
    return {
        "import": "import.source isn't given: the training's data need no import",
        "validate": "nothing was imported that could be validated",
    }


def url_of(serve: tuple[str, ...]) -> str:
    """Where a server of this machine with these words of `serve` is asked."""
    scheme = "https" if value_in(serve, "serve.tls_cert") else "http"
    return f"{scheme}://{_host(serve)}:{value_in(serve, 'serve.port') or _PORT}"


def metrics_of(serve: tuple[str, ...]) -> str:
    """Where such a server says what it counts."""
    return f"http://{_host(serve)}:{value_in(serve, 'serve.probes_port') or _PROBES}/metrics"


def _host(serve: tuple[str, ...]) -> str:
    host = value_in(serve, "serve.host") or _HOST
    host = _HOST if host in ("0.0.0.0", "::") else host
    return f"[{host}]" if ":" in host else host


def _data_steps(request: WorkflowRequest, places: Places) -> list[Step]:
    if not request.source:
        return []
    name, folder = request.data_name, value_in(request.importing, "dir") or places.data
    where = (f"name={name}", f"dir={folder}")
    rest = _without(request.importing, "name", "dir")
    schema = value_in(request.importing, "schema")
    return [
        Step(
            "import",
            ("data", "import", request.source, *where, *rest),
            reads=tuple(filter(None, (request.source, schema))),
            leaves=(f"{folder}/{name}/*/import.json",),
        ),
        Step(
            "validate",
            ("data", "validate", name, f"dir={folder}", *request.validate),
            needs=("import",),
            reads=tuple(filter(None, [value_in(request.validate, "against")])),
            extras=("validate",),
        ),
    ]


def _training(request: WorkflowRequest, places: Places) -> tuple[str, ...]:
    """The training's overrides, with the imported data set where they don't name one."""
    if not request.source:
        return request.train
    folder = value_in(request.importing, "dir") or places.data
    data = {"data.name": request.data_name, "data.dir": folder}
    return (*request.train, *(f"{key}={value}" for key, value in data.items() if not value_in(request.train, key)))


def read_by_training(request: WorkflowRequest) -> tuple[str, ...]:
    keys = ("data.path", "data.test_path", "init_from")
    return tuple(filter(None, (*(value_in(request.train, key) for key in keys), request.config_dir)))


def _report(request: WorkflowRequest, places: Places) -> tuple[str, ...]:
    """The word of the page: evaluate.report=none is no page, as of tasks that have none."""
    asked = value_in(request.evaluate, "report")
    if asked == "none" or not (asked or places.report):
        return ()
    return (f"report={asked or places.report}",)


def _without(words: tuple[str, ...], *keys: str) -> tuple[str, ...]:
    return tuple(word for word in words if all(value_in((word,), key) is None for key in keys))
