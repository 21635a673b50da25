"""Presets of KerasHub, made here: opened, preprocessed, adapted and trained as the library has it."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from support.tables import import_table

from tfscale.composition.hydra_compose import compose
from tfscale.errors import DataMissing, SecurityRefused, UsageError
from tfscale.models import hub
from tfscale.run.api import fit

SEED = (0, 1)
WORDS = ["the", "a", "cat", "dog", "eats", "sees", "good", "bad"]


def task_of(*overrides):
    return compose(["+recipe=keras_hub", *overrides]).task


@pytest.fixture(scope="module")
def presets(tf, made_once):
    """deit/, bert/ and gpt2/, as save_to_preset writes them."""

    def make(folder):
        m = hub.keras_hub("task.preset").models
        hub.SmallDeiT(28, 1, width=12, layers=1, heads=2).saved(folder).rename(folder / "deit")
        sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 16}
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]
        tokens = m.BertTokenizer(vocabulary=vocabulary, lowercase=True)
        packed = m.BertTextClassifierPreprocessor(tokens, sequence_length=12)
        backbone = m.BertBackbone(vocabulary_size=len(vocabulary), **sizes)
        m.BertTextClassifier(backbone, num_classes=2, preprocessor=packed).save_to_preset(str(folder / "bert"))
        pieces = [*map(chr, range(33, 127)), "Ġ", "th", "the", "Ġthe", "<|endoftext|>"]
        tokens = m.GPT2Tokenizer(vocabulary={p: i for i, p in enumerate(pieces)}, merges=["t h", "th e", "Ġ the"])
        packed = m.GPT2CausalLMPreprocessor(tokens, sequence_length=16)
        backbone = m.GPT2Backbone(vocabulary_size=len(pieces), **sizes)
        m.GPT2CausalLM(backbone=backbone, preprocessor=packed).save_to_preset(str(folder / "gpt2"))

    return made_once("presets", make)


def test_a_small_preset_is_the_same_wherever_it_is_made(tf, tmp_path):
    from tfscale.measures.flops import profiled_flops

    small = hub.SmallDeiT(28, 1, width=12, layers=1, heads=2)
    before = random.getstate()
    places = [small.saved(tmp_path / name) for name in "ab"]
    assert random.getstate() == before and small.saved(tmp_path / "a") == places[0]
    models = [hub.opened(str(p), "ImageClassifier", num_classes=3, preprocessor=None, compile=False) for p in places]
    for one, other in zip(*(model.backbone.weights for model in models), strict=True):
        assert (one.numpy() == other.numpy()).all()
    assert models[0].count_params() == small.footprint(3).parameters
    task = task_of(f"task.presets={tmp_path}", "task.image_size=28", "task.channels=1", "task.num_classes=10")
    pictures = {"image": tf.zeros([2, 28, 28, 1]), "label": tf.zeros([2], tf.int64)}
    assert profiled_flops(task, task.build_model(), pictures) == pytest.approx(task.footprint().forward_flops, rel=0.02)
    shutil.copytree(places[0], tmp_path / "copy")
    (tmp_path / "copy" / "metadata.json").write_text("{}")  # when it was saved
    content = [hub.content_of(str(place)) for place in (places[0], tmp_path / "copy")]
    assert content[0] == content[1]
    (tmp_path / "copy" / "config.json").write_text("{}")
    assert hub.content_of(str(tmp_path / "copy")) != content[0]


def test_pictures_are_what_the_preprocessor_makes_of_them(tf, presets):
    task = task_of(f"task.preset={presets / 'deit'}", "task.num_classes=3", "task.augment=digits")
    library = hub.keras_hub("task.preset").models.ImageClassifierPreprocessor.from_preset(str(presets / "deit"))
    image = np.random.RandomState(0).randint(0, 256, (3, 40, 50, 1), np.uint8)
    images = tf.data.Dataset.from_tensor_slices(image)
    ours = images.map(lambda one: task.preprocess({"image": one, "seed": tf.constant(SEED, tf.int64)}, training=False))
    for one, other in zip(ours, images.map(library), strict=True):
        assert one["image"].shape == (28, 28, 1) and (one["image"].numpy() == other.numpy()).all()
    # What augmentation leaves as whole numbers is scaled in the step, as the preprocessor would
    model, label = task.build_model(), tf.constant([0, 2, 1])
    whole = tf.constant(image[:, :28, :28])
    drawn = task.preprocess({"image": whole[0], "seed": tf.constant(SEED, tf.int64)}, training=True)
    assert drawn["image"].dtype == tf.uint8
    losses = [task.loss(model, {"image": one, "label": label}, training=False)[0] for one in (whole, library(whole))]
    assert losses[0].numpy() == pytest.approx(losses[1].numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "preset"), [("TextClassifier", "bert"), pytest.param("CausalLM", "gpt2", marks=pytest.mark.slow)]
)
def test_texts_are_what_the_preprocessor_makes_of_them(tf, presets, kind, preset):
    task = task_of(f"task.preset={presets / preset}", f"task.kind={kind}", "task.num_classes=2", "task.length=9")
    library = getattr(hub.keras_hub("task.preset").models, f"{kind}Preprocessor")
    library = library.from_preset(str(presets / preset), sequence_length=9)
    texts = tf.data.Dataset.from_tensor_slices(["The cat sees the dogs", "", "good " * 40])
    for ours, theirs in zip(
        texts.map(lambda one: task.preprocess({"text": one}, training=True)), texts.map(library), strict=True
    ):
        features = theirs if kind == "TextClassifier" else {**theirs[0], "targets": theirs[1], "learnt": theirs[2]}
        assert set(ours) == set(features)
        for name, value in features.items():
            assert ours[name].shape == (9,)
            assert (ours[name].numpy().astype(int) == value.numpy().astype(int)).all()


def test_of_lora_its_factors_and_the_head_train_and_of_a_frozen_backbone_the_head(tf, presets):
    from tfscale.state.freezing import Freezing

    given = [f"task.preset={presets / 'deit'}", "task.num_classes=3"]
    frozen = Freezing(task_of(*given).build_model(), ["backbone"])
    assert [variable.path for variable in frozen.trained] == ["predictions/kernel", "predictions/bias"]
    model = task_of(*given, "task.lora_rank=2").build_model()
    parts = {variable.path.split("/")[-1] for variable in model.backbone.trainable_variables}
    assert parts == {"lora_kernel_a", "lora_kernel_b"}
    assert len(model.trainable_variables) == 2 * 2 + 2
    assert {variable.dtype for variable in model.variables} == {"float32"}
    with pytest.raises(UsageError, match="no attention"):
        from keras import Sequential, layers

        convolutions = Sequential([layers.Input((4, 4, 1)), layers.Conv2D(1, 1)])
        convolutions.enable_lora = lambda rank: None
        model.backbone = convolutions
        hub.enable_lora(model, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "preset"), [("TextClassifier", "bert"), ("CausalLM", "gpt2")])
def test_texts_are_learnt_exported_and_predicted(tf, presets, kind, preset, tmp_path, data_dir):
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    texts = [" ".join([WORDS[i % 4], WORDS[i % 3], ("bad", "good")[i % 2]]) for i in range(48)]
    table = {"text": texts, "label": [i % 2 for i in range(48)]}
    import_table(data_dir, {"train": table, "test": table}, {"text": "text"}, name=f"texts_{preset}")
    config = compose([
        "+recipe=keras_hub", f"task.kind={kind}", f"task.preset={presets / preset}", "data=prepared",
        f"data.dir={data_dir}", f"data.name=texts_{preset}", "train.until=8ep", "train.global_batch=8", "tracker=none",
        "optimizer.learning_rate=0.02", f"run.dir={tmp_path / 'it'}", "export.at_end=true", "plan.precision=float32",
    ])  # fmt: skip
    result = fit(config, environ={})
    lines = map(json.loads, (tmp_path / "it" / "metrics.jsonl").read_text().splitlines())
    assert result.metrics["loss"] < 0.8 * next(lines)["loss"]
    about = json.loads((tmp_path / "it" / "export" / "export.json").read_text())
    assert (about["imports"], about["keras_imports"]) == (["tensorflow_text"], ["keras_hub"])
    with RestoredRun.open(tmp_path / "it", checkpoint="last") as run:
        predict_file(run, "test", tmp_path / "said.jsonl", part_rows=16)
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    if kind == "CausalLM":
        scores = [score for row in said for score in row["log_probabilities"] if score]
        assert -np.mean(scores) == pytest.approx(result.metrics["loss"], rel=1e-4)
    else:
        right = np.mean([row["class"] == row["label"] for row in said])
        assert right == pytest.approx(result.metrics["accuracy"])


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["task.kind=ImageClasifier"], UsageError, "did you mean 'ImageClassifier'"),
        (["task.kind=CausalLM"], UsageError, "needs a preset"),
        (["task.lora_rank=0"], UsageError, "1 or more"),
        (["task.preset=./absent"], DataMissing, "no folder"),
        (["task.preset=/"], DataMissing, "no config.json"),
    ],
)
def test_what_is_wrong_is_told_before_tensorflow(overrides, error, said):
    with pytest.raises(error, match=said):
        task_of(*overrides).check()


def test_data_without_what_is_learnt_from(tf, presets):
    task = task_of(f"task.preset={presets / 'bert'}", "task.kind=TextClassifier", "task.num_classes=2")
    with pytest.raises(UsageError, match="'text', and the data have review") as raised:
        task.preprocess({"review": tf.constant("good"), "label": tf.constant(0), "seed": SEED}, training=True)
    assert raised.value.where == "task.text"
    with pytest.raises(UsageError, match="no common size"):
        task_of("task.num_classes=2", "task.channels=3").check_data({})


def test_presets_that_cannot_be_opened(tf, presets, tmp_path):
    with pytest.raises(UsageError, match="bert_tiny_en_uncased"):
        hub.opened("bert_tiny_en_uncase", "TextClassifier")
    for kind, other in (("bert", "ImageClassifier"), ("deit", "RetinaNetBackbone")):
        with pytest.raises(UsageError, match=f"is no {other}") as raised:
            hub.opened(str(presets / kind), other)
        assert raised.value.where == "task.preset"
    shutil.copytree(presets / "deit", tmp_path / "half")
    (tmp_path / "half" / "model.weights.h5").write_bytes(b"torn")
    with pytest.raises(Exception, match="can't be read") as raised:
        hub.opened(str(tmp_path / "half"), "ImageClassifier", num_classes=2)
    assert raised.value.exit_code == 65
    config = json.loads((presets / "deit" / "config.json").read_text())
    (tmp_path / "half" / "config.json").write_text(json.dumps({**config, "module": "os.path", "class_name": "Mine"}))
    with pytest.raises(SecurityRefused, match="Mine"):
        hub.check_preset(str(tmp_path / "half"), where="task.preset")
