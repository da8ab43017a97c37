from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import svg

NS = "{http://www.w3.org/2000/svg}"


def bars_of(drawing: str) -> dict[str, tuple[float, float]]:
    """Top and bottom of each bar, by what it tells when pointed at."""
    found = {}
    for rectangle in ElementTree.fromstring(drawing).iter(f"{NS}rect"):
        title = rectangle.find(f"{NS}title")
        if title is not None and title.text is not None:
            top = float(rectangle.attrib["y"])
            found[title.text] = (top, top + float(rectangle.attrib["height"]))
    return found


def test_bars_stand_on_the_axis_and_their_heights_are_as_their_values() -> None:
    drawing = svg.bars("t", "MB/s", ["a", "b"], [("x", [10, 5]), ("y", [None, 2.5])])
    bars = bars_of(drawing)
    assert set(bars) == {"x, a: 10 MB/s", "x, b: 5 MB/s", "y, b: 2.5 MB/s"}
    assert {round(bottom) for _, bottom in bars.values()} == {svg.TOP + svg.PLOT_HEIGHT}
    heights = [bottom - top for top, bottom in bars.values()]
    assert heights == pytest.approx([svg.PLOT_HEIGHT, svg.PLOT_HEIGHT / 2, svg.PLOT_HEIGHT / 4])


def test_names_with_special_characters_keep_the_drawing_well_formed() -> None:
    drawing = svg.bars('a "<&>" b', "<s>", ["<g>"], [("<&>", [1])])
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"] == 'a "<&>" b'
    assert {"<g>", "<&>", "<s>"} <= {text.text for text in root.iter(f"{NS}text")}


def test_lines_span_the_decades_of_their_points() -> None:
    drawing = svg.lines("t", "x", "ms", [("l", [(1, 0.1), (10, 1), (100, 10)])])
    (line,) = ElementTree.fromstring(drawing).iter(f"{NS}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[0] == (svg.LEFT, svg.TOP + svg.PLOT_HEIGHT)
    assert points[1] == pytest.approx(
        (svg.LEFT + svg.PLOT_WIDTH / 2, svg.TOP + svg.PLOT_HEIGHT / 2), abs=0.1
    )
    assert points[2] == (svg.WIDTH - svg.RIGHT, svg.TOP)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (0.01234, "0.0123"),
        (100.0, "100"),
        (20, "20"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert svg.number(value) == shown


def test_a_legend_with_long_names_gets_more_rows() -> None:
    names = [f"a name that is rather long, number {i}" for i in range(5)]
    root = ElementTree.fromstring(svg.bars("t", "s", ["g"], [(name, [1]) for name in names]))
    places = [
        (float(text.attrib["x"]), float(text.attrib["y"]))
        for text in root.iter(f"{NS}text")
        if text.text in names
    ]
    assert len({y for _, y in places}) == 3
    left = sorted({x for x, _ in places})
    assert left[1] - left[0] > 6 * len(names[0])
    assert max(y for _, y in places) < float(root.attrib["viewBox"].split()[3])
