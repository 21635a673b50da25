from __future__ import annotations

import sys

import pytest

from tfscale.errors import UsageError
from tfscale.models.hub import is_preset, keras_hub

# Sockets that refuse, as on a machine without a network: what asks for one anyway ends the program
OFFLINE = """
import socket

def refused(*_, **__):
    raise SystemExit("the network was asked")

socket.socket.connect = socket.getaddrinfo = refused
from tfscale.models.hub import is_preset, keras_hub

hub = keras_hub("task.preset")
backbone = hub.models.DeiTBackbone(
    image_shape=(8, 8, 1), patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4)
backbone.save_to_preset("tiny")
assert is_preset("tiny") and not is_preset(".")
again = hub.models.Backbone.from_preset("tiny")
for ours, theirs in zip(again.weights, backbone.weights, strict=True):
    assert (ours.numpy() == theirs.numpy()).all()
print("equal", len(again.weights))
"""


def test_a_preset_of_a_local_folder_is_read_without_a_network(cli, tmp_path):
    (tmp_path / "offline.py").write_text(OFFLINE)
    ended = cli(program=("offline.py",))
    assert ended.code == 0, ended.err
    assert "equal 23" in ended.out


def test_where_the_library_is_missing_the_extra_is_named(monkeypatch, tmp_path):
    assert not is_preset(tmp_path)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UsageError, match="KerasHub") as raised:
        keras_hub("init_from")
    assert (raised.value.fix, raised.value.where) == ('pip install "tfscale[hub]"', "init_from")
