"""The lines of several processes on one screen."""

from __future__ import annotations

import os
import re
import select
import subprocess
import termios

from support.stand_ins import driver, of

from tfscale.launch.job import Outcome


def test_lines_come_behind_a_prefix_of_one_width_and_all_is_well(launched):
    outcome, lines = launched("print('out'); print('err', file=sys.stderr); print('no end', end='')", chief=True)
    assert outcome == Outcome(0)
    assert sorted(lines) == sorted(
        f"{name:<8} | {text}" for name in ("chief:0", "worker:0", "worker:1") for text in ("out", "err", "no end")
    )


LIVE = """
if me == "worker:0":
    import logging
    from tfscale.console.messages import shown
    from tfscale.console.progress import ProgressLine
    with shown("auto"), ProgressLine(total_steps=40, steps_per_epoch=10) as line:
        for step in range(1, 41):
            line.live(step, {"loss": 1 / step})
            if step == 20:
                logging.getLogger("tfscale").info("half of it")
            time.sleep(0.02)
    print("size", os.get_terminal_size(1).columns)
else:
    for number in range(60):
        print("plain line", number)
        time.sleep(0.01)
"""


def test_on_a_terminal_the_chiefs_line_lives_below_whole_lines_of_others(environ):
    screen, theirs = os.openpty()
    termios.tcsetwinsize(screen, (24, 100))
    told = {**environ, "TERM": "xterm", "COLUMNS": "33"}
    process = subprocess.Popen(driver(LIVE), env=told, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    written = b""
    try:
        while select.select([screen], [], [], 20)[0]:
            written += os.read(screen, 2**16)
            if b"half of it" in written:
                termios.tcsetwinsize(screen, (24, 90))
    except OSError:  # the terminal's end
        pass
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    lines, live = [""], 0
    for part in re.split(r"(\r\n|\r\x1b\[2K)", written.decode()):
        if part == "\r\n":
            lines.append("")
        elif part.startswith("\r"):
            live += "step" in lines[-1]
            lines[-1] = ""
        else:
            lines[-1] += re.sub(r"\x1b\[[0-9;]*m", "", part)
    assert lines.pop() == ""
    assert [line for line in lines if not re.match(r"worker:[01] \| ", line)] == []
    assert [line for line in lines if line.startswith("worker:1")] == [f"worker:1 | plain line {i}" for i in range(60)]
    chiefs = of("worker:0", lines)
    assert "half of it" in chiefs
    assert live > 10
    assert sum("step" in line for line in chiefs) == 1  # the last state of the live line
    assert "step 40/40" in "".join(chiefs)
    assert f"size {90 - len('worker:0 | ')}" in chiefs
