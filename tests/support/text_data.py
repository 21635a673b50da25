"""A small data set of texts as an import writes it: shards, columns.json and the tokenizer's model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def write_texts(folder: Path, name: str, source: Path, *, label: str | None = None, **options) -> Path:
    """Every fifth text is of the split "validation"."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from tfscale.importer.import_request import ImportRequest
    from tfscale.importer.recognise import look
    from tfscale.importer.text_options import TextOptions
    from tfscale.importer.text_reader import TextReader

    request = ImportRequest(path=str(source), name=name, label=label)
    request.text = TextOptions(**options)
    reader = TextReader(request, look(str(source)), folder)
    places = np.arange(reader.listing().count)
    splits = {"train": places[places % 5 > 0], "validation": places[places % 5 == 0]}
    folder = folder / name / "1.0.0"
    folder.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord",
                                             template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")  # fmt: skip
    infos = []
    for split, some in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-00000-of-00001")) as writer:
            for example in reader.read(some.tolist()):
                writer.write(reader.features().serialize_example(reader.features().encode_example(example)))
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(some)], num_bytes=0,
                                         filename_template=template.replace(split=split)))  # fmt: skip
    (folder / "columns.json").write_text(json.dumps(reader.describe(splits["train"])))
    reader.write_schema(folder / "schema.yaml")
    tfds.folder_dataset.write_metadata(data_dir=str(folder), features=reader.features(), split_infos=infos,
                                       version="1.0.0", filename_template=template, check_data=False)  # fmt: skip
    return folder
