"""The shards of a data set, written by the workers of an Apache Beam pipeline: on one machine, Flink or Spark.

Owns the pipeline, and the only import of Apache Beam. Each worker writes whole shards, as a process here would: the
same bytes, and a pipeline that was killed goes on. Refuses to move files: workers must see the data folder and the
source under the same paths.

https://beam.apache.org/documentation/programming-guide/
"""

from __future__ import annotations

import functools
import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfscale.console import hushed
from tfscale.errors import ClusterFault, UsageError, first_line, nearest
from tfscale.importer.reader import Reader
from tfscale.importer.shard_writer import Shard, Written, features_of, known, write_shard

_log = logging.getLogger(__name__)

_FIX = 'data.beam="--runner=DirectRunner --direct_num_workers=4 --direct_running_mode=multi_processing"'


def write_by_beam(reader: Reader, shards: Sequence[Shard], folder: Path, options: str) -> Iterator[Written]:
    """Writes them and, once all are there, yields what each holds.

    Args:
        options: of the pipeline, as on a command line of Beam's.

    Raises:
        UsageError: Beam isn't installed, or doesn't know an option.
        ClusterFault: the pipeline failed; shards that are whole stay.
    """
    pipeline = _pipeline(options)
    import apache_beam as beam

    write = functools.partial(_write_one, reader, str(folder))
    try:
        with hushed():
            shuffled = pipeline | "shards" >> beam.Create(list(shards)) | "spread" >> beam.Reshuffle()
            _ = shuffled | "write" >> beam.Map(write)
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:
        raise ClusterFault(
            f"the Beam pipeline failed: {first_line(error)}",
            where="data.beam",
            fix="see what its workers printed; the same command goes on with the files that are whole",
        ) from error
    for shard in shards:
        written = known(folder, shard)
        if written is None:
            raise ClusterFault(
                f"the Beam pipeline has ended, and {shard.file} isn't in {folder}",
                where="data.beam",
                fix="give a data.dir that all its workers mount under the same path",
            )
        yield written


def _pipeline(options: str) -> Any:
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UsageError(
            "data.beam needs Apache Beam, which is not installed and can't be beside this environment's protobuf",
            where="data.beam",
            fix="make an environment from requirements-beam.txt, as docs/data.md says, or leave it away",
        ) from None
    try:
        words = shlex.split(options)
        asked = PipelineOptions(words)
    except (ValueError, SystemExit):  # argparse ends the program for a value that it refuses
        raise UsageError(f"Beam doesn't read {options!r}", where="data.beam", fix=_FIX) from None
    there = [*asked.get_all_options(), "experiment"]
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name not in there:
            raise UsageError(f"Beam has no option --{name}{nearest(name, there)}", where="data.beam", fix=_FIX)
    if not any(word.startswith("--runner") for word in words):
        raise UsageError("no runner of Beam's was named", where="data.beam", fix=_FIX)
    _log.info(f"by Apache Beam {beam.__version__}: {options}")
    return beam.Pipeline(options=asked)


def _write_one(reader: Reader, folder: str, shard: Shard) -> str:
    """On a worker: the shard that it wrote."""
    write_shard(reader, _features(reader), Path(folder), shard, lambda more: None)
    return shard.file


_known: dict[str, Any] = {}  # of this worker: encoding an item needs them, and making them takes TensorFlow's import


def _features(reader: Reader) -> Any:
    key = repr(reader)[:10_000]
    if key not in _known:
        _known.clear()
        _known[key] = features_of(reader)
    return _known[key]
