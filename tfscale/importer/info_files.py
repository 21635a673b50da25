"""dataset_info.json and features.json, by which TFDS knows a data set.

Owns the call of TFDS that writes them. Refuses to know where its features come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.importer.import_request import VERSION, ImportRequest
from tfscale.importer.shard_writer import Written


def write_info(work: Path, request: ImportRequest, features: Any, written: Sequence[Written]) -> None:
    """Writes both into the folder `work`.

    Args:
        features: TFDS's of the records.
        written: all shards, in their order.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=work,
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=request.name,
        filetype_suffix=request.format,
    )
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[one.examples for one in written if one.split == name],
            num_bytes=sum(one.size for one in written if one.split == name),
            filename_template=template.replace(split=name),
        )
        for name in dict.fromkeys(one.split for one in written)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(work),
        features=features,
        split_infos=infos,
        version=VERSION,
        filename_template=template,
        check_data=False,
        description="Imported by `tfscale data import`; import.json says from what.",
    )
