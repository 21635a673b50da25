"""`tfscale watch` beside a real server that follows an alias in a real registry, and is asked all the time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.served_models import Client, served, write_double, write_failing, write_slow

from tfscale.errors import DataMissing
from tfscale.export.model_versions import versions_in
from tfscale.serving.taken_back import Back, WayBack
from tfscale.serving.watch import main
from tfscale.tracking.alias_history import read_events
from tfscale.tracking.alias_moves import roll_back, set_alias
from tfscale.tracking.mlflow_registry import ModelFiles, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own
PREDICT = "/v1/models/double:predict"
CHAMPION = ModelAddress("double", alias="champion")
GOOD, FAILING, SLOW, TORN, BETTER = "12345"


@pytest.fixture(scope="module")
def registry(tf, tmp_path_factory):
    """With a version of each kind."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.create_run(client.create_experiment("double", str(folder / "artifacts"))).info.run_id
    found = open_registry(Stores.of(uri, {}), folder)
    made = {
        GOOD: write_double(folder / GOOD, step=7, gaps=[]),
        FAILING: write_failing(folder / FAILING, step=7),
        SLOW: write_slow(folder / SLOW, products=8, step=7),
        TORN: write_double(folder / TORN, step=7, gaps=[]),
        BETTER: write_double(folder / BETTER, factor=3.0, step=7, gaps=[]),
    }
    (made[TORN] / "saved_model" / "saved_model.pb").write_bytes(b"half a file")
    for number, one in made.items():
        content = ModelFiles({"saved_model": one / "saved_model"}, {"export.json": one / "export.json"})
        source = found.upload(run, f"registered/{number}", content)
        assert found.register("double", run, source, {}, "") == number
    set_alias(found, CHAMPION, GOOD, None, why="the first")
    return found


@pytest.fixture(scope="module")
def server(registry) -> Iterator[Client]:
    with served({"double": f"{CHAMPION}"}, registry=registry.name, threads=1) as client:
        yield client


@contextlib.contextmanager
def asked_all_the_time(client: Client) -> Iterator[None]:
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            client.post(PREDICT, {"instances": [[1, 1, 1]]})
            stop.wait(0.005)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            stop.set()
        asking.result()


def version_of(client: Client) -> str:
    states = client.get("/v1/models/double").json["model_version_status"]
    return next(one["version"] for one in states if one["state"] == "AVAILABLE")


def until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def watch(client: Client, registry, *words: str) -> int:
    where = f"metrics=http://127.0.0.1:{client.probes}/metrics"
    back = ("back=true", f"tracker.uri={registry.name}")
    return main([where, "model=double", "watch.seconds=60", "watch.every=0.1", *back, *words])


@pytest.mark.parametrize(
    ("version", "bound", "what"),
    [
        (FAILING, "watch.most_errors=0.01", "requests failed (100 %), more than watch.most_errors=0.01"),
        (SLOW, "watch.most_p99=0.005", "more than watch.most_p99=0.005"),
        (TORN, "watch.most_errors=0.01", "can't serve version 4"),
    ],
)
def test_a_version_that_does_not_hold_goes_back_by_itself(server, registry, capsys, version, bound, what):
    set_alias(registry, CHAMPION, version, GOOD, why="promoted")
    with asked_all_the_time(server):
        assert watch(server, registry, "watch.least_requests=10", bound) == 1
        (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("tfscale: error[E-0001]"))
        assert what in line and "double: version 1 has the alias champion again" in line
        assert registry.holder("double", "champion") == GOOD
        event = read_events(registry.tags("double"), "champion")[-1]
        assert event.back and event.former == version and what.split(",")[0] in event.why
    until(lambda: version_of(server) == GOOD)
    assert server.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[2, 2, 2]]}


def test_a_good_version_stays_and_too_few_requests_tell_nothing(server, registry, capsys):
    set_alias(registry, CHAMPION, BETTER, GOOD, why="promoted")
    with asked_all_the_time(server):
        assert watch(server, registry, "watch.least_requests=2", "watch.seconds=3") == 0
    assert "double held for 3 s: " in capsys.readouterr().out and registry.holder("double", "champion") == BETTER
    assert watch(server, registry, "watch.seconds=0.2") == 0
    assert "0 requests are too few to judge" in capsys.readouterr().err
    assert watch(server, registry, "watch.seconds=0.2", "watch.least_requests=100") == 1
    assert "too few to judge (watch.least_requests=100); nothing was taken back" in capsys.readouterr().err
    roll_back(registry, "double", "champion")


def test_somebody_elses_promotion_meanwhile_is_not_undone(registry):
    set_alias(registry, CHAMPION, FAILING, GOOD, why="promoted")
    back = WayBack.of(Back("double", uri=registry.name), None)
    assert back.served == FAILING
    set_alias(registry, CHAMPION, BETTER, FAILING, why="promoted by another")
    told = back.take("it fails")
    assert "was moved by somebody else meanwhile, and stays: version 5 has it, and not 2" in told
    assert registry.holder("double", "champion") == BETTER
    roll_back(registry, "double", "champion")
    roll_back(registry, "double", "champion")


def test_a_folder_of_versions_goes_back_with_the_alias(registry, tmp_path):
    folder = tmp_path / "versions"
    for number in (1, 2):
        (folder / str(number)).mkdir(parents=True)
    set_alias(registry, CHAMPION, FAILING, GOOD, why="promoted")
    back = WayBack.of(Back("double", uri=registry.name, folder=folder), None)
    assert back.served == "2"
    told = back.take("it fails")
    assert f"{folder}: version 1 is the newest again; double: version 1 has the alias champion again" in told
    assert versions_in(folder) == [1] and (folder / "2.taken-back").is_dir()
    set_alias(registry, ModelAddress("double", alias="only"), GOOD, None, why="the first")
    back = WayBack.of(Back("double", "only", registry.name, folder=folder), None)
    told = back.take("it fails")
    assert "version 1 is the only one" in told and "no version of double is known to have had the alias only" in told
    assert versions_in(folder) == [1] and registry.holder("double", "only") == GOOD
    with pytest.raises(DataMissing, match="nobody has the alias none"):
        WayBack.of(Back("double", "none", registry.name), None)


def test_what_cannot_be_watched_is_refused(tmp_path, capsys):
    where = ("metrics=http://127.0.0.1:1/metrics", "model=double")
    for words, code, said in (
        (("model=double",), 64, "no value was given for metrics"),
        (("metrics=127.0.0.1:8081", "model=double"), 64, "no address of metrics"),
        ((*where, "watch.most_errors=2"), 64, "no share from 0 to 1"),
        ((*where, "watch.seconds=0"), 64, "no number above 0"),
        ((*where, "watch.least_requests=0"), 64, "no number of 1 or more"),
        ((*where, "as=champion"), 64, "as has no effect where nothing is taken back"),
        ((*where, "back=false", "versions=v"), 64, "versions has no effect"),
        ((*where, "back=true", "as=latest"), 64, "no alias that MLflow takes"),
        ((*where, "back=true", f"versions={tmp_path}"), 66, "holds no numbered versions"),
        ((*where, "back=true", f"tracker.uri=sqlite:///{tmp_path / 'none.db'}"), 64, "there is no registry at"),
        ((*where, "watch.gone=0.1", "watch.seconds=0.1"), 1, "hasn't answered for 0.1 s: "),
    ):
        assert main(words) == code, words
        assert said in capsys.readouterr().err
