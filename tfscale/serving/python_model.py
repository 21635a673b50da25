"""A Python model that MLflow reads, such as scikit-learn's: its pyfunc, with the columns or tensors of its signature.

Owns what MLflow's types are in requests, and in answers. Refuses to decide whether a model may be read, which is
`pickles.py`'s. Such a model computes one batch after another: nobody knows whether it may be called by two threads.

    model = PythonModel.load(version, about)
    model({"age": array, "town": array})           # {"predictions": int64 [rows]}
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfscale.errors import DataCorrupt, TfscaleError, UsageError, first_line
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.model_place import Version
from tfscale.serving.pickles import other_versions
from tfscale.serving.refusal import Refusal
from tfscale.serving.tensor_specs import SPOKEN, TensorSpec
from tfscale.tracking.mlflow_sink import import_mlflow

_log = logging.getLogger(__name__)
_SIGNED = "save it with signature=mlflow.models.infer_signature(inputs, outputs)"
_COLUMNS = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_COLUMNS |= {"string": "string", "binary": "string", "datetime": "string"}
# Their predictions are of each row alone; what another model does with rows, such as ranking them, nobody knows
_ROW_WISE = {"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"}
_EXAMPLES = 32  # of an input example


@dataclass(frozen=True, eq=False)
class PythonModel(LoadedModel):
    """One version; its inputs and outputs are in the signature's order."""

    platform: ClassVar[str] = "mlflow_pyfunc"
    is_compiled: ClassVar[bool] = False
    is_parallel: ClassVar[bool] = False

    _model: Any  # MLflow's PyFuncModel
    _takes: Mapping[str, Any]  # MLflow's own spec of each input

    @classmethod
    def load(cls, version: Version, about: Mapping[str, Any]) -> PythonModel:
        """Reads the files; takes seconds.

        Args:
            about: what `read_about` found.

        Raises:
            UsageError: a package that it needs is missing.
            DataCorrupt: it can't be read, or doesn't say what it takes and answers.
        """
        place = str(version.folder)
        if not (about.get("signature") or {}).get("inputs"):
            raise DataCorrupt("the model has no signature: nothing says what it takes", where=place, fix=_SIGNED)
        if told := other_versions(version.folder, about):
            _log.warning(f"{place} wants other packages than are here, and may answer otherwise: {told}")
        model = _read(version.folder, about)
        schema = model.metadata.signature.inputs
        takes = {f"input-{i}" if spec.name is None else str(spec.name): spec for i, spec in enumerate(schema.inputs)}
        inputs = {name: _spec(name, spec, place) for name, spec in takes.items()}
        bare = cls(version, inputs, {}, None, {}, model, takes)
        examples = bare._example_arrays()
        try:
            found = dataclasses.replace(bare, outputs=bare._outputs(examples), examples=examples)
            if examples:
                found(examples)
        except TfscaleError:
            raise
        except Exception as error:  # of its author's code, or an answer that isn't as the signature says
            why = f"{type(error).__name__}: {first_line(error)}"
            raise DataCorrupt(f"the model fails for its own input example: {why}", where=place, fix=_SIGNED) from error
        return found

    @property
    def keeps_rows(self) -> bool:
        return self._model.loader_module in _ROW_WISE

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._named(self._predicted(arrays))
        if len(found) == len(self.outputs) == 1:
            found = dict(zip(self.outputs, found.values(), strict=True))
        if missing := [name for name in self.outputs if name not in found]:
            raise TypeError(f"it answers {', '.join(found)}, and its signature says {', '.join(missing)}")
        return {name: _answer(found[name], spec) for name, spec in self.outputs.items()}

    def is_about_examples(self, error: Exception) -> bool:
        """What Python raises for values is ValueError, and MLflow tells values that don't fit its signature."""
        return isinstance(error, ValueError) or getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"

    def _predicted(self, arrays: Mapping[str, np.ndarray]) -> Any:
        try:
            return self._model.predict(self._data(arrays))
        except SystemExit as error:  # which would end the server
            raise RuntimeError(f"the model called sys.exit({error.code})") from None

    def _data(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """What MLflow's predict takes: a DataFrame of columns, an array, or arrays by name."""
        import pandas as pd

        given = {name: spec for name, spec in self._takes.items() if name in arrays}
        if not self._model.metadata.signature.inputs.is_tensor_spec():
            names = [spec.name if spec.name is not None else place for place, spec in enumerate(given.values())]
            columns = [_column(arrays[name], spec.type.name) for name, spec in given.items()]
            return pd.DataFrame(dict(zip(names, columns, strict=True)))
        tensors = {name: _tensor(arrays[name], spec.type) for name, spec in given.items()}
        return tensors if self._model.metadata.signature.inputs.has_input_names() else next(iter(tensors.values()))

    def _named(self, answer: Any) -> dict[str, Any]:
        """An answer by output."""
        if isinstance(answer, Mapping):
            return {str(name): value for name, value in answer.items()}
        if hasattr(answer, "columns"):  # a DataFrame
            return {str(name): answer[name] for name in answer.columns}
        return {"predictions": answer}

    def _outputs(self, examples: Mapping[str, np.ndarray]) -> dict[str, TensorSpec]:
        """As the signature says; else as the model answers its example."""
        schema = self._model.metadata.signature.outputs
        if schema is None and examples:
            answer = self._predicted(examples)
            schema = import_mlflow().models.infer_signature(self._data(examples), answer).outputs
        place = str(self.version.folder)
        if schema is None:
            raise DataCorrupt("the model's signature has no outputs", where=place, fix=_SIGNED)
        alone = "predictions" if len(schema.inputs) == 1 else ""
        names = [str(spec.name or alone or f"output-{number}") for number, spec in enumerate(schema.inputs)]
        return {name: _spec(name, spec, place, is_input=False) for name, spec in zip(names, schema.inputs, strict=True)}

    def _example_arrays(self) -> dict[str, np.ndarray]:
        """The input example's; empty where there is none, or none that a request could hold."""
        example = self._model.input_example
        if example is None:
            return {}
        named = self._named(example)
        if len(named) == len(self.inputs) == 1:
            named = dict(zip(self.inputs, named.values(), strict=True))
        try:
            return {
                name: spec.array([_plain(value, spec) for value in list(named[name])[:_EXAMPLES]])
                for name, spec in self.inputs.items()
                if name in named or spec.is_required
            }
        except (Refusal, KeyError, TypeError, ValueError) as error:
            _log.info(f"the input example of {self.version.folder} isn't used: {first_line(error)}")
            return {}


def _read(folder: Path, about: Mapping[str, Any]) -> Any:
    try:
        mlflow = import_mlflow()
        import pandas  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{folder} is MLflow's, which isn't installed: {error}", where="model", fix='pip install "tfscale[mlflow]"'
        ) from None
    own_code = about["flavors"]["python_function"].get("code")
    if own_code:
        _forget_others(folder / own_code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions, which are told in one line
            return mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the model needs {error.name}: {error}", where=str(folder), fix=f"pip install -r {folder}/requirements.txt"
        ) from None
    except (Exception, SystemExit) as error:  # whatever is raised by a broken file, or its author's code
        raise DataCorrupt(
            f"the model can't be read: {type(error).__name__}: {first_line(error)}",
            where=str(folder),
            fix="save it again, with the packages that are installed here",
        ) from error


def _forget_others(code: Path) -> None:
    """Modules of the same names that an earlier version brought: Python would give them to this one."""
    own = {file.stem for file in code.iterdir()} if code.is_dir() else set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if name.partition(".")[0] in own and file and any(Path(file).is_relative_to(one) for one in _brought):
            del sys.modules[name]
    _brought.add(code)


_brought: set[Path] = set()  # folders of code that models came with


def _spec(name: str, spec: Any, place: str, *, is_input: bool = True) -> TensorSpec:
    """MLflow's spec as ours; raises DataCorrupt: no protocol has it."""
    if hasattr(spec, "shape"):
        kind = np.dtype(spec.type)
        dtype = "string" if kind.kind in "USO" else kind.name
        shape: tuple[int | None, ...] = tuple(None if size < 0 else size for size in spec.shape)
        is_required = True
    else:
        dtype, shape = _COLUMNS.get(getattr(spec.type, "name", ""), str(spec.type)), (None,)
        is_required = bool(spec.required) or not is_input
    if dtype not in SPOKEN:
        raise DataCorrupt(
            f"{name} is {dtype}, which no protocol has",
            where=place,
            fix="save it with a signature of numbers and texts",
        )
    has_gaps = not is_required and (dtype == "string" or np.dtype(dtype).kind == "f")
    return TensorSpec(name, dtype, shape, True if has_gaps else None, is_required)


def _column(values: np.ndarray, kind: str) -> Any:
    """A column as pandas reads one from a file."""
    import pandas as pd

    if kind == "string":  # the one behind them is for a column of gaps alone, which would be no texts
        return pd.Series([*(None if value is None else value.decode() for value in values), ""]).iloc[:-1]
    if kind == "binary":
        return pd.Series(list(values), dtype=object)
    if kind == "datetime":
        return pd.Series(np.array([_time(value) for value in values], "datetime64[ns]"))
    return pd.Series(values)


def _time(value: bytes | None) -> datetime.datetime | None:
    if value is None:
        return None
    found = datetime.datetime.fromisoformat(value.decode())
    if found.tzinfo is not None:
        raise ValueError(f"{value.decode()} has an offset, and columns of times have none")
    return found


def _tensor(values: np.ndarray, kind: Any) -> np.ndarray:
    if values.dtype != object or np.dtype(kind).kind == "S":
        return values.astype(kind)
    texts = np.array([value.decode() for value in values.reshape(-1)], object).reshape(values.shape)
    return texts.astype(kind)


def _plain(value: Any, spec: TensorSpec) -> Any:
    """A value of an example as JSON has it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if spec.dtype == "string" and isinstance(value, float) and np.isnan(value):
        return None
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def _answer(values: Any, spec: TensorSpec) -> np.ndarray:
    """What a model answers as its signature has it; raises TypeError: it doesn't fit."""
    array = np.asarray(values)
    if array.ndim != len(spec.shape):
        raise TypeError(f"{spec.name} has {array.ndim} axes, and its signature says {len(spec.shape)}")
    if spec.dtype == "string":
        found = np.empty(array.shape, object)
        for place in np.ndindex(array.shape):
            found[place] = _text(array[place], spec.name)
        return found
    array = np.array(array.tolist()) if array.dtype == object else array
    if not np.can_cast(array.dtype, spec.numpy_dtype, "same_kind"):
        raise TypeError(f"{spec.name} is {array.dtype}, and its signature says {spec.dtype}")
    return array.astype(spec.numpy_dtype, copy=False)


def _text(value: Any, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.datetime64):
        return str(value).encode()
    if not isinstance(value, str):
        raise TypeError(f"{name} has {value!r} among its texts")
    return value.encode()
