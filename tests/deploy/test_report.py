from __future__ import annotations

from pathlib import Path

import report
from figures import is_calm


def test_a_table_has_a_line_under_its_headings() -> None:
    assert report.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_several_rounds_become_their_median_with_the_extremes() -> None:
    assert report.middle([3000, 1000, 2000]) == "2,000 (1,000–3,000)"
    assert report.middle([0.5]) == "0.5"
    assert report.middle([]) == "-"


def test_ratios_are_taken_pair_by_pair() -> None:
    """A machine that gets slower by the hour does not change who is faster."""
    assert report.ratio([100, 50, 10], [50, 25, 5]) == 2
    assert report.ratio([1], [0]) is None


def test_results_bear_the_date_and_show_their_plots(tmp_path: Path) -> None:
    path = report.write(tmp_path, "bench", "# text\n", {"raw": 1}, {"plot": "<svg/>"})
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == [f"{path.stem}-plot.svg", f"{path.stem}.json", f"{path.stem}.md"]
    assert f"![plot]({path.stem}-plot.svg)" in path.read_text()


def test_writes_go_on_again_when_a_second_had_no_gap() -> None:
    moments = [0.1 * i for i in range(100)]
    assert is_calm(moments, 9.95)
    assert not is_calm(moments, 10.5)
    assert not is_calm([at for at in moments if not 9.2 < at < 9.6], 9.95)
    assert not is_calm([], 10.0)
