"""What a request is refused with: a status and one sentence, which is all that the one who asks sees.

Owns nothing else. Every protocol writes it in its own form.
"""

from __future__ import annotations

from http import HTTPStatus

_LONGEST = 500  # characters: a request may have names as long as itself


class Refusal(Exception):
    """A request that isn't answered.

    Args:
        status: of HTTP, such as 422.
        what: the fact and, where there is one, what to send in its place.
    """

    def __init__(self, status: int | HTTPStatus, what: str):
        super().__init__(what)
        self.status, self.what = int(status), what if len(what) <= _LONGEST else f"{what[:_LONGEST]} ..."


def bad_request(what: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, what)


def unprocessable(what: str) -> Refusal:
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, what)


def not_found(what: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, what)
