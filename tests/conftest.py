"""What every test shares: a clean environment, programs run as users run them, and data that is made once."""

from __future__ import annotations

import compileall
import fcntl
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import wrapt
from support import warm

_FOREIGN = re.compile(r"^(TF_CONFIG|JOB_COMPLETION_INDEX|TPU_|CUDA_|SLURM_|MLFLOW_|TFSCALE_|LWS_|PET_|KUBEFLOW_)")
for _name in [name for name in os.environ if _FOREIGN.match(name)]:
    del os.environ[_name]
os.environ["TFSCALE_SETTINGS"] = "none"  # whatever the one who tests has in a file
if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
    del os.environ["TERM"]  # which tests of terminals set themselves
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A shell starts what it puts into the background with SIGINT ignored, and all that we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
# The files that take longest, in processor seconds: they begin first, so that at the end no core waits for one of them.
LONGEST = (
    "test_tables", "test_stores_run", "test_named", "test_train", "test_parts", "test_export", "test_overrides", "test_labels",
    "test_predict", "test_unequal_workers", "test_evaluate", "test_given_forms", "test_fit_model", "test_tfrecord",
    "test_session", "test_graphs", "test_given_models", "test_parity", "test_stores", "test_screen_of_a_run",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # once, not in each process of pytest-xdist
        # Where PYTHONDONTWRITEBYTECODE is set, every program that a test starts would compile all our modules anew.
        for folder in (ROOT / "tfscale", ROOT / "tests" / "support"):
            compileall.compile_dir(folder, quiet=1)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist would take the files with most tests first


def pytest_collection_finish() -> None:
    """What was imported stays: a million objects that no search for garbage need pass."""
    gc.freeze()


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str
    seconds: float


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: tests of a file that share what a fixture makes run one after another in one process, and
    those of the mark `long` come first, or the last of them would have a core and nothing beside it."""
    first = set()
    for item in items:
        file = item.nodeid.partition("::")[0]
        made = [definitions[-1].scope for definitions in item._fixtureinfo.name2fixturedefs.values()]  # type: ignore
        if {"module", "class"} & set(made):
            item.add_marker(pytest.mark.xdist_group(file))
            if hasattr(item, "_id") and item.config.getoption("loadgroup", False):
                # pytest 9.2 keeps a test's name where pytest-xdist 3.8, which marks it by its group, doesn't look
                item._id = type(item._id).parse(f"{item.nodeid}@{file}")  # type: ignore
        if item.get_closest_marker("long"):
            first.add(_group(item))
    items.sort(key=lambda item: (_group(item) not in first, _rank(item)))


def _rank(item: pytest.Item) -> int:
    return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.nodeid


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """made_once("name", make): a folder that `make(folder)` fills, once for all processes of pytest-xdist."""

    def get(name: str, make: Callable[[Path], object]) -> Path:
        base = tmp_path_factory.getbasetemp()
        base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        folder, done = base / name, base / f"{name}.made"
        with (base / f"{name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def data_dir(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder of data that all tests share: the digits are prepared once."""
    return made_once("data", lambda folder: None)


@pytest.fixture(scope="session")
def trained_run(
    data_dir: Path,
    made_once: Callable[[str, Callable[[Path], object]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of six steps on the digits, made once: evaluation, prediction and export open it again."""
    job = ("+recipe=resnet", "task.depth=8", "task.width=4", "train.until=6st", "tracker=none", "run.dir=it")

    def make(folder: Path) -> None:
        process = warm.Popen(
            [sys.executable, "-m", "tfscale.train", *job],
            cwd=folder,
            env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir)},
            stdout=subprocess.DEVNULL,
        )
        assert process.wait() == 0

    return shutil.copytree(made_once("trained", make) / "it", tmp_path_factory.mktemp("trained") / "it")


def is_cold(request: pytest.FixtureRequest) -> bool:
    """Whether the test is about how programs start, so that Python is started for each; see support/warm.py."""
    return any(request.node.get_closest_marker(name) for name in ("cold", "container"))


@pytest.fixture(autouse=True)
def processes_apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What modules of ours start to prepare data, to check an export or as workers has no `import tensorflow`."""
    if not is_cold(request):
        warm.start_apart_warm(lambda owner, name, value: monkeypatch.setattr(f"{owner}.{name}", value))


@pytest.fixture
def cli(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Runs `python -m tfscale.train ARGUMENTS` in an empty folder; kills it after `deadline` seconds.

    It is forked by a process that has imported TensorFlow, or by one that hasn't where it is code that begins with
    `warm.LIGHT`; unless it is `cold`, the test is marked so, or it is other code.
    """

    def run(
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        deadline: float = 120.0,
        program: tuple[str, ...] = ("-m", "tfscale.train"),
        cwd: Path = tmp_path,
        cold: bool = is_cold(request),
    ) -> Ended:
        began = time.monotonic()
        process = warm.Popen(
            [sys.executable, *program, *arguments],
            cold=cold or (program[0] == "-c" and not program[1].startswith(warm.LIGHT)),
            cwd=cwd,
            env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"still running after {deadline} s: {arguments}\n{out[-2000:]}\n{err[-2000:]}")
        return Ended(process.returncode, out, err, time.monotonic() - began)

    return run


@wrapt.when_imported("tensorflow")
def four_devices(tensorflow: ModuleType) -> None:
    """Whichever test of this process begins with TensorFlow: the devices can't change once one has run an operation."""
    cpus = tensorflow.config.list_physical_devices("CPU")
    tensorflow.config.set_logical_device_configuration(cpus[0], [tensorflow.config.LogicalDeviceConfiguration()] * 4)
    tensorflow.config.threading.set_intra_op_parallelism_threads(2)
    tensorflow.config.threading.set_inter_op_parallelism_threads(2)


@pytest.fixture(scope="session")
def tf() -> ModuleType:
    """TensorFlow with four logical CPU devices, two threads and deterministic kernels."""
    import tensorflow

    return tensorflow


class Messages(list[str]):
    """What was logged, oldest first."""

    @property
    def text(self) -> str:
        return "\n".join(self)


@pytest.fixture(scope="module")
def s3_server():
    from support.s3_server import S3

    made = S3().start()
    yield made
    made.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A store with an empty bucket, and the environment that finds it."""
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    s3_server.empty()
    return s3_server


@pytest.fixture
def messages() -> Iterator[Messages]:
    """What tfscale logs while a test runs, INFO and above."""
    from tfscale.console.messages import received

    found = Messages()
    with received(found.append):
        yield found


@pytest.fixture(autouse=True)
def tensorflow_as_before():
    """A run switches deterministic kernels on for its process; the next test begins without."""
    yield
    if "tensorflow" in sys.modules:
        from tfscale.hooks.tensorflow_hooks import set_determinism

        set_determinism(False)


@pytest.fixture
def policy():
    """Sets the dtype policy and puts float32 back."""
    import keras

    yield keras.config.set_dtype_policy
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
