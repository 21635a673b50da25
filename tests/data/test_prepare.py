from __future__ import annotations

import pytest

from tfscale.data.mnist import Mnist
from tfscale.data.prepare import prepare_apart
from tfscale.data.tfds import Tfds
from tfscale.errors import DataMissing


def test_a_child_prepares_the_data(tmp_path):
    source = Mnist(dir=str(tmp_path))
    assert not source.is_prepared()
    prepare_apart(source)
    assert source.is_prepared()
    assert source.num_examples("test") == 1000


def test_the_childs_error_is_the_parents(tmp_path):
    with pytest.raises(DataMissing, match="data.download=false") as error:
        prepare_apart(Tfds(dir=str(tmp_path), name="cifar10", download=False))
    assert error.value.where == "data.dir"
