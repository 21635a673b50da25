"""What a class says of its fields: the comment behind a field, else its line in the docstring, else comments above it.

Owns how they are read. A docstring has lines such as "first, last: of the rows. step: between two of them.", alone or
below "Attributes:" and "Args:", which go on in deeper ones.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Collection, Iterator
from typing import Any

_HEAD = re.compile(r"(?P<names>\w+(, \w+)*): +(?P<text>\S.*)")
_MORE = re.compile(r"(?<=[.;]) (?P<name>\w+): ")  # a second key on the line of a first
_LINT = re.compile(r"(type: ignore|noqa|fmt:|pragma:)\S*.*")


def meanings(cls: type[Any]) -> dict[str, str]:
    """What the fields of a dataclass mean, by their names, where they say it; the nearest class that does counts."""
    found: dict[str, str] = {}
    for one in cls.__mro__:
        if one is object:
            continue
        names = tuple(vars(one).get("__annotations__", ()))
        behind, above = _of_comments(one)
        told = {**above, **_of_docstring(inspect.getdoc(one) or "", names), **behind}
        found = {**{name: text for name, text in told.items() if name in names}, **found}
    return found


def about(cls: type[Any]) -> str:
    """The first sentence of a class's docstring, in one line."""
    paragraph = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.]) (?=[A-Z`])", paragraph, maxsplit=1)[0]


def _of_comments(cls: type[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The comments behind fields, and those above them, by the fields' names."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # it was made where there is no file
        return {}, {}
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    fields = {
        node.target.id: node
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    behind = {name: text for name, node in fields.items() if (text := _behind(comments, node))}
    return behind, {name: text for name, node in fields.items() if (text := _above(comments, node.lineno))}


def _behind(comments: dict[int, tuple[str, bool]], node: ast.AnnAssign) -> str:
    text, alone = comments.get(node.end_lineno or node.lineno, ("", False))
    return "" if alone else _LINT.sub("", text).strip()


def _above(comments: dict[int, tuple[str, bool]], line: int) -> str:
    lines: list[str] = []
    while comments.get(line - 1, ("", False))[1]:
        line -= 1
        lines.insert(0, comments[line][0])
    return " ".join(text for text in lines if not text.startswith("-- "))  # which parts a class


def _of_docstring(text: str, names: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for given, told in _entries(text):
        if set(given) <= set(names):
            found.update(dict.fromkeys(given, told.removesuffix(".")))
    return found


def _entries(text: str) -> Iterator[tuple[list[str], str]]:
    """(names, what is said of them) of every line that begins with names, deeper lines joined to it."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _HEAD.fullmatch(line.strip())
        if not match:
            continue
        depth = len(line) - len(line.lstrip())
        whole = [match["text"]]
        for further in lines[number + 1 :]:
            if not further.strip() or len(further) - len(further.lstrip()) <= depth:
                break
            whole.append(further.strip())
        first, *others = _MORE.split(" ".join(whole))
        yield match["names"].split(", "), first
        yield from (([name], told) for name, told in zip(others[::2], others[1::2], strict=True))
