"""The token that a request brings, in the same form by HTTP and by gRPC: Bearer TOKEN.

Owns the comparison. Refuses to know where the two come from.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus

from tfscale.serving.refusal import Refusal


def check_bearer(given: str, token: str, *, place: str) -> None:
    """Args: given: "Bearer TOKEN"; token: the right one, "" where none is asked for; place: where it is to stand.

    Raises:
        Refusal: none is given (401), or another (403).
    """
    if not token:
        return
    kind, _, found = given.partition(" ")
    if kind.lower() != "bearer" or not found:
        raise Refusal(HTTPStatus.UNAUTHORIZED, f"send the {place}: Bearer TOKEN")
    if not hmac.compare_digest(found.strip().encode(errors="replace"), token.encode()):
        raise Refusal(HTTPStatus.FORBIDDEN, "the token is another")
