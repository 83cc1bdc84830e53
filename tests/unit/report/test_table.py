# SPDX-License-Identifier: Apache-2.0
import io

import msgspec
from rich.console import Console

from results_made import made_accuracy, made_result, made_results
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


def test_dice_is_shown_in_five_digits_and_an_undecided_verdict_with_what_it_needs() -> None:
    accuracy = msgspec.structs.replace(
        made_accuracy("undecided"),
        unit="",
        value=0.71,
        low=0.69,
        high=0.73,
        why="needs about 70 more samples to tell",
    )
    out = io.StringIO()
    print_table([made_result(accuracy=accuracy)], Console(file=out, width=80))
    assert "0.71000 (0.69000 … 0.73000), " in out.getvalue()
    assert "99 % undecided, 5,000 samples: needs about 70 more samples to tell" in out.getvalue()


def test_notes_are_numbered_where_they_belong() -> None:
    lines = printed(100).splitlines()
    [note] = [line for line in lines if line.endswith("synthetic weights: speed only")]
    number = note.split()[0]
    marked = [line for line in lines if number in line and line != note]
    assert len(marked) == 2
