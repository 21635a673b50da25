"""Keras files from strangers: what is refused before TensorFlow is imported, and loading in safe mode.

Owns every load of a .keras or .h5 file. Refuses to know what becomes of the model.

    check_keras_file(path)                      # without TensorFlow
    model = load_keras_file(path)
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, first_line
from tfscale.hardware import memory_bytes

if TYPE_CHECKING:
    import keras

SUFFIXES = (".keras", ".h5", ".hdf5")
_UNSAFE = ("safe_mode", "unsafe", "Lambda", "not allowed", "untrusted", "Could not locate", "bomb")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_LAMBDA = re.compile(r'"class_name": *"__lambda__"')  # as Keras writes a Python function's own code


def check_keras_file(path: str | Path) -> None:
    """What a file tells without TensorFlow, and before much of it is read into memory.

    Raises:
        DataMissing: there is no file.
        SecurityRefused: it is pickled, holds a Python function, has names that lead out of the archive, or unpacks to
            more than this machine's memory.
        DataCorrupt: it is no whole Keras file.
    """
    file = Path(path)
    if not file.is_file():
        raise DataMissing(f"there is no file {file}", where=str(file), fix="give the path of a Keras file")
    with file.open("rb") as stream:
        start = stream.read(8)
    if _PICKLE.match(start):
        raise _unsafe("the file is pickled, and unpickling would run any code in it", file)
    _check_size(file.stat().st_size, file)
    try:
        config = _archive_config(file) if file.suffix == ".keras" else _hdf5_config(file)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _broken(error, file) from error
    if _LAMBDA.search(config):
        raise _unsafe("the file holds the code of a Python function (a Lambda layer)", file)


def load_keras_file(path: str | Path, *, compiled: bool = True) -> keras.Model:
    """A Keras file in safe mode.

    Raises:
        DataMissing, SecurityRefused, DataCorrupt: like `check_keras_file`, and also
        SecurityRefused: it names a class from outside Keras and what is registered.
    """
    check_keras_file(path)
    import keras

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*optimizer")  # saved unbuilt, which is no fault
            return keras.saving.load_model(path, compile=compiled, safe_mode=True)
    except Exception as error:  # Keras, h5py and zipfile raise whatever they meet
        if any(word in str(error) for word in _UNSAFE):
            what = "the file holds code that loading would run, or classes that are not Keras's"
            raise _unsafe(f"{what}: {first_line(error)}", Path(path)) from error
        raise _broken(error, Path(path)) from error


def policy_of(file: Path) -> str:
    """The dtype policy in a .keras file's configuration, read without TensorFlow; "float32" where it says none."""
    try:
        config = json.loads(_archive_config(file))
        dtype = config["config"].get("dtype")
        return dtype["config"]["name"] if isinstance(dtype, dict) else dtype or "float32"
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return "float32"  # loading will say what is wrong


def is_compiled(file: Path) -> bool:
    """Whether a Keras file brings a loss and an optimizer, read without TensorFlow."""
    try:
        if file.suffix == ".keras":
            return bool(json.loads(_archive_config(file)).get("compile_config"))
        import h5py

        with h5py.File(file) as stored:
            return "training_config" in stored.attrs
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return False  # loading will say what is wrong


def _archive_config(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename
            if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
                raise _unsafe(f"the archive's member {name!r} leads out of its folder", file)
        _check_size(sum(member.file_size for member in archive.infolist()), file)
        return archive.read("config.json").decode()


def _hdf5_config(file: Path) -> str:
    import h5py

    with h5py.File(file) as stored:  # raises where it is cut short
        config = stored.attrs.get("model_config", "")
        return config.decode() if isinstance(config, bytes) else str(config)


def _check_size(count: int, file: Path) -> None:
    if count > (most := memory_bytes()):
        raise _unsafe(f"the file unpacks to {count} bytes, and this machine has {most} bytes of memory", file)


def _unsafe(what: str, file: Path) -> SecurityRefused:
    return SecurityRefused(
        what, where=str(file), fix="build the model in Python and give tfscale.fit the object, if you trust it"
    )


def _broken(error: Exception, file: Path) -> DataCorrupt:
    return DataCorrupt(f"the file can't be read: {first_line(error)}", where=str(file), fix="save it again")
