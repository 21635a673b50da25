"""What a class says of its fields, from a file as people write them."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tfscale.configuration.field_comments import about, meanings

CODE = '''
from dataclasses import dataclass, field
from typing import ClassVar, Optional


@dataclass
class Base:
    """Where it comes from: a sentence of two
    lines. Another one.

    Attributes:
        width: of the docstring.
        first, last: of the rows, which
            go on here. step: between two of them.
        nobody: is no field.
    """

    places: ClassVar[tuple[str, ...]] = ()  # of the class

    path: str = "a # b"  # a file
    width: int = 1
    first: int = 0
    last: int = 9  # the comment counts, and not the docstring
    step: int = 1
    # it takes
    # two lines
    long: Optional[str] = None
    # not this: the docstring counts
    height: int = 1  # type: ignore[assignment]

    # -- without TensorFlow

    lone: int = 2
    many: list[int] = field(
        default_factory=list
    )  # behind the last line


@dataclass
class Below(Base):
    """height: of the class below. It is
        deeper."""

    path: str = "b"
    width: int = 2  # nearer
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("written") / "written_fields.py"
    file.write_text(CODE)
    spec = importlib.util.spec_from_file_location("written_fields", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["written_fields"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["written_fields"]


def test_comments_and_docstrings_are_read(written):
    assert meanings(written.Base) == {
        "places": "of the class",
        "path": "a file",
        "width": "of the docstring",
        "first": "of the rows, which go on here",
        "last": "the comment counts, and not the docstring",
        "step": "between two of them",
        "long": "it takes two lines",
        "height": "not this: the docstring counts",
        "many": "behind the last line",
    }


def test_the_nearest_class_counts(written):
    found = meanings(written.Below)
    assert (found["path"], found["width"], found["long"]) == ("a file", "nearer", "it takes two lines")
    assert found["height"] == "not this: the docstring counts"  # the class below has no such field of its own


def test_the_first_sentence_is_what_a_class_is_about(written):
    assert about(written.Base) == "Where it comes from: a sentence of two lines."


def test_a_class_without_a_file_says_what_its_docstring_does():
    made = type("Made", (), {"__doc__": "Made.\n\nArgs:\n    size: of it.", "__annotations__": {"size": int}})
    assert meanings(made) == {"size": "of it"}
