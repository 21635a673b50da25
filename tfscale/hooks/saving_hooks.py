"""How Keras files lay out weights, as of Keras 3.14 and 3.15.

for place, name, held in weights_tree(model): ...    # of a model, as save_weights would write it
"""

from __future__ import annotations

from typing import Any


def weights_tree(model: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """(place in a .weights.h5 file, name of the layer, what it saves there by key), of the model and all that is in it.

    What is saved is the variable itself, where the layer makes nothing else of it. Places are made of the classes of
    layers and their order, so that they are the same in every process; nothing public gives them without a file.
    Keras 3.15: keras/src/saving/saving_lib.py, `_save_state` with a `H5IOStore`.
    """
    from keras.src.saving import saving_lib

    found: list[tuple[str, str, dict[str, Any]]] = []

    class Recorder(saving_lib.H5IOStore):
        def __init__(self) -> None:  # without a file
            pass

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: dict[str, str] | None = None) -> dict[str, Any]:
            found.append((path, (metadata or {}).get("name", ""), {}))
            return found[-1][2]

    saving_lib._save_state(model, weights_store=Recorder(), assets_store=None, inner_path="", visited_saveables=set())
    return [one for one in found if one[2]]
