"""Python models as MLflow saves them, to serve.

churn, table = write_churn(folder)        # a scikit-learn pipeline of a gap, a text and a number, in skops; and its table
write_code(folder, RANK)                  # a model that is code
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What it says of a row depends on the others; it is slow, so that requests wait for one another
RANK = """
import time
import mlflow

class Rank(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(0.05)
        ranks = model_input["x"].rank()
        return ranks.to_frame("rank").assign(first=ranks == 1, of=str(len(ranks)))

mlflow.models.set_model(Rank())
"""
# It answers what it is told to, in most ways in which a model can fail
MOODY = """
import datetime, sys
import mlflow

class Moody(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        (mood,), (at,) = model_input["mood"], model_input["at"]
        if mood == "value":
            raise ValueError("no such mood\\nsecond line")
        if mood == "key":
            return model_input["secret"]
        if mood == "exit":
            sys.exit(3)
        if mood == "other":
            return [1.5]
        return [f"{mood} on {at + datetime.timedelta(days=1):%d %B}"]

mlflow.models.set_model(Moody())
"""


def write_churn(
    folder: Path, *, flipped: bool = False, form: str = "skops", requirement: str = "pandas"
) -> tuple[Any, Any]:
    """age: double with gaps, town: text, visits: whole number -> "no" or "yes"; returns the pipeline, and the table."""
    import mlflow.sklearn
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    towns = ["Ulm", "Bonn", "Ulm", "Köln", "Bonn", "Ulm"]
    table = pd.DataFrame({"age": [31.0, None, 40, 22, 50, 61], "town": towns, "visits": [3, 0, 7, 1, 2, 9]})
    labels = ["yes" if (town == "Ulm") != flipped else "no" for town in towns]
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), (SimpleImputer(), ["age", "visits"])
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(table, labels)
    more = {"skops_trusted_types": ["numpy.dtype"]} if form == "skops" else {}
    mlflow.sklearn.save_model(
        pipeline, folder, input_example=table.head(3), serialization_format=form, pip_requirements=[requirement], **more,
        signature=mlflow.models.infer_signature(table, pipeline.predict(table)),
    )  # fmt: skip
    return pipeline, table


def write_code(folder: Path, code: str, inputs: Any, outputs: Any, **more: Any) -> Path:
    """Args: inputs, outputs: from which its signature comes."""
    import mlflow

    file = folder.parent / f"{folder.name}.py"
    file.write_text(code)
    signature = mlflow.models.infer_signature(inputs, outputs)
    mlflow.pyfunc.save_model(folder, python_model=file, signature=signature, pip_requirements=["pandas"], **more)
    return folder
