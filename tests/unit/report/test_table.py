# SPDX-License-Identifier: Apache-2.0
import io

from rich.console import Console

from results_made import made_results
from septet.report.table import print_table


def printed(width: int) -> str:
    out = io.StringIO()
    print_table(made_results(), Console(file=out, width=width))
    return out.getvalue()


def test_it_says_everything_in_80_columns_without_colour() -> None:
    text = printed(80)
    for words in (
        "resnet50 mini, openvino bf16, trained weights, 2 threads, unofficial",
        "0.412 ms",
        "2,714 queries/s",
        "9 / 12 / 17.3",
        "no figure",
        "99 % undecided, 5,000 samples",
        "took 17.3 ms",
        "synthetic weights: speed only",
        "unofficial quick run",
    ):
        assert words in text
    assert "\x1b" not in text
    assert "…│" not in text


def test_notes_are_numbered_where_they_belong() -> None:
    lines = printed(100).splitlines()
    [note] = [line for line in lines if line.endswith("synthetic weights: speed only")]
    number = note.split()[0]
    marked = [line for line in lines if number in line and line != note]
    assert len(marked) == 2
