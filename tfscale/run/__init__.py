"""One run, top to bottom: the folder to read first.

    result = fit(compose(["+recipe=resnet", "train.until=5ep"]))
    result.status, result.metrics["accuracy"]

The same call again goes on where the run was, or says that it is complete.
"""

from tfscale.run.api import fit
from tfscale.run.keras_answers import evaluate_model, predict_model

__all__ = ["evaluate_model", "fit", "predict_model"]
