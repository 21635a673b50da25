"""Requests a second beside KServe's server and MLServer, with the same SavedModel on the same cores.

    python -m benchmarks.serving --seconds 10 --blocks 3

A small convolutional network of digits in float32 is asked by wrk (Debian: apt install wrk) over HTTP, one example a
request, in the Open Inference Protocol's JSON, with 1, 8 and 64 connections. The servers take turns, by blocks; the
ratios are of one block. KServe and MLServer live in environments below build/, made from the files in
benchmarks/serving_peers. KServe has one worker, and MLServer its adaptive batching (max_batch_size 64, 5 ms) and no
parallel workers, which two cores that share one TensorFlow don't gain by.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.peer_environment import python_of

HERE = Path(__file__).parent / "serving_peers"
CONNECTIONS = (1, 8, 64)
ROW = "| {:<9} | {:>11} | {:>10} | {:>8} | {:>8} | {:>6} | {:>22} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="of one measurement")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=Path("build/serving_peers"))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt install wrk")
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-c", _MODEL, str(folder / "model")], check=True)
        (folder / "ask.lua").write_text(_LUA)
        ports = {name: stack.enter_context(server) for name, server in _servers(folder, options.environments).items()}
        _check_same(ports)
        found = _measured(ports, folder / "ask.lua", options)
    _show(found)


def _servers(folder: Path, environments: Path) -> dict[str, contextlib.AbstractContextManager[int]]:
    ours, probes, kserve, mlserver, grpc, metrics = free_ports(6)
    words = (f"model={folder / 'model'}", "serve.name=m", f"serve.port={ours}", f"serve.probes_port={probes}")
    model = folder / "mlserver"
    model.mkdir()
    settings = {
        "host": "127.0.0.1",
        "http_port": mlserver,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (model / "settings.json").write_text(json.dumps(settings))
    served = {
        "name": "m", "implementation": "mlserver_model.Served", "parameters": {"uri": str(folder / "model")},
        "max_batch_size": 64, "max_batch_time": 0.005,
    }  # fmt: skip
    (model / "model-settings.json").write_text(json.dumps(served))
    python = {name: environment(name, environments) for name in ("kserve", "mlserver")}
    return {
        "ours": _started(ours, [sys.executable, "-m", "tfscale", "serve", *words]),
        "kserve": _started(kserve, [python["kserve"], HERE / "kserve_model.py", folder / "model", kserve]),
        "mlserver": _started(mlserver, [python["mlserver"].parent / "mlserver", "start", model], PYTHONPATH=str(HERE)),
    }


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, made where there is none."""
    return python_of(folder / name, HERE / f"{name}.txt", "--no-deps")


@contextlib.contextmanager
def _started(port: int, command: list, **environ: str) -> Iterator[int]:
    process = subprocess.Popen(
        list(map(str, command)), env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environ}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                if _asked(port, "/v2/models/m/ready", None)[0] == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{' '.join(map(str, command))} doesn't serve")
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _asked(port: int, path: str, body: bytes | None) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status, answer.read()


def _check_same(ports: Mapping[str, int]) -> None:
    """Every server answers the same numbers."""
    found = {}
    for name, port in ports.items():
        (output,) = json.loads(_asked(port, "/v2/models/m/infer", json.dumps(_REQUEST).encode())[1])["outputs"]
        found[name] = output["data"]
    for name, numbers in found.items():
        if max(abs(a - b) for a, b in zip(numbers, found["ours"], strict=True)) > 1e-5:
            sys.exit(f"{name} answers {numbers}, and ours {found['ours']}")


def _measured(
    ports: Mapping[str, int], script: Path, options: argparse.Namespace
) -> dict[tuple[str, int], list[tuple]]:
    """(requests a second, p50 and p99 in milliseconds, errors) of every server and number of connections, by block."""
    found: dict[tuple[str, int], list[tuple]] = {}
    for port in ports.values():
        _wrk(port, 8, 2, script)  # warm
    for block in range(options.blocks):
        names = list(ports)[block % len(ports) :] + list(ports)[: block % len(ports)]
        for connections in CONNECTIONS:
            for name in names:
                one = _wrk(ports[name], connections, options.seconds, script)
                found.setdefault((name, connections), []).append(one)
    return found


def _wrk(port: int, connections: int, seconds: int, script: Path) -> tuple[float, float, float, int]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "10s", "--latency", "-s", str(script)]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/v2/models/m/infer"], check=True, capture_output=True, text=True
    ).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    p50, p99 = (_milliseconds(re.search(rf"{share}%\s+([\d.]+\w+)", text)[1]) for share in (50, 99))  # type: ignore[index]
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text)))
    return rate, p50, p99, errors


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _show(found: Mapping[tuple[str, int], list[tuple]]) -> None:
    print(ROW.format("server", "connections", "requests/s", "p50 ms", "p99 ms", "errors", "ours: times as many"))
    print("|---" * 7 + "|")
    for (name, connections), blocks in sorted(found.items(), key=lambda one: (one[0][1], one[0][0] != "ours")):
        rate, p50, p99 = (statistics.median(one[i] for one in blocks) for i in range(3))
        ratios = [ours[0] / one[0] for ours, one in zip(found["ours", connections], blocks, strict=True)]
        told = "" if name == "ours" else f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        errors = sum(one[3] for one in blocks)
        print(ROW.format(name, connections, f"{rate:.0f}", f"{p50:.2f}", f"{p99:.2f}", errors, told))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


_MODEL = """
import sys, keras
from keras import layers
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((28, 28, 1)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
    layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
    layers.Flatten(), layers.Dense(10, activation="softmax"),
])
model.export(sys.argv[1], verbose=False)
"""
_PIXELS = [round((i * 37 % 256) / 255, 4) for i in range(784)]
_INPUT = {"name": "keras_tensor", "shape": [1, 28, 28, 1], "datatype": "FP32", "data": _PIXELS}
_REQUEST = {"id": "1", "inputs": [_INPUT]}
_LUA = f"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{json.dumps(_REQUEST)}'
"""

if __name__ == "__main__":
    main()
