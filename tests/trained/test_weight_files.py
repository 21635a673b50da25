"""init_from takes files of weights: what fits by name, by structure or by place, what is the head, what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError

SHAPE = (6, 6, 3)


@pytest.fixture
def net(tf, policy):
    """A network as those of keras.applications are: layers with names and without, and a head."""
    import keras

    def net(classes=5, *, top=True, width=4, names=True):
        def named(name):
            return {"name": name} if names else {}

        x = inputs = keras.Input(SHAPE)
        for i, strides in enumerate((1, 2)):
            x = keras.layers.Conv2D(width, 3, strides=strides, padding="same", **named(f"conv_{i}"))(x)
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(classes, **named("predictions"))(x) if top else x)

    return net


@pytest.fixture
def load(tmp_path):
    from tfscale.trained.warm_start import warm_start

    return lambda model, file: warm_start(model, str(tmp_path / file))


def features(model):
    import keras

    x = np.random.RandomState(0).normal(size=(2, *SHAPE)).astype(np.float32)
    place = next(i for i, one in enumerate(model.layers) if isinstance(one, keras.layers.GlobalAveragePooling2D))
    return np.asarray(keras.Model(model.input, model.layers[place].output)(x))


@pytest.mark.parametrize("file", ["m.weights.h5", "m.keras"])
@pytest.mark.parametrize("names", [True, False])
def test_the_head_is_replaced_whatever_the_layers_are_called(net, load, tmp_path, file, names):
    import keras

    stored = net(names=names)
    stored.save_weights(tmp_path / file) if file.endswith(".h5") else stored.save(tmp_path / file)
    flat = net(classes=2, names=names)
    found = load(flat, file)
    assert (found.loaded, len(found.fresh), len(found.head)) == (12, 2, 2)
    np.testing.assert_array_equal(features(flat), features(stored))
    assert bool(found.renamed)  # BatchNormalization has no name here, and another number in each model
    head = next(iter(found.left_out))
    assert head.split("/")[0] == stored.layers[-1].name
    inside = keras.Sequential([keras.Input(SHAPE), net(top=False, names=names), keras.layers.Dense(2, name="mine")])
    found = load(inside, file)
    assert (found.loaded, [name.split("/")[-2] for name in found.fresh]) == (12, ["mine", "mine"])
    np.testing.assert_array_equal(features(inside.layers[0]), features(stored))


def test_a_file_without_names_and_one_of_keras_2_are_read(net, load, tmp_path):
    stored = net()
    stored.save_weights(tmp_path / "old.weights.h5")
    with h5py.File(tmp_path / "old.weights.h5", "r+") as file:  # as before Keras 3.6
        file.visititems(lambda _, one: one.attrs.pop("name", None))
    model = net(classes=2)
    assert load(model, "old.weights.h5").loaded == 12
    np.testing.assert_array_equal(features(model), features(stored))
    with h5py.File(tmp_path / "keras2.h5", "w") as file:
        layers = [layer for layer in stored.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{v.name}:0" for v in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = variable.numpy()
    model = net(classes=2)
    found = load(model, "keras2.h5")
    assert (found.loaded, len(found.head)) == (12, 2)
    np.testing.assert_array_equal(features(model), features(stored))


def test_other_shapes_than_the_heads_are_refused(net, load, tmp_path):
    import keras

    net().save_weights(tmp_path / "m.weights.h5")
    wider = net(width=4)
    x = keras.layers.Conv2D(9, 3, name="conv_1")(wider.layers[2].output)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    with pytest.raises(
        UsageError, match=r"6 of this model's 14 variables fit .* differ: conv_1/kernel 3x3x4x9"
    ) as refused:
        load(keras.Model(wider.input, keras.layers.Dense(5, name="predictions")(x)), "m.weights.h5")
    assert refused.value.where == "init_from"
    with pytest.raises(UsageError, match="only 2 variables, .*% of the parameters|none of what is in"):
        load(keras.Sequential([keras.Input((70,)), keras.layers.Dense(90), keras.layers.Dense(5)]), "m.weights.h5")


def test_a_file_that_leads_elsewhere_or_is_cut_short_is_refused(net, load, tmp_path):
    from tfscale.trained.warm_start import check_place

    file = tmp_path / "m.weights.h5"
    net().save_weights(file)
    half = file.read_bytes()[:2000]
    with h5py.File(file, "r+") as stored:
        stored["layers/else"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(SecurityRefused, match="leads out of the file"):
        check_place(str(file))
    file.write_bytes(half)
    with pytest.raises(DataCorrupt):
        check_place(str(file))


def test_a_preset_is_loaded_by_kerashub(tf, policy, load, tmp_path):
    hub = pytest.importorskip("keras_hub")
    import keras

    from tfscale.trained.warm_start import warm_start

    def backbone():
        sizes = {"vocabulary_size": 50, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 12}
        return hub.models.BertBackbone(num_layers=2, num_heads=2, **sizes)

    stored, mine = backbone(), backbone()
    stored.save_to_preset(str(tmp_path / "preset"))
    found = load(keras.Model(mine.input, keras.layers.Dense(3, name="head")(mine.output["pooled_output"])), "preset")
    assert (found.loaded, list(found.fresh), found.left_out) == (39, ["head/kernel", "head/bias"], {})
    x = {"token_ids": np.arange(24).reshape(2, 12), "segment_ids": np.zeros((2, 12)), "padding_mask": np.ones((2, 12))}
    np.testing.assert_array_equal(mine(x)["pooled_output"], stored(x)["pooled_output"])
    task = hub.models.BertTextClassifier(backbone=backbone(), num_classes=4, preprocessor=None)
    task.save_to_preset(str(tmp_path / "task"))
    other = hub.models.BertTextClassifier(backbone=backbone(), num_classes=2, preprocessor=None)
    found = load(other, "task")
    assert found.loaded == 39 and found.head["logits/kernel"] == (8, 4)
    same = hub.models.BertTextClassifier(backbone=backbone(), num_classes=4, preprocessor=None)
    assert not load(same, "task").fresh
    np.testing.assert_array_equal(same(x), task(x))
    with pytest.raises(UsageError, match="no 'bert_tiny_en_uncase' here, .*did you mean 'bert_tiny_en_uncased'"):
        warm_start(same, "bert_tiny_en_uncase")
    (tmp_path / "task" / "model.weights.h5").unlink()
    (tmp_path / "task" / "task.weights.h5").unlink()
    with pytest.raises(DataMissing, match="holds no weights"):
        load(other, "task")
