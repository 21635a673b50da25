"""Entry point: `python -m tfscale.k8s +recipe=resnet job=tfjob job.image=... [override ...]`: prints manifests.

Of a script: `python -m tfscale.k8s run train.py job=tfjob job.image=... [override ...] [-- argument ...]`.
Of a served model: `python -m tfscale.k8s serve model=... job=deployment job.image=... job.data_claim=...`.
Of a workflow: `tfscale k8s workflow train_and_deploy workflow.name=NAME +recipe=... job=trainjob ...`.
Of a prediction: `python -m tfscale.k8s predict run.dir=... output=... job.image=... job.run_claim=... job.workers=4`.
Of a sweep: `python -m tfscale.k8s sweep +recipe=... KEY=a,b job=job job.image=... job.run_claim=... [sweep.as=katib]`.
Of an import: `python -m tfscale.k8s data import s3://... name=NAME job.image=... job.data_claim=...`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence

from tfscale.cli import Parser, Program, guard
from tfscale.console import write_result
from tfscale.errors import UsageError
from tfscale.k8s.apply import OPTION, apply
from tfscale.k8s.printed import (
    NOTE,
    composed,
    text_of,
    text_of_import,
    text_of_prediction,
    text_of_route,
    text_of_script,
    text_of_serving,
    text_of_sweep,
    text_of_workflow,
)
from tfscale.k8s.script import Script
from tfscale.workflow.steps import Step

_log = logging.getLogger("tfscale.k8s")
_IMPORT = {
    "prog": "tfscale k8s data import",
    "about": "Print the Job that fills a volume claim with a data set.",
    "usage": "tfscale k8s data import URL name=NAME job.image=... job.data_claim=... [KEY=VALUE ...]",
    "epilog": "keys: job.* as `tfscale k8s --cfg job` shows them, and those of `tfscale data import`\n"
    "example: tfscale k8s data import s3://bucket/flights.csv name=flights\n"
    "         job.image=registry/tfscale:0.1 job.data_claim=data job.secrets=[store]",
}
_PREDICT = {
    "prog": "tfscale k8s predict",
    "about": "Print the Job whose pods share the examples of one prediction.",
    "usage": "tfscale k8s predict run.dir=PATH|URL output=FILE job.image=... job.run_claim=... [KEY=VALUE ...]",
    "epilog": "keys: job.* as `tfscale k8s --cfg job` shows them, and those of `tfscale predict`\n"
    "example: tfscale k8s predict run.dir=runs/resnet/563a34baa8 data.name=photos output=runs/preds.parquet\n"
    "         job.image=registry/tfscale:0.1 job.run_claim=runs job.data_claim=data job.workers=4",
}
_SWEEP = {
    "prog": "tfscale k8s sweep",
    "about": "Print the trials of a sweep as jobs beside each other, or as an Experiment of Katib.",
    "usage": "tfscale k8s sweep OVERRIDE ... job=KIND job.image=... job.run_claim=... [KEY=VALUE ...]",
    "epilog": "keys: job.* as `tfscale k8s --cfg job` shows them; sweep.as=jobs (random, or sweep.sampler=grid)\n"
    "or katib; all others are those of `tfscale sweep`\n"
    'example: tfscale k8s sweep +recipe=resnet "optimizer.learning_rate=tag(log,interval(0.01,1))" sweep.trials=12\n'
    "         sweep.as=katib sweep.parallel=3 job=job job.image=registry/tfscale:0.1 job.run_claim=runs",
}
_SERVE = {
    "prog": "tfscale k8s serve",
    "about": "Print the manifests with which a model is served in a cluster.",
    "usage": "tfscale k8s serve model=PLACE job=deployment|kserve|seldon|seldon2 [KEY=VALUE ...]",
    "epilog": "keys: job.* as `tfscale k8s --cfg job` shows them; serve.runtime (tfscale, tensorflow),\n"
    "serve.replicas, serve.max_replicas, serve.canary (percent, KServe), and those of `tfscale serve`\n"
    "example: tfscale k8s serve model=/work/data/digits job=deployment job.image=registry/tfscale:0.1\n"
    "         job.name=digits job.data_claim=models job.secrets=[serve-token] serve.replicas=2",
}
_ROUTE = {
    "prog": "tfscale k8s route",
    "about": "Print the way of requests to served models: manifests, or the configuration of an Envoy on this machine.",
    "usage": "tfscale k8s route route.to=SERVICE job=ambassador|gateway|envoy|seldon2 [KEY=VALUE ...]",
    "epilog": "keys: job.name, job.namespace, and route.*: to, canary, weight (percent of the canary), shadow,\n"
    "check (who is asked whether a token is right), host, prefix, timeout, retries, port, gateway, tls_secret\n"
    "example: tfscale k8s route job=gateway route.gateway=public route.to=digits route.canary=digits-next\n"
    "         tfscale k8s route job=envoy route.to=127.0.0.1:8080 route.check=127.0.0.1:8080 > envoy.yaml",
}

_WORKFLOW = {
    "prog": "tfscale k8s workflow",
    "about": "Print the steps from data to a served model as a WorkflowTemplate of Argo Workflows.",
    "usage": "tfscale k8s workflow train_and_deploy workflow.name=NAME job=trainjob|jobset|tfjob [KEY=VALUE ...]",
    "epilog": "keys: job.* as `tfscale k8s --cfg job` shows them; the training's overrides; import.*, validate.*,\n"
    "evaluate.* of these commands; serve=deployment|kserve|seldon, serve.cpus, .memory, .secrets, and those of\n"
    "`tfscale k8s serve`; workflow.as (the alias of the best), .schedule, .timezone, .models_claim, .ttl (seconds)\n"
    'example: tfscale k8s workflow train_and_deploy workflow.name=digits workflow.schedule="0 3 * * *" +recipe=resnet\n'
    "         job=trainjob job.image=registry/tfscale:0.1 job.run_claim=runs job.data_claim=data\n"
    "         serve.secrets=[serve-token]",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or applies; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:
        return _main_of_script(words[1:])
    if words[:2] == ["data", "import"]:
        return _main_of_words(_IMPORT, words[2:], text_of_import, shown="URL|KEY=VALUE")
    if words[:1] == ["predict"]:
        return _main_of_words(_PREDICT, words[1:], text_of_prediction)
    if words[:1] == ["sweep"]:
        return _main_of_words(_SWEEP, words[1:], text_of_sweep, shown="OVERRIDE")
    if words[:1] == ["serve"]:
        return _main_of_words(_SERVE, words[1:], text_of_serving)
    if words[:1] == ["route"]:
        return _main_of_words(_ROUTE, words[1:], text_of_route)
    if words[:1] == ["workflow"]:
        text = functools.partial(text_of_workflow, refuse_bad_words=_refuse_bad_words)
        return _main_of_words(_WORKFLOW, words[1:], text, shown="train_and_deploy|KEY=VALUE")
    program = Program(
        "k8s",
        "Print the manifests with which a recipe runs in a cluster; `tfscale k8s run` prints those of a script,"
        " `tfscale k8s data import` those of an import, `tfscale k8s predict` those of a prediction,"
        " `tfscale k8s sweep` those of many trainings,"
        " `tfscale k8s serve` and `route` those of served models,"
        " `tfscale k8s workflow` those of all steps from data to a served model.",
        example="tfscale k8s +recipe=resnet job=tfjob job.image=registry/tfscale:0.1 job.workers=4 job.run_claim=runs"
        " | kubectl apply -f -",
    )
    program.add_argument(OPTION, action="store_true", help="hand them to kubectl, in the order that controllers need")
    return program.run(words, _print, configuration=_configuration)


def _refuse_bad_words(steps: Sequence[Step]) -> None:
    """What `tfscale workflow` asks of the words of commands that this room doesn't know: that entry point stands above
    it, so that it is found by its name, as the program finds this one."""
    importlib.import_module("tfscale.train_and_deploy").refuse_bad_words(steps, in_cluster=True)


def _main_of_script(words: list[str]) -> int:
    program = Program(
        "k8s run",
        "Print the manifests with which a Keras script runs in a cluster, by `tfscale run` in every pod.",
        example="tfscale k8s run train.py job=jobset job.image=registry/tfscale:0.1 job.workers=2 job.run_claim=runs"
        " -- --epochs 3",
    )
    program.usage = "%(prog)s [option ...] (script.py | -m package.module) [override ...] [-- argument ...]"
    program.add_argument("-m", metavar="MODULE", help="a module, which the image must hold")
    program.add_argument("--requirements", metavar="FILE", help="what pip installs in every pod before the script")
    program.add_argument(OPTION, action="store_true", help="hand them to kubectl, in the order that controllers need")
    cut = words.index("--") if "--" in words else len(words)
    arguments = tuple(words[cut + 1 :])

    def work(options: argparse.Namespace, _: dict) -> int:
        target: tuple[str, ...] = ("-m", options.m)
        overrides = options.overrides
        if options.m is None:
            if not overrides or "=" in overrides[0]:
                raise UsageError("no script was named", where="command line", fix="tfscale k8s run script.py job=...")
            target, overrides = (overrides[0],), overrides[1:]
        script = Script(target, arguments, options.requirements)
        return _tell(text_of_script(script, overrides, config_dir=options.config_dir), apply_it=options.apply)

    def configuration(options: argparse.Namespace) -> str:
        options.overrides = [word for word in options.overrides if "=" in word]
        return _configuration(options)

    return program.run(words[:cut], work, configuration=configuration)


def _main_of_words(
    page: Mapping[str, str], words: list[str], text: Callable[..., str], *, shown: str = "KEY=VALUE"
) -> int:
    """A command of words alone, which its page calls `shown`."""
    parser = Parser(**page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar=shown, help="see below")
    parser.add_argument("--config-dir", metavar="DIR", help="your own groups, such as DIR/job/gold.yaml")
    parser.add_argument(OPTION, action="store_true", help="hand them to kubectl")

    def work(seen: dict) -> int:
        options = parser.parse(words)
        seen["traceback"] = "debug.traceback=true" in options.words
        given = [word for word in options.words if word != "debug.traceback=true"]
        return _tell(text(given, config_dir=options.config_dir), apply_it=options.apply)

    return guard(work)


def _print(options: argparse.Namespace, _: dict) -> int:
    return _tell(text_of(options.overrides, config_dir=options.config_dir), apply_it=options.apply)


def _tell(text: str, *, apply_it: bool) -> int:
    for line in text.splitlines() if apply_it or not sys.stdout.isatty() else ():
        if line.startswith(NOTE):  # kubectl reads it, and people don't
            _log.warning(line.removeprefix(NOTE))
    if apply_it:
        apply(text)
    else:
        write_result(text)
    return 0


def _configuration(options: argparse.Namespace) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(composed(options.overrides, options.config_dir), resolve=False)


if __name__ == "__main__":
    sys.exit(main())
