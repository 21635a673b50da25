"""How a process that was lost and started again is let in after the meeting.

Owns the listening socket for the rest of the job. Only for strategies whose leader's port TensorFlow doesn't take:
under parameter servers the chief connects to others and listens at a port of its own choosing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import tfscale.peers.agreement as agreement
from tfscale.peers.channel import Channel, listen
from tfscale.peers.meeting import Meeting

_HELLO_WITHIN = 5.0  # seconds


def keep_open(meeting: Meeting, port: int, hello: Mapping[str, Any]) -> None:
    """Lets members come in again at this port until the meeting ends; `hello` is the leader's own."""
    listener = listen(port)
    listener.settimeout(0.5)

    def receive() -> None:
        with listener:
            while not meeting.ended:
                try:
                    connection, _ = listener.accept()
                except OSError:  # nobody came
                    continue
                with contextlib.suppress(Exception):  # whatever a stranger does, others are let in
                    _greet(meeting, Channel(connection), hello)

    threading.Thread(target=receive, name="tfscale-reception", daemon=True).start()


def _greet(meeting: Meeting, channel: Channel, ours: Mapping[str, Any]) -> None:
    deadline, messages = time.monotonic() + _HELLO_WITHIN, channel.receive()
    while not messages and not channel.closed and time.monotonic() < deadline:
        time.sleep(0.02)
        messages = channel.receive()
    if not messages or not agreement.is_hello(messages[0]):
        channel.hang_up()
        return
    theirs = messages[0]
    name = f"{theirs['role']}:{theirs['index']}"
    error = agreement.facts_differ({name: theirs}, meeting.me, ours)
    if error is None and meeting.is_present(name):
        error = agreement.claimed_twice(name, {"pid": "one that is here", "host": "the job"}, theirs)
    if error is not None or name not in meeting.members:
        channel.send({"type": "error", "error": error.as_dict()} if error else {"type": "unknown"})
        channel.hang_up()
        return
    channel.send({"type": "met"})
    meeting.admit(name, channel)
