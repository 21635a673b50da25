"""The shared libraries that TensorFlow wants for a GPU, by their files' names, and why one can't be loaded.

Owns which version of each is wanted: what TensorFlow was built with, and what its own extra `and-cuda` would install.
Refuses to know whether there is a GPU.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

# By the distribution of NVIDIA's that holds it: its first number is the one in the file's name.
_OF_PACKAGE = {
    "libcudart": "nvidia-cuda-runtime",
    "libcublas": "nvidia-cublas",
    "libcublasLt": "nvidia-cublas",
    "libcudnn": "nvidia-cudnn",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libcusolver": "nvidia-cusolver",
    "libcusparse": "nvidia-cusparse",
    "libnccl": "nvidia-nccl",
}
_BUILT_WITH = {"libcudart": "cuda_version", "libcudnn": "cudnn_version"}  # of tf.sysconfig.get_build_info


def wanted(build: Mapping[str, object], requirements: Iterable[str]) -> dict[str, str]:
    """The file's name of each library, such as libcudnn.so.9; without a number where none is known.

    Args:
        build: what tf.sysconfig.get_build_info returns.
        requirements: of the installed TensorFlow, as importlib.metadata has them.
    """
    lines = list(requirements)
    found = {}
    for name, package in _OF_PACKAGE.items():
        built = str(build.get(_BUILT_WITH.get(name, ""), "")).partition(".")[0]
        major = built or next((number for line in lines if (number := _least(line, package))), "")
        found[name] = f"{name}.so.{major}" if major else f"{name}.so"
    return found


def _least(line: str, package: str) -> str:
    """The first number of the lowest version that a requirement of this package allows, ""."""
    found = re.match(rf"{package}(?:-cu\d+)?(?![\w-])[^;]*?>=\s*(\d+)", line)
    return found[1] if found else ""


def why_not_loaded(file: str, site: Path) -> str:
    """Why the library can't be loaded, "" where it can: from where the linker looks, LD_LIBRARY_PATH among it, or from
    NVIDIA's packages beside TensorFlow, where TensorFlow looks by itself.

    Args:
        site: the folder that TensorFlow is installed in.
    """
    causes = []
    for place in (file, *map(str, sorted(site.glob(f"nvidia/*/lib/{file}")))):
        try:
            ctypes.CDLL(place)
        except OSError as error:
            causes.append(str(error))
        else:
            return ""
    return causes[-1]  # that of a file which is there says more than that the linker finds none
