"""Parts of a prediction: who writes which, who is refused, and that they are joined once and whole."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from tfscale.console.messages import received
from tfscale.errors import InternalError, IOFailure, OutputError
from tfscale.files import replacing
from tfscale.process import fault_points
from tfscale.trained.prediction_output import Output
from tfscale.trained.prediction_parts import Parts, Share, clear_whole

COUNT, ROWS = 23, 4  # six parts
WHOLE = "".join(json.dumps({"x": x}) + "\n" for x in range(COUNT))


def parts(output, worker=0, workers=1, *, pinned="a") -> Parts:
    return Parts(Output.of(output), {"of": pinned}, count=COUNT, rows=ROWS, share=Share(worker, workers))


def work(output, worker=0, workers=1, *, pinned="a", most=99) -> tuple[int | None, bool]:
    """(how many parts it wrote, whether it joined them); `most` parts before it ends, as one that is killed."""
    ours = parts(output, worker, workers, pinned=pinned)
    with ours.claimed():
        missing = ours.begin()
        for number in (missing or ())[:most]:
            ours.write(number, {"x": np.arange(COUNT)[number * ROWS : (number + 1) * ROWS]})
        return (None, False) if missing is None else (min(len(missing), most), most >= 99 and ours.finish())


@pytest.mark.parametrize("total", [1, 2, 3, 7, 1000])
def test_every_part_is_one_workers(total):
    for workers in (1, 2, 3, 8):
        found = [number for worker in range(workers) for number in Share(worker, workers).parts(total)]
        assert found == list(range(total))
        sizes = {len(Share(worker, workers).parts(total)) for worker in range(workers)}
        assert max(sizes) - min(sizes) <= 1


def test_the_last_one_joins_and_another_number_of_workers_goes_on(tmp_path):
    output = tmp_path / "p.jsonl"
    output.write_text("older\n")
    assert work(output, 1, 3) == (2, False)
    assert work(output, 2, 3, most=1) == (1, False)  # killed
    assert output.read_text() == "older\n"
    told: list[str] = []
    with received(told.append):
        assert work(output, 1, 2) == (1, False)
        assert work(output, 0, 2) == (2, True)
    assert told == [
        "worker 1 of 2: 2 of 3 parts are there already: going on at row 20",
        "4 of 6 parts are there: whoever writes the last one joins them",
        "worker 0 of 2: 1 of 3 parts are there already: going on at row 0",
    ]
    assert output.read_text() == WHOLE
    assert not list(output.with_name("p.jsonl.parts").glob("part-*"))


def test_one_that_comes_again_leaves_the_output_alone(tmp_path):
    """As a pod does whose node was lost in the moment of its end."""
    output = tmp_path / "p.jsonl"
    assert [work(output, worker, 2) for worker in (0, 1)] == [(3, False), (3, True)]
    assert work(output, 0, 2) == (None, False)
    assert not list(output.with_name("p.jsonl.parts").glob("part-*"))
    clear_whole(Output.of(output))
    assert list(tmp_path.iterdir()) == [output]
    clear_whole(Output.of(output))  # another command has done so
    # An output that was removed is made anew, by other workers or by one alone
    assert [work(output, worker, 2) for worker in (0, 1)] == [(3, False), (3, True)]
    output.unlink()
    assert [work(output, worker, 2) for worker in (1, 0)] == [(3, False), (3, True)]
    assert work(output) == (6, True) and output.read_text() == WHOLE
    assert list(tmp_path.iterdir()) == [output]


def test_what_a_second_command_holds_stays_for_it(tmp_path):
    """It begins between the join and the end of the first one's workers."""
    output = tmp_path / "p.jsonl"
    assert [work(output, worker, 2) for worker in (0, 1)] == [(3, False), (3, True)]
    second = parts(output, 0, 2)
    with second.claimed():
        told: list[str] = []
        with received(told.append):
            clear_whole(Output.of(output))
        assert "another command has begun" in told[0] and second.begin() is None
    clear_whole(Output.of(output))
    assert list(tmp_path.iterdir()) == [output] and output.read_text() == WHOLE
    # What isn't there, or isn't joined
    assert work(output, 0, 2) == (3, False)
    with pytest.raises(InternalError, match="isn't theirs"):
        clear_whole(Output.of(output))
    output.unlink()
    with pytest.raises(IOFailure, match="somebody has removed"):
        clear_whole(Output.of(output))


def test_one_that_predicts_all_beside_others_leaves_them_their_folder(tmp_path):
    output = tmp_path / "p.jsonl"
    theirs = parts(output, 1, 2)
    with theirs.claimed():
        missing = theirs.begin()
        with replacing(
            theirs.path(missing[0]), theirs.folder / ".theirs.tmp"
        ) as temporary:  # one that is being written
            theirs.kind.write({"x": np.arange(12, 16)}, temporary)
            told: list[str] = []
            with received(told.append):
                assert work(output) == (6, True)
            assert "other workers may be at work" in told[-1]
        for number in missing[1:]:
            theirs.write(number, {"x": np.arange(COUNT)[number * ROWS : (number + 1) * ROWS]})
        assert not theirs.finish()
    assert work(output, 0, 2) == (None, False)
    clear_whole(Output.of(output))
    assert list(tmp_path.iterdir()) == [output] and output.read_text() == WHOLE


def test_two_that_end_at_once_join_once(tmp_path, monkeypatch):
    output, joins, meet = tmp_path / "p.jsonl", [], threading.Barrier(2)
    monkeypatch.setattr(fault_points, "point", lambda name, **_: joins.append(name))

    def run(worker: int, ends: list[bool]) -> None:
        ours = parts(output, worker, 2)
        with ours.claimed():
            for number in ours.begin() or ():
                ours.write(number, {"x": np.arange(COUNT)[number * ROWS : (number + 1) * ROWS]})
            meet.wait(30)
            ends.append(ours.finish())

    ends: list[bool] = []
    threads = [threading.Thread(target=run, args=(worker, ends)) for worker in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == [False, True] and joins == ["predict.join"]
    assert output.read_text() == WHOLE


def test_a_share_is_one_processs(tmp_path):
    output = tmp_path / "p.jsonl"
    first = parts(output, 1, 2)
    with first.claimed():
        with pytest.raises(OutputError, match="holds .*worker-1-of-2"):
            work(output, 1, 2)
        assert work(output, 0, 2) == (3, False)
    assert work(output, 1, 2) == (3, True)


def test_parts_of_something_else_are_never_joined_nor_removed_under_others(tmp_path):
    output = tmp_path / "p.jsonl"
    assert work(output, 0, 2, pinned="other") == (3, False)
    with pytest.raises(OutputError, match="another checkpoint or input"):
        work(output, 1, 2)
    theirs = parts(output, 1, 2, pinned="other")
    with theirs.claimed(), pytest.raises(OutputError, match="worker-1-of-2"):  # they are at work
        work(output)
    told: list[str] = []
    with received(told.append):
        assert work(output, most=5) == (5, False)  # alone, and nobody works
    assert "starting afresh" in told[0]
    with theirs.claimed():  # one of theirs that heard nothing of it
        theirs.write(5, {"x": np.arange(3) - 9})
        with pytest.raises(OutputError, match="begun anew"):
            theirs.finish()
    assert work(output) == (1, True) and output.read_text() == WHOLE
    # What is left of a prediction that was joined is in nobody's way
    assert [work(output, worker, 2, pinned="other") for worker in (0, 1)] == [(3, False), (3, True)]
    assert [work(output, worker, 2) for worker in (0, 1)] == [(3, False), (3, True)]


def test_a_worker_that_lost_its_share_or_its_parts_ends(tmp_path):
    output = tmp_path / "p.jsonl"
    ours = parts(output, 0, 2)
    with ours.claimed():
        assert ours.begin() == [0, 1, 2]
        ours.write(0, {"x": np.arange(4)})
        with pytest.raises(IOFailure, match="removed finished parts"):
            ours.finish()
        lock = ours.folder / "worker-0-of-2" / ".lock"
        record = json.loads(lock.read_text())
        lock.write_text(json.dumps({**record, "token": "another"}))
        with pytest.raises(OutputError, match="no longer holds"):
            ours.write(1, {"x": np.arange(4)})
    assert [path.name[:11] for path in ours.folder.glob("part-*")] == ["part-000000"]
    assert not output.exists()


def test_a_folder_of_parts_is_whole_and_replaced_as_one(tmp_path):
    place = tmp_path / "p.jsonl"
    output = f"{place}/"
    assert [work(output, worker, 2, pinned="old") for worker in (0, 1)] == [(3, False), (3, True)]
    assert [work(output, worker, 2) for worker in (1, 0)] == [(3, False), (3, True)]
    assert work(output, 0, 2) == (None, False)
    names = [f"part-0000{number}-of-00006.jsonl" for number in range(6)]
    assert sorted(path.name for path in place.iterdir()) == ["_manifest.json", *names]
    assert "".join((place / name).read_text() for name in names) == WHOLE
    about = json.loads((place / "_manifest.json").read_text())
    assert about == {"of": "a", "examples": COUNT, "files": names}
    clear_whole(Output.of(output))
    assert list(tmp_path.iterdir()) == [place]
    # One that is killed while it replaces the folder leaves none for a moment, and all parts
    ours = parts(output)
    with ours.claimed():
        for number in ours.begin():
            ours.write(number, {"x": np.arange(COUNT)[number * ROWS : (number + 1) * ROWS]})
        place.rename(ours.folder / ".older.tmp")
    assert work(output) == (0, True)
    assert "".join((place / name).read_text() for name in names) == WHOLE
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_with_anything_else_is_left_alone(tmp_path):
    place = tmp_path / "p.jsonl"
    output = Output.of(f"{place}/")
    assert work(f"{place}/") == (6, True)
    output.check()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        output.check()
    with pytest.raises(OutputError, match=r"notes\.txt"):
        work(f"{place}/")
    assert (place / "notes.txt").read_text() == "mine" and len(list(place.iterdir())) == 8
    with pytest.raises(OutputError, match="is a folder"):
        Output.of(place).check()
    (tmp_path / "q.jsonl").write_text("older")
    with pytest.raises(OutputError, match="is a file"):
        Output.of(f"{tmp_path}/q.jsonl/").check()


@pytest.mark.parametrize("target", ["folder", "absent", "file"])
def test_a_link_is_not_replaced(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("older")
    link = tmp_path / "p.jsonl"
    link.symlink_to(target)
    for output in (str(link), f"{link}/"):
        with pytest.raises(OutputError, match="is a link") as caught:
            Output.of(output).check()
        assert f"output={tmp_path / target}{'/' * output.endswith('/')}, or" in caught.value.fix
    with pytest.raises(OutputError, match="is a link"):  # made meanwhile
        work(f"{link}/")
    assert link.is_symlink() and (tmp_path / "file").read_text() == "older"
