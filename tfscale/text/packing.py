"""Texts in rows of one length: cut where they are longer, several in a row where they are shorter.

Owns which tokens of which text lie in which row. Refuses to know tokens and files. The order of texts alone decides, so
that the same texts give the same rows.

    pieces = cut_texts([700, 20, 31], width=256)      # one of 700 tokens lies in three rows
    rows = pack([piece.size for piece in pieces], 256)  # [[0], [1], [2, 4, 3]]: places among the pieces
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Some tokens of one text, one after another.

    Attributes:
        text: its place.
        start: the first token.
        size: how many.
    """

    text: int
    start: int
    size: int


def cut_texts(sizes: Sequence[int], width: int) -> list[Piece]:
    """All tokens of all texts in pieces that fit into a row. A piece that goes on begins with the last token of the one
    before it, so that every token but a text's first is predicted once; a text of one token predicts none and has no
    piece."""
    pieces = []
    for text, size in enumerate(sizes):
        start = 0
        while start + 1 < size:
            pieces.append(Piece(text, start, min(width, size - start)))
            start += width - 1
    return pieces


def pack(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Places of pieces, row by row: the longest first, each into the fullest row that still has room (best fit)."""
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # rows that have so many places left
    rooms = 0  # bit r: a row has r places left
    for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
        size = sizes[place]
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
            rows[row].append(place)
        else:
            room, row = width, len(rows)
            rows.append([place])
        if left := room - size:
            by_room.setdefault(left, []).append(row)
            rooms |= 1 << left
    return rows
