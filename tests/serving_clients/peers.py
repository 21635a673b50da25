"""What KServe's server and MLServer answer, recorded for tests that run without them.

    make test-serving-peers          # compares; RECORD=--record writes tests/golden/serving_peers.json anew

Each lives in an environment of its own below build/, made from the pinned files in benchmarks/serving_peers where there
is none, and serves the SavedModels of the tests. The requests are those of tests/support/protocol_requests.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = ROOT / "tests" / "golden" / "serving_peers.json"
sys.path.insert(0, str(ROOT / "tests"))
TOLD = ("kserve", "mlserver", "fastapi", "tensorflow")  # whose versions the file says
TYPES = {
    "double": ([("x", "FP32", [-1, 3])], [("y", "FP32", [-1, 3])]),
    "texts": (
        [("count", "INT32", [-1]), ("texts", "BYTES", [-1, 2])],
        [("joined_bytes", "BYTES", [-1]), ("more", "INT32", [-1])],
    ),
}


def main() -> None:
    from support.served_models import write_double, write_texts

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, default=Path("build/serving_peers"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = {"double": write_double(folder / "double"), "texts": write_texts(folder / "texts")}
        found = {name: _asked(name, options.environments, models, folder) for name in ("kserve", "mlserver")}
    if options.record:
        GOLDEN.write_text(_written(found))
    elif changed := list(_changed(found, json.loads(GOLDEN.read_text()))):
        sys.exit("\n".join([*changed, "RECORD=--record writes the golden file anew"]))
    print(f"{sum(len(one['answers']) for one in found.values())} answers")


def _asked(name: str, environments: Path, models: dict[str, Path], scratch: Path) -> dict[str, Any]:
    from support.grpc_requests import GRPC_REQUESTS, asked
    from support.protocol_requests import REQUESTS, ask, normalised

    from benchmarks.serving import environment, free_ports

    python = environment(name, environments)
    port, grpc, metrics = free_ports(3)
    is_kserve = name == "kserve"
    command = (
        _kserve(python, port, grpc, models) if is_kserve else _mlserver(python, (port, grpc, metrics), models, scratch)
    )
    spoken = {
        key: one for key, one in REQUESTS.items() if is_kserve or key.startswith("v2")
    }  # MLServer speaks v2 alone
    with _started(command, port):
        answers = {key: normalised(*ask(port, one)) for key, one in spoken.items()}
        answers |= {key: asked(grpc, *one) for key, one in GRPC_REQUESTS.items()}
    return {"versions": _versions(python), "answers": answers}


def _changed(found: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    for name, one in found.items():
        before = known[name]
        if one["versions"] != before["versions"]:
            yield f"{name} has {one['versions']}, and the file {before['versions']}"
        for key in {**before["answers"], **one["answers"]}:
            if (now := one["answers"].get(key)) != (then := before["answers"].get(key)):
                yield f"{name}, {key}: {now}, and the file has {then}"


def _written(found: dict[str, Any]) -> str:
    """JSON with one line for each answer."""
    blocks = []
    for name, one in found.items():
        lines = [
            f"   {json.dumps(key)}: {json.dumps(answer, ensure_ascii=False)}" for key, answer in one["answers"].items()
        ]
        inner = ",\n".join(lines)
        blocks.append(
            f' "{name}": {{\n  "versions": {json.dumps(one["versions"])},\n  "answers": {{\n{inner}\n  }}\n }}'
        )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _kserve(python: Path, port: int, grpc: int, models: dict[str, Path]) -> list[str]:
    named = [f"{name}={path}" for name, path in models.items()]
    return [str(python), str(HERE / "kserve_peer.py"), str(port), str(grpc), *named]


def _mlserver(python: Path, ports: tuple[int, int, int], models: dict[str, Path], scratch: Path) -> list[str]:
    folder = scratch / "mlserver"
    settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **settings}))
    for name, path in models.items():
        inputs, outputs = (
            [dict(zip(("name", "datatype", "shape"), one, strict=True)) for one in some] for some in TYPES[name]
        )
        (folder / name).mkdir()
        about = {
            "name": name, "implementation": "mlserver_peer.Served", "platform": "tensorflow_savedmodel",
            "parameters": {"uri": str(path), "version": "1"}, "inputs": inputs, "outputs": outputs,
        }  # fmt: skip
        (folder / name / "model-settings.json").write_text(json.dumps(about))
    return [str(python.parent / "mlserver"), "start", str(folder)]


@contextlib.contextmanager
def _started(command: list[str], port: int) -> Iterator[None]:
    from support.protocol_requests import REQUESTS, ask

    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environ, start_new_session=True, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError):
                    if ask(port, REQUESTS["v2 infer, two inputs"])[0] == ask(port, REQUESTS["v2 infer"])[0] == 200:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.exit(f"{' '.join(command)} doesn't serve:\n{log.read().decode()[-3000:]}")
                time.sleep(0.3)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _versions(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout) if one["name"] in TOLD}


if __name__ == "__main__":
    main()
