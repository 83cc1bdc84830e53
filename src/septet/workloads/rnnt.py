# SPDX-License-Identifier: Apache-2.0
"""RNN-T on LibriSpeech, and its trained miniature on spoken strings of an invented tongue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import onnx
from onnx import numpy_helper

from septet.engines.engine import LoadEngine
from septet.engines.model import OnnxFile
from septet.errors import DataError, ModelInvalid, UsageError
from septet.pipelines.audio import FEATURES, RATE, features
from septet.score import Score, ratio
from septet.tensor import Array, Tensors
from septet.workloads import transducer
from septet.workloads.card import Card, Counts
from septet.workloads.greedy import Greedy
from septet.workloads.librispeech import LONGEST, LibriSpeech, right_words, text_of
from septet.workloads.predictor import Numbers, Predictor, Rows
from septet.workloads.speech import Utterances
from septet.workloads.split import Split
from septet.workloads.transducer import RNNT, RNNT_MINI, Transducer
from septet.workloads.weights import SYNTHETIC_NOTE, Found, built, given, trained
from septet.workloads.workload import Asked, Size, Workload

SEED = 7
MADE_UP = 256
MEDIAN_SECONDS, SPREAD = 5.5, 0.506
"""Of made-up utterances, whose lengths are log-normal: with a mean of 6.25 s, as LibriSpeech's dev-clean has."""


class Speech(Protocol):
    """Utterances: of LibriSpeech, of the invented tongue, or noise."""

    words: str
    labelled: bool

    def __len__(self) -> int: ...

    def wave(self, index: int) -> Array:
        """Utterance `index`, float32 [samples] at 16 kHz."""

    def text(self, index: int) -> str:
        """What is said in it; only where `labelled`."""


class SpokenStrings:
    """The miniature's utterances."""

    labelled = True

    def __init__(self, split: Split, count: int | None = None) -> None:
        self._utterances = Utterances(split, count)
        self.words = f"spoken strings of an invented tongue, {split} split, {len(self):,} utterances"

    def __len__(self) -> int:
        return len(self._utterances)

    def wave(self, index: int) -> Array:
        return self._utterances.spoken(index).wave

    def text(self, index: int) -> str:
        return self._utterances.text(index)


class MadeUpSpeech:
    """Seeded noise that comes and goes, as long as utterances are, for speed where no data is given."""

    labelled = False
    words = f"{MADE_UP} made-up utterances, 6.25 s in the mean"

    def __len__(self) -> int:
        return MADE_UP

    def wave(self, index: int) -> Array:
        draw = np.random.default_rng((SEED, index))
        seconds = min(float(draw.lognormal(np.log(MEDIAN_SECONDS), SPREAD)), LONGEST)
        count = int(RATE * max(seconds, 1.3))
        knots = np.arange(0, count + 1_600, 1_600)
        loud = np.interp(np.arange(count), knots, draw.random(len(knots)))
        return (0.1 * loud * draw.standard_normal(count)).astype(np.float32)

    def text(self, index: int) -> str:
        raise DataError("made-up utterances have no text")


class TransducerPredictor(Predictor):
    """From sound to text: features, the encoder on its engine, greedy decoding. v0.7 times all three."""

    def __init__(self, load: LoadEngine, model: Path, net: Transducer) -> None:
        self._engine = load(model)
        self._decode = Greedy(_decoder(model, net))

    def __call__(self, batch: Tensors) -> Rows:
        """The labels of each utterance, uint8."""
        encoded, lengths = self._encoded(*self._framed(batch))
        return self._decode(encoded, lengths)

    def timed(self, batch: Tensors) -> dict[str, float]:
        """Seconds that each part of one call takes: ``features``, ``encoder``, ``decoder``."""
        times = [time.perf_counter()]
        framed = self._framed(batch)
        times.append(time.perf_counter())
        encoded = self._encoded(*framed)
        times.append(time.perf_counter())
        self._decode(*encoded)
        times.append(time.perf_counter())
        parts = ("features", "encoder", "decoder")
        return {part: end - begin for part, (begin, end) in zip(parts, pairwise(times), strict=True)}

    def _framed(self, batch: Tensors) -> tuple[Array, Array]:
        """Features float32 [N, T, 240], T even because two frames become one, and lengths int32 [N]."""
        frames = [features(wave[:length]) for wave, length in zip(batch["audio"], batch["samples"], strict=True)]
        lengths = np.array([len(one) for one in frames], np.int32)
        longest = int(lengths.max())
        padded = np.zeros((len(frames), longest + longest % 2, FEATURES), np.float32)
        for row, one in zip(padded, frames, strict=True):
            row[: len(one)] = one
        return padded, lengths

    def _encoded(self, frames: Array, lengths: Array) -> tuple[Array, Array]:
        """The encoder's frames, float32 [N, T ÷ 2, joint], and how many of each utterance count."""
        outputs = Numbers(self._engine.infer({"features": frames, "lengths": lengths}))
        return outputs["encoded"], (lengths + 1) // 2

    def close(self) -> None:
        self._engine.close()


class Rnnt(Workload):
    """Speech recognition; the metric is 100 − the word error rate, in %."""

    name: ClassVar[str] = "rnnt"
    card: ClassVar[Card] = Card(
        full=Counts(45_323_037, 1.2e10, "an utterance of 6.25 s, the mean"),
        mini=Counts(873_053, 8.9e7, "an utterance of 1.8 s, the mean"),
        official=(),
        bring="LibriSpeech dev-clean as it comes: SPEAKER/CHAPTER/*.flac and *.trans.txt",
        weights="published as a torch file (zenodo.org/record/3662521): bring it as ONNX with --weights FILE, as "
        "docs/weights.md says",
    )

    def __init__(self, size: Size, net: Transducer, found: Found, speech: Speech) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.data = speech.words
        self.notes = found.notes
        _require(found.read(), found.path, net)
        self._net = net
        self._speech = speech

    @classmethod
    def open(cls, size: Size, asked: Asked) -> Rnnt:
        return _mini(asked.split, asked.count) if size == "mini" else _full(asked)

    def __len__(self) -> int:
        return len(self._speech)

    def sample(self, index: int) -> Tensors:
        """The sound as it is, float32 [samples]: v0.7 times the making of features."""
        return {"audio": self._speech.wave(index)}

    def length(self, sample: Tensors) -> int:
        """In quarters of a second: a batch is as long as its longest utterance."""
        return -(-len(sample["audio"]) // (RATE // 4))

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        """``audio`` float32 [N, longest], zeros after each end, and ``samples`` int64 [N]."""
        waves = [sample["audio"] for sample in samples]
        counts = np.array([len(wave) for wave in waves])
        audio = np.zeros((len(waves), counts.max()), np.float32)
        for row, wave in zip(audio, waves, strict=True):
            row[: len(wave)] = wave
        return {"audio": audio, "samples": counts}

    def predictor(self, load: LoadEngine) -> Predictor:
        assert self.model is not None
        return TransducerPredictor(load, self.model, self._net)

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._speech.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """Words less errors, of all words, in %."""
        texts = [self._speech.text(index) for index in range(len(self))]
        return word_accuracy(texts, [np.frombuffer(answer, np.uint8) for answer in self.answers(responses)])


def word_accuracy(texts: Sequence[str], heard: Sequence[Array]) -> Score:
    """Words of `texts` less errors in the labels `heard`, of all words, in %."""
    right = [right_words(text, text_of(labels)) for text, labels in zip(texts, heard, strict=True)]
    words = [len(text.split()) for text in texts]
    return ratio("100 − WER", "%", np.array(right, float), np.array(words, float), scale=100.0)


def _full(asked: Asked) -> Rnnt:
    if asked.weights == "official":
        raise UsageError(f"rnnt: the official weights are {Rnnt.card.weights}")
    speech = LibriSpeech(asked.data) if asked.data else MadeUpSpeech()
    if asked.weights in ("auto", "synthetic"):
        found = Found(built(_write_made_up, f"rnnt-full-synthetic-{SEED}"), "synthetic", (SYNTHETIC_NOTE,))
    else:
        found = given(asked.weights)
    return Rnnt("full", RNNT, found, speech)


def _write_made_up(path: Path) -> None:
    onnx.save(transducer.build(RNNT, transducer.synthetic(RNNT, SEED)), path)


def _mini(split: Split, count: int | None) -> Rnnt:
    found = trained(Rnnt.name, partial(transducer.build, RNNT_MINI))
    return Rnnt("mini", RNNT_MINI, found, SpokenStrings(split, count))


def _require(file: OnnxFile, path: Path, net: Transducer) -> None:
    """Raise ModelInvalid unless the file takes features and lengths and gives what the joint network takes."""
    inputs, outputs = ({spec.name: spec for spec in specs} for specs in (file.inputs, file.outputs))
    encoded = outputs.get("encoded")
    if set(inputs) != {"features", "lengths"} or encoded is None or encoded.shape[-1] != net.joint:
        have = "; ".join(map(str, (*file.inputs, *file.outputs)))
        raise ModelInvalid(f"{path}: has ({have}), not features, lengths -> encoded [?, ?, {net.joint}]")


def _decoder(path: Path, net: Transducer) -> dict[str, Array]:
    """The weights of predictor and joint network, which no node of the graph takes. Raises ModelInvalid."""
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    wanted = {name for name in transducer.shapes(net) if not name.startswith(("encoder", "joint.encoder"))}
    if missing := sorted(wanted - set(stored)):
        raise ModelInvalid(f"{path}: lacks the decoder's weights {', '.join(missing)}")
    return {name: numpy_helper.to_array(stored[name]) for name in wanted}
