"""Other people's clients against a real `tfscale serve`: python -m tests.serving_clients [ENVIRONMENTS]

Each lives in an environment of its own below build/, since they want an older protobuf; made where there is none. The
programs beside this file assert what they get; `make test-serving-clients` runs them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peer_environment import python_of

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
PROGRAMS = {"ask_triton.py": "triton", "ask_mlserver.py": "triton", "ask_kserve.py": "kserve"}  # and their environments


def main() -> int:
    from support.served_models import served, write_double, write_texts

    environments = Path(sys.argv[1] if len(sys.argv) > 1 else "build/serving_clients")
    pythons = {name: python_of(environments / name, HERE / f"{name}.txt") for name in set(PROGRAMS.values())}
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        models = {
            "double": write_double(Path(scratch) / "double", step=5, gaps=[]),
            "texts": write_texts(Path(scratch) / "t"),
        }
        with served(models, grpc_port=0) as client:
            for program, name in PROGRAMS.items():
                command = [pythons[name], HERE / program, str(client.port), str(client.grpc)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                print(
                    f"{program}: {done.stdout.strip().splitlines()[-1] if done.returncode == 0 else 'FAILED'}",
                    flush=True,
                )
                if done.returncode:
                    failed.append(program)
                    print(done.stdout[-2000:], done.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
