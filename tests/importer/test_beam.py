"""`tfscale data import ... data.beam=...`: in an environment with Apache Beam (`make test-beam`) the same bytes as without."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
OPTIONS = "--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing"


def imported(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "tfscale", "data", "import", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=280)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*/1.0.0/*"))}


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is installed here")
def test_without_beam_it_says_where_it_can_be(tmp_path):
    from tfscale.errors import UsageError
    from tfscale.importer.beam_writer import write_by_beam
    from tfscale.importer.import_request import parse_request

    with pytest.raises(UsageError, match="Apache Beam, which is not installed"):
        list(write_by_beam(None, [], tmp_path, OPTIONS))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="its own workers"):
        parse_request(["t.csv", "name=x", f"data.beam={OPTIONS}", "data.processes=2"])
    assert parse_request(["t.csv", "name=x", f"data.beam={OPTIONS}"]).beam == OPTIONS


@pytest.mark.parametrize("packed", [False, True])
def test_workers_in_another_folder_find_what_relative_paths_name(tf, tmp_path, monkeypatch, packed):
    from tfscale.importer import beam_writer
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import parse_request
    from tfscale.importer.shard_writer import features_of, known, write_shard

    def elsewhere(reader, shards, folder, options):
        """In the place of a pipeline: what it hands to workers, used as they do, in another folder."""
        reader, folder = pickle.loads(pickle.dumps((reader, str(folder))))
        with contextlib.chdir(tmp_path.parent):
            for shard in shards:
                write_shard(reader, features_of(reader), Path(folder), shard, lambda more: None)
                yield known(Path(folder), shard)

    image = pytest.importorskip("PIL.Image")
    for n in range(12):
        file = tmp_path / "source" / f"class{n % 2}" / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8 + n, 9), (n, 2 * n, 255 - n)).save(file)
    if packed:
        shutil.make_archive(str(tmp_path / "source"), "zip", tmp_path / "source")
    monkeypatch.setattr(beam_writer, "write_by_beam", elsewhere)
    monkeypatch.chdir(tmp_path)
    words = ["source.zip" if packed else "source", "name=it"]
    import_data(parse_request([*words, "dir=alone"]))
    import_data(parse_request([*words, "dir=together", f"beam={OPTIONS}"]))
    assert files_of(Path("together")) == files_of(Path("alone"))


@pytest.mark.skipif(not HAS_BEAM, reason="Apache Beam is in an environment of its own: make test-beam")
@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_the_same_bytes_as_on_one_machine(tmp_path, kind):
    if kind == "table":
        rows = "".join(f"{n},{n % 7}.5,{'abc'[n % 3]}\n" for n in range(500))
        (tmp_path / "source.csv").write_text(f"n,x,label\n{rows}")
        source = ("source.csv", "data.label=label")
    else:
        image = pytest.importorskip("PIL.Image")
        for n in range(60):
            file = tmp_path / "source" / f"class{n % 3}" / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.new("RGB", (8 + n, 9), (n, 2 * n, 255 - n)).save(file)
        (tmp_path / "source" / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        source = ("source", "data.max_bad=1")
    words = (*source, "name=it", "data.shards=3")
    alone = imported(tmp_path, *words, "data.dir=alone", "data.processes=1")
    together = imported(tmp_path, *words, "data.dir=together", f"data.beam={OPTIONS}")
    assert alone.returncode == together.returncode == 0, alone.stderr + together.stderr
    assert "by Apache Beam" in together.stdout
    expected, found = files_of(tmp_path / "alone"), files_of(tmp_path / "together")
    assert sum("-train.tfrecord-" in name for name in found) == 3 and found == expected
    again = imported(tmp_path, *words, "data.dir=together", f"data.beam={OPTIONS}")
    assert "is there already" in again.stdout
    for options, says in (("--runer=DirectRunner", "--runer"), ("--parallelism=2", "no runner")):
        refused = imported(tmp_path, *words, "data.dir=other", f"data.beam={options}")
        assert refused.returncode == 64 and says in refused.stderr
