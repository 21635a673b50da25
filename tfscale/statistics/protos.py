"""Profiles as tensorflow-metadata's protos, which TensorFlow Data Validation reads and writes, and back.

Owns schema.pbtxt and statistics-SPLIT.pb. A gap is a missing value in both, whatever a record holds in its place. What
is measured of pictures and texts, such as widths, stands in the custom statistics of their feature. Refuses to know how
a profile is made.

    statistics = statistics_of(profile, "train")    # DatasetFeatureStatisticsList
    schema = schema_of(profile, {"mask": "BYTES"})  # Schema
    known = profile_of(statistics, schema)          # the profile again
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import DataCorrupt, first_line
from tfscale.files import write_whole
from tfscale.statistics.findings import NUMERIC, Limits

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList, FeatureNameStatistics

SCHEMA = "schema.pbtxt"
_DOMAIN = 1000  # values that a schema names; a category of more has no domain
_TOP = 20  # values, as TFDV keeps
_CLASSES, _QUANTILES = "classes", "quantiles"
PICTURE, SEVERAL = "picture", "multilabel"
WORDS = ": vocabulary"  # the end of the name of what is of type "words"


def file_of(split: str) -> str:
    """The name of a split's statistics."""
    return f"statistics-{split}.pb"


# -- statistics


def statistics_of(profile: Mapping[str, Any], name: str) -> DatasetFeatureStatisticsList:
    """One data set's statistics.

    Args:
        profile: {"rows", "columns", "label"} as `findings` takes it. A column with "of" was measured of that column.
        name: of the data set or split.
    """
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

    made = DatasetFeatureStatisticsList()
    dataset = made.datasets.add(name=name, num_examples=profile["rows"])
    features = {}
    for column, about in profile["columns"].items():
        if "of" not in about:
            features[column] = dataset.features.add()
            features[column].path.step.append(column)
            _fill(features[column], about, profile["rows"])
    for column, about in profile["columns"].items():
        if "of" in about:
            _add_measured(features[about["of"]], column, about, profile["rows"])
    if label := profile.get("label"):
        feature = dataset.features.add()
        feature.path.step.append("label")
        _fill_label(feature, label, profile["rows"])
    return made


def _common(stats: Any, rows: int, missing: int) -> None:
    stats.num_non_missing, stats.num_missing = rows - missing, missing
    stats.tot_num_values = rows - missing
    if rows > missing:
        stats.min_num_values = stats.max_num_values = 1
        stats.avg_num_values = 1.0


def _fill(feature: FeatureNameStatistics, about: Mapping[str, Any], rows: int) -> None:
    kind, missing = about["type"], about.get("missing", 0)
    if kind in NUMERIC:
        feature.type = feature.FLOAT
        _common(feature.num_stats.common_stats, rows, missing)
        _fill_numbers(feature.num_stats, about, rows - missing)
    elif kind == PICTURE:
        feature.type = feature.BYTES
        _common(feature.bytes_stats.common_stats, rows, missing)
        stats = feature.bytes_stats
        stats.unique = about["unique"]
        stats.min_num_bytes, stats.avg_num_bytes, stats.max_num_bytes = about["bytes"]
        stats.max_num_bytes_int = int(about["bytes"][2])
    else:
        feature.type = feature.STRING
        _common(feature.string_stats.common_stats, rows, missing)
        _fill_values(feature.string_stats, about.get("vocabulary", []))
        feature.string_stats.unique = about.get("unique", 0)
        feature.string_stats.avg_length = about.get("length", 0.0)
        for key in ("min", "max"):
            if about.get(key) is not None:
                feature.custom_stats.add(name=key, str=about[key])


def _fill_numbers(stats: Any, about: Mapping[str, Any], count: int) -> None:
    quantiles = about.get(_QUANTILES)
    if not quantiles or not count:
        return
    stats.mean, stats.std_dev = about["mean"], max(0.0, about["variance"]) ** 0.5
    stats.min, stats.median, stats.max = quantiles[0], quantiles[len(quantiles) // 2], quantiles[-1]
    stats.num_zeros = about.get("zeros", 0)
    if "histogram" in about:
        _add_histogram(stats.histograms.add(), about["histogram"], quantiles)
    _add_quantiles(stats.histograms.add(), quantiles, count)


def _add_histogram(histogram: Any, counts: Sequence[int], quantiles: Sequence[float]) -> None:
    """Pieces of one width."""
    histogram.type = histogram.STANDARD
    low, width = quantiles[0], (quantiles[-1] - quantiles[0]) / len(counts)
    for i, count in enumerate(counts):
        high = quantiles[-1] if i == len(counts) - 1 else low + (i + 1) * width
        histogram.buckets.add(low_value=low + i * width, high_value=high, sample_count=count)


def _add_quantiles(histogram: Any, quantiles: Sequence[float], count: int) -> None:
    histogram.type = histogram.QUANTILES
    for low, high in itertools.pairwise(quantiles):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count / (len(quantiles) - 1))


def _fill_values(stats: Any, vocabulary: Sequence[Sequence[Any]]) -> None:
    for value, count in vocabulary[:_TOP]:
        stats.top_values.add(value=value, frequency=count)
    _add_ranks(stats.rank_histogram, vocabulary)


def _add_ranks(histogram: Any, vocabulary: Sequence[Sequence[Any]]) -> None:
    for rank, (value, count) in enumerate(vocabulary):
        histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)


def _add_measured(feature: FeatureNameStatistics, column: str, about: Mapping[str, Any], rows: int) -> None:
    """What was measured of a feature, such as the widths of its pictures."""
    made = feature.custom_stats.add(name=column)
    if about["type"] == "number":
        _add_quantiles(made.histogram, about[_QUANTILES], about.get("count", rows))
    else:
        _add_ranks(made.rank_histogram, about["vocabulary"])


def _fill_label(feature: FeatureNameStatistics, label: Mapping[str, Any], rows: int) -> None:
    if label["kind"] == "number":
        feature.type = feature.FLOAT
        _common(feature.num_stats.common_stats, rows, 0)
        _fill_numbers(feature.num_stats, label, rows)
        return
    feature.type = feature.INT  # as records hold it; its values are no quantities
    named = list(zip(map(str, label["classes"]), label["counts"], strict=True))
    _add_ranks(feature.custom_stats.add(name=_CLASSES).rank_histogram, named)
    if label["kind"] == SEVERAL:
        common = feature.string_stats.common_stats
        _common(common, rows, 0)
        common.min_num_values = common.max_num_values = len(named)
        common.avg_num_values, common.tot_num_values = len(named), rows * len(named)
        return
    _common(feature.string_stats.common_stats, rows, 0)
    numbered = sorted(((str(i), count) for i, count in enumerate(label["counts"]) if count), key=lambda one: -one[1])
    _fill_values(feature.string_stats, numbered)
    feature.string_stats.unique = len(numbered)
    feature.string_stats.avg_length = sum(len(one) * count for one, count in numbered) / max(1, rows)


# -- schema


def schema_of(profile: Mapping[str, Any], others: Mapping[str, str], limits: Limits | None = None) -> Schema:
    """What data must be like to be as the profile's: features with their types, gaps, values and drift.

    Args:
        others: features of the records that the profile doesn't have, and their types: BYTES, INT or FLOAT.
        limits: how far data may differ; None: those of `tfscale data validate`.
    """
    from tensorflow_metadata.proto.v0.schema_pb2 import FeatureType, Schema

    limits, schema, rows = limits or Limits(), Schema(), profile["rows"]
    for name, about in profile["columns"].items():
        if "of" not in about:
            _describe(schema.feature.add(name=name), about, rows, limits)
    if label := profile.get("label"):
        feature = schema.feature.add(name="label")
        feature.type = FeatureType.FLOAT if label["kind"] == "number" else FeatureType.INT
        _always(feature, 1.0)
        feature.annotation.tag.append("label")
        feature.annotation.comment.append(str(label.get("name", "label")))
        if label["kind"] == SEVERAL:
            feature.annotation.tag.append(SEVERAL)
            feature.value_count.min = feature.value_count.max = len(label["classes"])
            feature.int_domain.min, feature.int_domain.max = 0, 1
        elif label["kind"] != "number":
            feature.int_domain.min, feature.int_domain.max = 0, len(label["classes"]) - 1
            feature.int_domain.is_categorical = True
            feature.drift_comparator.infinity_norm.threshold = limits.balance
    for name, kind in others.items():
        if name not in {one.name for one in schema.feature}:
            schema.feature.add(name=name, type=FeatureType.Value(kind))
    return schema


def _always(feature: Feature, share: float) -> None:
    feature.presence.min_fraction, feature.presence.min_count = share, 1
    feature.value_count.min = feature.value_count.max = 1


def _describe(feature: Feature, about: Mapping[str, Any], rows: int, limits: Limits) -> None:
    from tensorflow_metadata.proto.v0.schema_pb2 import FeatureType

    kind = about["type"]
    feature.type = FeatureType.FLOAT if kind in NUMERIC else FeatureType.BYTES
    feature.annotation.tag.append(kind)
    present = 1 - about.get("missing", 0) / max(1, rows)
    if present:
        _always(feature, max(0.0, round(present - limits.missing, 6)))
    if kind == "boolean":
        feature.float_domain.min, feature.float_domain.max = 0, 1
    elif kind == PICTURE:
        feature.image_domain.SetInParent()
    elif kind in ("category", "constant"):
        values = [value for value, _ in about.get("vocabulary", ())]
        if 0 < len(values) <= _DOMAIN and "values" not in about:
            feature.string_domain.value.extend(sorted(values))
            feature.distribution_constraints.min_domain_mass = 1 - limits.unseen
        feature.drift_comparator.infinity_norm.threshold = limits.drift


# -- back


def profile_of(statistics: DatasetFeatureStatisticsList, schema: Schema) -> dict[str, Any]:
    """The profile of what was written by `statistics_of`, and in each column what the schema says of it: "at_least",
    the share of rows with a value; "domain", values that are no news; "unseen" and "drift", limits of its own."""
    dataset = statistics.datasets[0]
    known = {feature.name: feature for feature in schema.feature}
    profile: dict[str, Any] = {"rows": dataset.num_examples, "columns": {}, "label": None}
    for stats in dataset.features:
        name = stats.path.step[0] if stats.path.step else stats.name
        if name not in known:  # what people took out of the schema is no part of it
            continue
        feature = known[name]
        tags = list(feature.annotation.tag)
        if "label" in tags:
            profile["label"] = _label(stats, feature)
            continue
        about = profile["columns"][name] = _column(stats, feature, tags[0] if tags else "")
        if about["type"] in ("date", "constant"):
            continue
        for one in stats.custom_stats:
            measured: dict[str, Any] = {"of": name, "missing": 0}
            if one.WhichOneof("val") == "histogram":
                measured |= {"type": "number", **_quantiles(one.histogram)}
            else:
                kind = "words" if one.name.endswith(WORDS) else "category"
                measured |= {"type": kind, "vocabulary": _ranks(one.rank_histogram)}
            profile["columns"][one.name] = measured
    return profile


def _column(stats: FeatureNameStatistics, feature: Feature, kind: str) -> dict[str, Any]:
    of = getattr(stats, str(stats.WhichOneof("stats")))
    kind = kind or ("number" if stats.WhichOneof("stats") == "num_stats" else "category")
    about: dict[str, Any] = {"type": kind, "missing": of.common_stats.num_missing}
    if kind in NUMERIC:
        for histogram in of.histograms:
            if histogram.type == histogram.QUANTILES:
                about |= _quantiles(histogram)
        about |= {"mean": of.mean, "variance": of.std_dev**2}
    elif kind == "category":
        about["vocabulary"] = _ranks(of.rank_histogram)
    elif kind == "constant":
        about["value"] = next((one.value for one in of.top_values), "")
    about |= {one.name: one.str for one in stats.custom_stats if one.WhichOneof("val") == "str"}
    if feature.presence.HasField("min_fraction"):
        about["at_least"] = feature.presence.min_fraction
    if feature.HasField("string_domain"):
        about["domain"] = list(feature.string_domain.value)
    if feature.distribution_constraints.HasField("min_domain_mass"):
        about["unseen"] = 1 - feature.distribution_constraints.min_domain_mass
    if feature.drift_comparator.HasField("infinity_norm"):
        about["drift"] = feature.drift_comparator.infinity_norm.threshold
    return about


def _label(stats: FeatureNameStatistics, feature: Feature) -> dict[str, Any]:
    about: dict[str, Any] = {"name": next(iter(feature.annotation.comment), "label")}
    for one in stats.custom_stats:
        if one.name == _CLASSES:
            named = _ranks(one.rank_histogram)
            kind = SEVERAL if SEVERAL in feature.annotation.tag else "class"
            about |= {"kind": kind, "classes": [name for name, _ in named], "counts": [count for _, count in named]}
    if "kind" not in about:
        about |= {"kind": "number", **_column(stats, feature, "number")}
    elif feature.drift_comparator.HasField("infinity_norm"):
        about["balance"] = feature.drift_comparator.infinity_norm.threshold
    return about


def _quantiles(histogram: Any) -> dict[str, Any]:
    buckets = list(histogram.buckets)
    return {_QUANTILES: [buckets[0].low_value, *(one.high_value for one in buckets)]} if buckets else {_QUANTILES: []}


def _ranks(histogram: Any) -> list[list[Any]]:
    return [[one.label, int(one.sample_count)] for one in histogram.buckets]


# -- files


def write_schema_proto(file: Path, schema: Schema) -> None:
    from google.protobuf import text_format

    write_whole(file, text_format.MessageToString(schema, as_utf8=True).encode())


def read_schema_proto(file: Path) -> Schema:
    """Raises DataCorrupt for what is no schema, such as a slip in an edited one."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0.schema_pb2 import Schema

    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), Schema())
    except (text_format.ParseError, OSError, UnicodeDecodeError) as error:
        raise DataCorrupt(f"it is no schema: {first_line(error)}", where=str(file), fix="correct it") from None


def write_statistics(file: Path, statistics: DatasetFeatureStatisticsList) -> None:
    write_whole(file, statistics.SerializeToString(deterministic=True))


def read_statistics(file: Path) -> DatasetFeatureStatisticsList:
    """Raises DataCorrupt."""
    from google.protobuf.message import DecodeError
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

    try:
        found = DatasetFeatureStatisticsList.FromString(file.read_bytes())
        if found.datasets:
            return found
        why = "it holds none"
    except (DecodeError, OSError) as error:
        why = first_line(error)
    raise DataCorrupt(f"it holds no statistics: {why}", where=str(file), fix="import the data again, or remove it")
