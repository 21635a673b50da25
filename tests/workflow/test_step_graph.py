"""The picture of a workflow."""

from __future__ import annotations

from xml.etree import ElementTree

from tfscale.workflow.step_graph import Shown, page_of, text_of

STEPS = [
    Shown("train", (), "done", "2026-11-30 12:00:00, 5 s", "tfscale train x='<a>'"),
    Shown("evaluate", ("train",), "running", "since 12:00"),
    Shown("export", ("train",), "failed", "<b>no</b>"),
    Shown("promote", ("evaluate", "export"), "to do", "not done yet"),
]


def test_the_chain_shows_what_may_run_at_once_side_by_side():
    text = text_of(STEPS)
    assert text.startswith("train ✓ → evaluate ▶ + export ✗ → promote ·\n")
    assert "evaluate export" in text and "not done yet" in text


def test_the_page_is_drawn_without_a_network_and_looks_again_while_a_step_runs():
    page = page_of("digits", STEPS)
    assert "<b>no" not in page and "http" not in page.replace("http-equiv", "") and 'content="5"' in page
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    boxes = {group.find("text").text: group.find("rect").attrib for group in svg.iter("g")}
    assert list(boxes) == ["train ✓", "evaluate ▶", "export ✗", "promote ·"]
    assert boxes["evaluate ▶"]["x"] == boxes["export ✗"]["x"] != boxes["promote ·"]["x"]
    assert boxes["evaluate ▶"]["y"] != boxes["export ✗"]["y"]
    assert len(list(svg.iter("path"))) == 4
    assert 'content="5"' not in page_of("digits", STEPS[:1])
