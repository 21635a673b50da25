"""The description of a registered version: its model card, as far as MLflow's page of the version has room for it.

Owns what is left out where there is too little. Refuses to know registries, and what a card says.

    described("vit/89c6f47174, step 100. accuracy +0.01", card)
"""

from __future__ import annotations

import re

MOST = 5000  # characters of the column in MLflow's database
_MOST_OF_LINE = 300  # so that a citation or a list of classes leaves room
_FIRST = ("", "Data", "Figures", "Training", "Versions", "Limits")  # whose room the others don't take; "" is the title


def described(about: str, card: str) -> str:
    """Markdown, at most `MOST` characters: MLflow's page shows it as such, and its lists the first line alone.

    Args:
        about: the first line.
        card: README.md of the export; "" for none.
    """
    if not card:
        return about[:MOST]
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)  # which is Hugging Face's
    title, *others = re.split(r"^## ", body, flags=re.MULTILINE)
    parts = {"": title} | {part.partition("\n")[0]: f"## {part}" for part in others}
    parts = {name: "\n".join(map(_short, part.strip().split("\n"))) for name, part in parts.items()}
    kept: set[str] = set()
    for name in (*(one for one in _FIRST if one in parts), *(one for one in parts if one not in _FIRST)):
        if len(_text(about, parts, kept | {name})) <= MOST:
            kept.add(name)
    return _text(about, parts, kept)[:MOST]


def _text(about: str, parts: dict[str, str], kept: set[str]) -> str:
    left = [name or "its title" for name in parts if name not in kept]
    told = f" Left out here: {', '.join(left)}." if left else ""
    last = f"The whole card is `README.md` among the files of this version.{told}"
    return "\n\n".join([about, *(part for name, part in parts.items() if name in kept), last])


def _short(line: str) -> str:
    if len(line) <= _MOST_OF_LINE:
        return line
    return line[:_MOST_OF_LINE].rstrip("\\") + (" ... |" if line.startswith("|") else " ...")
