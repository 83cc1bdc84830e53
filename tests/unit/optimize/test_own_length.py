# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import septet
from networks_made import perceptron, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, ModelInvalid
from septet.optimize.agreement import agreement
from septet.optimize.own import OwnModel
from septet.pipelines.sequence import STEP
from septet.serving.core import Core
from septet.tensor import Array, Tensors
from septet.wire.shm import Regions
from sequences_made import LONGEST, tagger, texts
from serving_made import ask


def fp32(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def near(mine: Array, theirs: Array) -> bool:
    return mine.shape == theirs.shape and bool(np.abs(mine - theirs).max() <= 1e-4 * np.abs(theirs).max())


def tokens(sample: Tensors) -> int:
    return int(sample["token_mask"].sum())


def padded(sample: Tensors, dtype: type = np.int64) -> dict[str, Array]:
    """A batch of one, of the length that the fixed network takes."""
    return {name: np.pad(array, (0, LONGEST - len(array)))[None].astype(dtype) for name, array in sample.items()}


def answered(path: Path, samples: Sequence[Tensors]) -> tuple[OwnModel, dict[int, Tensors]]:
    """The subject, and what a score of the user's gets for each search sample."""
    seen: dict[int, Tensors] = {}

    def score(answers: Sequence[Tensors], indices: Sequence[int]) -> list[float]:
        seen.update(zip(indices, answers, strict=True))
        return [1.0] * len(answers)

    subject = OwnModel(path, samples, score, path.parent / "search")
    subject.exam("search", fp32, subject.count("search"))
    return subject, seen


@contextmanager
def served(repository: Path) -> Iterator[Core]:
    core = Core([repository], regions=Regions())
    core.start()
    try:
        yield core
    finally:
        core.close(5)


@pytest.mark.parametrize("batch", ["B", 1])
@pytest.mark.parametrize("length", [LONGEST, "L"])
@pytest.mark.parametrize("pads", [True, False])
def test_each_sequence_is_run_at_its_own_length_and_answered_as_padded(
    tmp_path: Path, length: int | str, batch: int | str, pads: bool
) -> None:
    path, samples = tagger(tmp_path / "tagger.onnx", length, batch), texts(60, padded=pads)
    subject, seen = answered(path, samples)
    assert subject.joins is (batch == "B")
    assert len(seen) == subject.count("search")
    with fp32(path) as engine:
        for index, mine in seen.items():
            theirs = engine.infer(padded(samples[index]))
            assert near(mine["tags"], theirs["tags"][0, : tokens(samples[index])])
            assert near(mine["topic"], theirs["topic"][0])
    words = f"{sum(map(tokens, samples)):,} tokens, which are {60 * LONGEST:,} when all are padded to {LONGEST}"
    assert words in subject.notes[0]
    assert "each at its own length" in subject.data


def test_like_lengths_share_a_call_and_none_is_longer_than_it_must_be(tmp_path: Path) -> None:
    subject, _ = answered(tagger(tmp_path / "tagger.onnx", LONGEST), texts(100, padded=True))
    feeds = subject.feeds("search", fp32, subject.count("search"), 8)
    assert [len(feed["tokens"]) for feed in feeds[:-1]] == [8] * (len(feeds) - 1)
    ran = sum(feed["tokens"].size for feed in feeds)
    own = sum(int(feed["token_mask"].sum()) for feed in feeds)
    assert own <= ran < own + subject.count("search") * 2 * STEP


@pytest.mark.parametrize("length", [LONGEST, "L"])
def test_a_network_that_does_not_heed_its_mask_is_run_as_its_samples_came(
    tmp_path: Path, length: int | str
) -> None:
    path, samples = tagger(tmp_path / "tagger.onnx", length, heeds=False), texts(60, padded=True)
    subject, seen = answered(path, samples)
    assert subject.model == path
    assert "its output tags would change by" in subject.notes[0]
    with fp32(path) as engine:
        for index, mine in seen.items():
            theirs = engine.infer({name: array[None] for name, array in samples[index].items()})
            assert near(mine["tags"], theirs["tags"][0])


def test_without_a_heeded_mask_only_samples_of_one_length_share_a_call(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", "L", heeds=False)
    subject, _ = answered(path, texts(60, padded=False))
    feeds = subject.feeds("search", fp32, subject.count("search"), 8)
    assert all(feed["token_mask"].all() for feed in feeds)
    assert max(len(feed["tokens"]) for feed in feeds) > 1
    assert subject.batches == (1,)


def test_samples_too_short_for_a_network_that_cannot_be_made_free_are_told(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", LONGEST, heeds=False)
    with pytest.raises(DataError, match=r"not all have the 64 tokens .* its output tags would change"):
        answered(path, texts(40, padded=False))
    long = [*texts(40, padded=True), {name: np.ones(65, np.int64) for name in ("tokens", "token_mask")}]
    with pytest.raises(DataError, match="sample 40: has 65 tokens, the network takes 1 to 64"):
        answered(path, long)


def test_weights_that_are_missing_are_told(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", LONGEST)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelInvalid, match=r"w\.bin"):
        answered(path, texts(40, padded=True))


def test_two_masks_are_noted(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", LONGEST)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("mask_of_others", TensorProto.INT64, ["B", LONGEST]))
    onnx.save(model, path)
    samples = [{**sample, "mask_of_others": sample["token_mask"]} for sample in texts(40, padded=True)]
    subject, _ = answered(path, samples)
    assert subject.model == path
    assert "padding and all, and only those of one length together: no input, or more than one" in subject.notes[0]


def test_a_batch_of_a_fixed_number_is_noted(tmp_path: Path) -> None:
    samples = texts(80, padded=True)
    pairs = [
        {name: np.stack([one[name], other[name]]) for name in one}
        for one, other in zip(samples[::2], samples[1::2], strict=True)
    ]
    subject, seen = answered(tagger(tmp_path / "tagger.onnx", LONGEST, 2), pairs)
    assert "it takes so many at a time" in subject.notes[0]
    assert {answer["tags"].shape for answer in seen.values()} == {(2, LONGEST, 3)}


def test_what_has_no_tokens_says_nothing_of_them(tmp_path: Path) -> None:
    assert not answered(perceptron(tmp_path / "plain.onnx"), vectors(40))[0].notes
    full = [{name: array[:3] for name, array in sample.items()} for sample in texts(40, padded=False)]
    assert not answered(tagger(tmp_path / "tagger.onnx", "L"), full)[0].notes


def test_agreement_is_of_a_samples_own_tokens(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", LONGEST)
    subject = OwnModel(path, texts(40, padded=True), None, tmp_path / "search")
    wanted = subject._wanted("search", 10)
    lengths = [subject._samples.looks[index].own for index in subject._parts["search"][:10]]
    assert [len(answer["tags"]) for answer in wanted] == lengths
    assert agreement(wanted, wanted, None).value == 100


def test_the_product_is_served_for_any_length_and_still_the_old_one(tmp_path: Path) -> None:
    path = tagger(tmp_path / "tagger.onnx", LONGEST, whole=TensorProto.INT32)
    samples = texts(60, padded=True)
    found = septet.optimize(path, data=samples, output=tmp_path / "s", repository=tmp_path / "m", minutes=1e-9)
    assert "dims: [ -1 ]" in (found.entry / "config.pbtxt").read_text()
    assert any("sequences at their own length" in note for note in found.ledger.notes)
    short, other = ({n: a[: tokens(sample)] for n, a in sample.items()} for sample in samples[1:3])
    pair = [padded(sample, np.int32) for sample in (short, other)]
    with fp32(path) as engine:
        wanted = engine.infer(pair[0])["tags"][0, : tokens(short)]
    with served(tmp_path / "m") as core:
        for batch in (
            {name: array[None].astype(np.int32) for name, array in short.items()},
            pair[0],
            {name: np.concatenate([one[name] for one in pair]) for name in short},
        ):
            assert near(ask(core, "tagger", batch).outputs["tags"][0, : tokens(short)], wanted)


def inverted(sample: Tensors) -> Tensors:
    return {**sample, "token_mask": 1 - sample["token_mask"]}


def of_a_prompt(sample: Tensors) -> Tensors:
    """Its mask says what of it is the prompt; the rest are tokens too."""
    whole = np.arange(LONGEST)
    return {"tokens": (whole * int(sample["token_mask"].sum())) % 50, "token_mask": (whole < 3).astype(np.int64)}


def counting(sample: Tensors) -> Tensors:
    return {**sample, "token_mask": sample["token_mask"].cumsum() * sample["token_mask"]}


@pytest.mark.parametrize("length", [LONGEST, "L"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (inverted, "token_mask is not 1 for tokens and 0 for padding"),
        (counting, "token_mask is not 1 for tokens and 0 for padding"),
        (of_a_prompt, "tokens is not the same wherever the mask is 0"),
    ],
)
def test_a_mask_that_does_not_say_what_is_padding_cuts_nothing(
    tmp_path: Path, length: int | str, change: Callable[[Tensors], Tensors], why: str
) -> None:
    path = tagger(tmp_path / "tagger.onnx", length)
    subject, seen = answered(path, [change(sample) for sample in texts(60, padded=True)])
    assert subject.model == path
    assert {len(answer["tags"]) for answer in seen.values()} == {LONGEST}
    assert why in subject.notes[0]


def test_samples_that_differ_where_the_mask_is_0_are_not_the_same(tmp_path: Path) -> None:
    (first, *_) = samples = texts(40, padded=True)
    some = {"tokens": first["tokens"].copy(), "token_mask": (np.arange(LONGEST) < 60).astype(np.int64)}
    others = [{**some, "tokens": np.where(np.arange(LONGEST) < 60, some["tokens"], each)} for each in range(40)]
    subject, _ = answered(tagger(tmp_path / "tagger.onnx", "L"), [*samples, *others])
    assert not any("left out" in note for note in subject.notes)


def test_what_was_made_free_is_found_again(tmp_path: Path) -> None:
    path, samples = tagger(tmp_path / "tagger.onnx", LONGEST), texts(40, padded=True)
    first, second = (OwnModel(path, samples, None, tmp_path / "search") for _ in range(2))
    assert first.model == second.model != path
    assert len(list((tmp_path / "search").iterdir())) == 1
