"""The splits of the ten speakers: nothing that is tested is trained on, nor pre-trained on."""

from __future__ import annotations

import json

from benchmarks import speakers


def test_the_same_words_stand_in_one_split_and_are_not_pretrained_on_where_they_are_tested(tmp_path, capsys):
    names = [f"SPEAKER {n}" for n in range(12)]
    turns = [(name, f"Line {n} of {name if n % 3 else 'all'}!") for name in names[:10] for n in range(60)]
    turns += [("FIRST CITIZEN", f"line {n}, of all") for n in range(60)]  # the same words, and too few lines to be told
    text = "\n\n".join(
        f"{name}:\n{said}\nand so on" if name in names else f"{name}:\n{said} and so on" for name, said in turns
    )
    (tmp_path / "plays.txt").write_text(text)
    speakers.main([str(tmp_path / "plays.txt"), "--files", str(tmp_path / "out")])
    assert "to pre-train on" in capsys.readouterr().out

    def read(file):
        lines = [json.loads(line) for line in (tmp_path / "out" / file).read_text().splitlines()]
        return lines, {speakers._words(line) for line in lines}

    found = {name: read(f"speakers/{name}.jsonl") for name in speakers.SPLITS}
    assert sum(len(lines) for lines, _ in found.values()) == 600
    words = [one for _, one in found.values()]
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    assert len(found["test"][0]) > 50 and {line["speaker"] for line in found["test"][0]} == set(names[:10])
    spoken, of_all = read("speeches/train.jsonl")
    assert not of_all & (words[1] | words[2]) and words[0] <= of_all and set(spoken[0]) == {"text"}
