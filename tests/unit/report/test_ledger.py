# SPDX-License-Identifier: Apache-2.0
import io
import re

import pytest
from rich.console import Console

from septet.optimize.candidate import REFERENCE, Candidate, Recipe
from septet.optimize.gate import Judgement, Verdict
from septet.optimize.ledger import Ledger, Row
from septet.optimize.passes import Applied
from septet.optimize.stopwatch import Timing
from septet.report.ledger import ledger_page, print_ledger


def judged(ratio: float, verdict: Verdict) -> Judgement:
    return Judgement(
        "top-1", "%", 90 * ratio, 90, ratio, ratio - 0.01, ratio + 0.01, 4_000, 0.99, verdict, "why so"
    )


@pytest.fixture
def ledger() -> Ledger:
    """Three candidates: the reference, one that is the product, one that is broken and was not timed."""
    fast = Candidate("openvino", "int8", Recipe("static", "minmax", kept=("conv<1>",)))
    rows = [
        Row(REFERENCE, "", 4_000_000, "kept", "the reference itself", timing=Timing(2, 2, 1, 9)),
        Row(
            fast,
            "f",
            1_000_000,
            "kept",
            "why so",
            judged(0.999, "kept"),
            Timing(0.6, 0.5, 8, 9),
            judged(1, "kept"),
        ),
        Row(Candidate("onnx", "int8"), "g", 0, "rejected", "why not", judged(0.3, "rejected")),
    ]
    return Ledger("net & co", "s", "f", "accuracy", "4,000 samples", 0.99, ["a note"], "a CPU", {"onnx": "1"},
                  [Applied("constants", 3, 0.0, True), Applied("odd", 1, 0.5, False)], rows, 1)  # fmt: skip


def test_the_table_has_a_row_a_candidate_and_marks_the_product(ledger: Ledger) -> None:
    shown = io.StringIO()
    print_ledger(ledger, Console(file=shown, width=120))
    text = shown.getvalue()
    assert re.search(r"→ openvino int8 \(static, minmax, 1 layers kept\) +4\.00 +0\.6 .*kept", text)
    assert "onnx int8" in text
    assert "4.00 × the throughput of FP32" in text
    assert "last word, on 4,000 samples not seen before" in text
    assert "a note" in text


def test_the_page_shows_all_and_escapes_it(ledger: Ledger) -> None:
    page = ledger_page(ledger)
    assert "net &amp; co" in page
    assert "conv&lt;1&gt;" in page
    assert page.count("<tr>") == 4
    assert "Accuracy against speed" in page
    assert "undone" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_agreement_is_never_called_accuracy(ledger: Ledger) -> None:
    ledger.judged = "agreement"
    page = ledger_page(ledger)
    assert "accuracy" not in page.lower()
    assert "agreement" in page


def test_an_unfinished_search_says_so(ledger: Ledger) -> None:
    ledger.chosen = None
    assert "the search is not finished" in ledger_page(ledger)
    ledger.chosen, ledger.out_of_time = 0, True
    assert "the time ran out before all was tried" in ledger_page(ledger)
    assert "product: FP32 in ONNX Runtime" in ledger_page(ledger)
