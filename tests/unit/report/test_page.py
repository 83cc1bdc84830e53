# SPDX-License-Identifier: Apache-2.0
import re
from html.parser import HTMLParser

import msgspec
import pytest

from results_made import made_accuracy, made_result, made_results
from septet.harness.result import Loadgen, Result
from septet.report.page import page

EVIL = "<script>alert(1)</script>"


class Balanced(HTMLParser):
    """Collects tags, and fails on one that is not closed."""

    void = frozenset({"meta", "link", "br", "line", "rect", "circle", "path", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def parse(results: list[Result]) -> tuple[str, list[str]]:
    text, parser = page(results), Balanced()
    parser.feed(text)
    assert parser.open == []
    return text, parser.seen


def test_a_whole_run_has_a_table_and_all_pictures() -> None:
    text, tags = parse(made_results())
    assert tags.count("svg") == 2 + 4 + 1  # throughput and latency by network, accuracy
    assert text.count("<details>") == len(made_results())
    for words in ("unofficial quick run", "synthetic weights: speed only", "took 17.3 ms", "undecided", "missed"):
        assert words in text


def test_nothing_is_loaded_from_elsewhere() -> None:
    text, tags = parse(made_results())
    assert not re.search(r"https?://(?!www\.w3\.org)", text.replace("http://www.w3.org", ""))
    assert {"script", "iframe", "img"}.isdisjoint(tags)
    assert "default-src 'none'" in text


def test_text_from_results_is_escaped() -> None:
    fields = ("network", "engine", "precision", "data", "command", "commit", "time")
    loadgen = Loadgen(EVIL, EVIL, {EVIL: EVIL})
    evil = made_result(
        **dict.fromkeys(fields, EVIL), notes=[EVIL], why=[EVIL], versions={EVIL: EVIL}, loadgen=loadgen
    )
    text, tags = parse([evil])
    assert "script" not in tags
    assert EVIL not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "results",
    [
        [],
        [made_result()],
        [made_result(metric=None, latency=None, accuracy=None, samples=0, seconds=0.0, verdict="INVALID")],
        [made_result(network=f"network{n}", engine=f"engine{n % 9}") for n in range(200)],
    ],
    ids=["none", "one", "nothing measured", "many"],
)
def test_odd_lists_give_a_sane_page(results: list[Result]) -> None:
    text, tags = parse(results)
    assert ("svg" in tags) == any(result.seconds > 0 for result in results)
    assert ("No results" in text) == (results == [])


def test_an_official_run_says_so() -> None:
    text, _ = parse([made_result(official=True, notes=[])])
    assert "Official: by the full rules" in text
    assert "unofficial" not in text.replace("label-unofficial", "")


def test_each_verdict_has_a_shape_of_its_own() -> None:
    text, _ = parse([made_result(accuracy=made_accuracy(v), precision=v) for v in ("met", "missed", "undecided")])
    assert all(shape in text for shape in ('class="dot s0"', 'class="whisker s1"', 'class="ring s2"'))


def test_a_run_that_is_judged_at_two_targets_is_drawn_once() -> None:
    accuracies = [msgspec.structs.replace(made_accuracy("met"), target=target) for target in (0.99, 0.999)]
    text, _ = parse([made_result(accuracy=accuracy) for accuracy in accuracies])
    assert text.count('class="bar s0"') == text.count('class="curve s0"') == 1
    assert "99 % met" in text
    assert "99.9 % met" in text
    assert "target 99 %</text>" in text
    assert "target 99.9 %</text>" in text
    summaries = re.findall(r"<summary>(.*?)</summary>", text)
    assert len(set(summaries)) == len(summaries) == 2


def test_an_undecided_verdict_says_what_it_needs_and_figures_beside_are_shown() -> None:
    undecided = msgspec.structs.replace(
        made_accuracy("undecided"), unit="", value=0.712345, why="needs about 70 more samples to tell",
        beside={"exact match": 0.7},
    )  # fmt: skip
    text, _ = parse([made_result(accuracy=undecided)])
    assert "99 % undecided: needs about 70 more samples to tell" in text
    assert ">0.71235<br>exact match 0.70000<" in text
