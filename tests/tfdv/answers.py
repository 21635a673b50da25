"""What TensorFlow Data Validation says of imported data, recorded for tests that run without it.

    make test-tfdv          # compares; RECORD=--record writes tests/golden/tfdv.json anew

Runs in an environment of its own, since TFDV needs an older TensorFlow: `python answers.py DATA_SET_FOLDER GOLDEN`. A gap
of a record (NaN, or an empty text) is a value that isn't there to TFDV.
"""

import glob
import json
import math
import os
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0.anomalies_pb2 import AnomalyInfo


def examples(folder, split):
    found = []
    for file in sorted(glob.glob(f"{folder}/*-{split}.tfrecord-*")):
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            for feature in example.features.feature.values():
                floats, texts = feature.float_list.value, feature.bytes_list.value
                if (floats and math.isnan(floats[0])) or (texts and texts[0] == b""):
                    feature.Clear()
            found.append(example)
    return found


def statistics(some, schema=None):
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/examples"
        with tf.io.TFRecordWriter(file) as out:
            for one in some:
                out.write(one.SerializeToString())
        options = tfdv.StatsOptions(schema=schema, num_top_values=1000, num_rank_histogram_buckets=1000)
        return tfdv.generate_statistics_from_tfrecord(file, stats_options=options)


def answers(found):
    """The figures that ours are compared with."""
    told = {}
    for one in found.datasets[0].features:
        kind = one.WhichOneof("stats")
        stats = getattr(one, kind)
        common = stats.common_stats
        about = {"type": one.Type.Name(one.type), "present": common.num_non_missing, "missing": common.num_missing}
        if kind == "num_stats":
            names = ("mean", "std_dev", "num_zeros", "min", "median", "max")
            about.update({name: getattr(stats, name) for name in names})
            standard = [h for h in stats.histograms if h.type == h.STANDARD]
            about["histogram"] = [bucket.sample_count for bucket in standard[0].buckets] if standard else []
        elif kind == "string_stats":
            about.update({"unique": stats.unique, "avg_length": stats.avg_length})
            if stats.unique <= 100:  # a name of each row tells nothing more
                about["ranks"] = {bucket.label: bucket.sample_count for bucket in stats.rank_histogram.buckets}
        else:
            about.update({"unique": stats.unique, "avg_length": stats.avg_num_bytes, "least": stats.min_num_bytes})
        told[one.path.step[0]] = about
    return {"rows": found.datasets[0].num_examples, "features": told}


def anomalies(found, schema):
    told = tfdv.validate_statistics(found, schema)
    return {name: sorted(AnomalyInfo.Type.Name(reason.type) for reason in one.reason)
            for name, one in sorted(told.anomaly_info.items())}  # fmt: skip


def planted(some):
    """Broken copies of the examples, by what is wrong with them."""

    def changed(change):
        made = [tf.train.Example.FromString(one.SerializeToString()) for one in some]
        for place, one in enumerate(made):
            change(place, one.features.feature)
        return made

    def renamed(_, feature):
        feature["delays"].CopyFrom(feature["delay"])
        del feature["delay"]

    def gaps(place, feature):
        feature["distance"].Clear() if place % 3 == 0 else None

    def unseen(place, feature):
        if place % 5 == 0:
            feature["carrier"].bytes_list.value[:] = [b"ZZ"]

    def no_class(_, feature):
        feature["label"].int64_list.value[:] = [7]

    def retyped(_, feature):
        feature["distance"].bytes_list.value[:] = [b"far"]

    return {name: changed(change) for name, change in
            (("renamed", renamed), ("gaps", gaps), ("unseen", unseen), ("class", no_class), ("type", retyped))}  # fmt: skip


def main(folder, golden, record):
    schema = tfdv.load_schema_text(f"{folder}/schema.pbtxt")
    found = {"versions": {"tensorflow_data_validation": tfdv.__version__}, "splits": {}, "anomalies": {}}
    for split in ("train", "test"):
        some = examples(folder, split)
        stats = statistics(some, schema)
        found["splits"][split] = answers(stats)
        found["anomalies"][split] = anomalies(stats, schema)
        ours = tfdv.load_stats_binary(f"{folder}/statistics-{split}.pb")
        found["anomalies"][f"{split}, our statistics"] = anomalies(ours, schema)
    for name, some in planted(examples(folder, "test")).items():
        found["anomalies"][name] = anomalies(statistics(some, schema), schema)
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    print(json.dumps(found["anomalies"], indent=1))
    if record:
        with open(golden, "w") as out:
            out.write(text)
        return
    with open(golden) as file:
        known = json.load(file)
    if not same(known, json.loads(text)):
        sys.exit("TFDV says otherwise than the golden file: RECORD=--record writes it anew")


def same(one, other, near=1e-6):
    """Whether both say the same; Beam adds up in any order, and medians and histograms are those of sketches."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key], 0.05 if key in ("median", "histogram") else near) for key in one
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b, near) for a, b in zip(one, other, strict=True))
    return math.isclose(one, other, rel_tol=near, abs_tol=near) if isinstance(one, float) else one == other


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--record" in sys.argv)
