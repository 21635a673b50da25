"""The verdict in words, and out of result.json."""

from __future__ import annotations

from tfscale.files import dumps, parse_json
from tfscale.run_dir.bottleneck import BOUNDS, Verdict
from tfscale.run_dir.result import Result

WHOLE = Verdict(
    bound="compute", share=0.91, wall_seconds=250.2, precision="bfloat16", mfu=0.4097, flops=161e9, peak_flops=393e9,
    override="eval.every=4ep", effect="7 % went to evaluation",
)  # fmt: skip


def test_one_line_for_people():
    assert WHOLE.line == (
        "bounded by compute: 91 % of 4m 10s in steps; MFU 41 % of the matmul peak in bfloat16 (161 of 393 GFLOP/s); "
        "eval.every=4ep would help most: 7 % went to evaluation"
    )


def test_a_busy_machine_a_resumed_run_and_no_advice():
    busy = Verdict("input", 0.5, 7200.0, 3, "float32", 0.0123, "", 1.23e14, 1e16, "other programs had 50 %",
                   "the virtual machine's host had 9 %")  # fmt: skip
    assert busy.line == (
        "bounded by input: 50 % of attempt 3's 2h 00m waiting for input; MFU 1.2 % of the matmul peak in float32 (123 of "
        "about 10000 TFLOP/s, measured while other programs had 50 % of the processors); while it trained, the virtual "
        "machine's host had 9 % of the processors; no override is known that would help much"
    )


def test_result_json_holds_it_typed():
    result = Result("complete", "it", verdict=WHOLE)
    kept = parse_json(dumps(result.to_dict()).encode(), where="result.json")
    assert Result.read(kept) == result
    kept["verdict"]["of_a_later_version"] = 1
    assert Result.read(kept).verdict == WHOLE
    assert Result.read({"status": "complete", "run_dir": "it"}).verdict is None
    assert WHOLE.params()["verdict.override"] == "eval.every=4ep"
    assert WHOLE.metrics() == {"verdict/mfu": 0.4097, "verdict/matmul_peak_flops": 393e9}


def test_every_bound_has_its_words():
    for bound in BOUNDS:
        assert BOUNDS[bound] in Verdict(bound, 0.5, 3.0, mfu_unknown="x").line
