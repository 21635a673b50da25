"""What a run leaves, in its folder and in a store, without TensorFlow: results, attempts, manifests, who holds it."""

from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.result import Result
from tfscale.run_dir.store import Store

__all__ = ["Result", "RunDir", "Store"]
