# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import jiwer
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, ModelInvalid, UsageError
from septet.pipelines.audio import FEATURES, RATE, features
from septet.tensor import Array
from septet.workloads.graph import flops, parameters
from septet.workloads.greedy import MOST, Greedy
from septet.workloads.librispeech import LibriSpeech, right_words, text_of
from septet.workloads.rnnt import MadeUpSpeech, Rnnt
from septet.workloads.speech import Utterances, lexicon
from septet.workloads.transducer import BLANK, LABELS, RNNT, RNNT_MINI, Transducer, build, shapes, synthetic
from septet.workloads.workload import Asked, miniatures, open_workload

SMALL = Transducer(hidden=6, predict=5, joint=7)


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def on_onnx(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def test_full_size_counts() -> None:
    sizes = {name: int(np.prod(shape)) for name, shape in shapes(RNNT).items()}
    encoder = sum(size for name, size in sizes.items() if name.startswith("encoder"))
    prediction = sum(size for name, size in sizes.items() if name.startswith("prediction"))
    assert encoder == pytest.approx(42.967e6, rel=1e-4)
    assert prediction == pytest.approx(1.652e6, rel=1e-3)
    assert sum(sizes.values()) - encoder - prediction == pytest.approx(0.704e6, rel=1e-3)
    model = build(RNNT, synthetic(RNNT, 0))
    assert parameters(model) == sum(sizes.values()) == Rnnt.card.full.parameters
    assert flops(model, T=208, T2=104) == pytest.approx(11.86e9, rel=1e-2)  # 6.25 s; 11.75 G and the joint's half
    assert RNNT_MINI.hidden < RNNT.hidden


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def lstm(
    weights: dict[str, Array], name: str, layer: int, x: Array, state: tuple[Array, Array]
) -> tuple[Array, Array]:
    """One step of one layer, as torch's documentation defines it."""
    hidden, cell = state
    gates = x @ weights[f"{name}.weight_ih_l{layer}"].T + weights[f"{name}.bias_ih_l{layer}"]
    gates = gates + hidden @ weights[f"{name}.weight_hh_l{layer}"].T + weights[f"{name}.bias_hh_l{layer}"]
    i, f, g, o = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def encoded_by_hand(weights: dict[str, Array], frames: Array) -> Array:
    """One utterance, layer by layer and step by step: float64 [⌈T ÷ 2⌉, joint]."""

    def run(name: str, layers: int, x: Array) -> Array:
        for layer in range(layers):
            width = weights[f"{name}.weight_hh_l{layer}"].shape[1]
            state = np.zeros(width), np.zeros(width)
            steps = []
            for step in x:
                state = lstm(weights, name, layer, step, state)
                steps.append(state[0])
            x = np.array(steps)
        return x

    x = run("encoder.pre_rnn", 2, frames)
    if len(x) % 2:
        x = np.concatenate([x, np.zeros_like(x[:1])])
    x = run("encoder.post_rnn", 3, x.reshape(len(x) // 2, -1))
    return np.asarray(x @ weights["joint.encoder.weight"].T + weights["joint.encoder.bias"])


def decoded_by_hand(weights: dict[str, Array], encoded: Array) -> list[int]:
    """One utterance, symbol by symbol, as the reference's words say."""
    width = weights["prediction.embed.weight"].shape[1]

    def advance(x: Array, states: list[tuple[Array, Array]]) -> tuple[Array, list[tuple[Array, Array]]]:
        after = []
        for layer, state in enumerate(states):
            after.append(lstm(weights, "prediction.rnn", layer, x, state))
            x = after[-1][0]
        return x, after

    zeros = [(np.zeros(width), np.zeros(width))] * 2
    predicted, states = advance(np.zeros(width), zeros)
    text: list[int] = []
    for frame in encoded:
        for _ in range(MOST):
            joint = np.maximum(frame + weights["joint.prediction.weight"] @ predicted, 0)
            best = int((weights["joint.out.weight"] @ joint + weights["joint.out.bias"]).argmax())
            if best == BLANK:
                break
            text.append(best)
            predicted, states = advance(weights["prediction.embed.weight"][best], states)
    return text


def test_the_encoder_is_the_one_described_and_padding_changes_nothing() -> None:
    weights = synthetic(SMALL, 1)
    model = build(SMALL, weights)
    onnx.checker.check_model(model, full_check=True)
    draw = np.random.default_rng(0)
    lengths = np.array([7, 4, 1], np.int32)
    frames = draw.standard_normal((3, 8, FEATURES)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    [encoded] = session.run(None, {"features": frames, "lengths": lengths})
    for row, length in enumerate(lengths):
        wanted = encoded_by_hand(weights, frames[row, :length])
        np.testing.assert_allclose(encoded[row, : len(wanted)], wanted, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**31), st.lists(st.integers(0, 11), min_size=1, max_size=5), st.floats(-3, 6), st.booleans()
)
def test_decoding_in_batches_gives_what_one_at_a_time_gives(
    seed: int, lengths: list[int], blank: float, stuck: bool
) -> None:
    weights = synthetic(SMALL, seed)
    weights["joint.out.bias"][BLANK] = -100 if stuck else blank
    draw = np.random.default_rng(seed)
    encoded = 2 * draw.standard_normal((len(lengths), max(lengths) or 1, SMALL.joint)).astype(np.float32)
    texts = Greedy(weights)(encoded, np.array(lengths))
    for row, length in enumerate(lengths):
        assert texts[row].tolist() == decoded_by_hand(weights, encoded[row, :length])
        assert not stuck or len(texts[row]) == MOST * length


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=7).map(" ".join)


@given(WORDS, WORDS | st.just(""))
def test_right_words_are_jiwers(wanted: str, heard: str) -> None:
    words = len(wanted.split())
    assert right_words(wanted, heard) == pytest.approx(words - words * jiwer.wer(wanted, heard))


def test_synthetic_weights_speak_about_as_much_as_people() -> None:
    workload = open_workload("rnnt", "full", Asked(weights="synthetic"))
    assert (workload.origin, workload.scored, workload.notes) == (
        "synthetic",
        False,
        ("synthetic weights: speed only",),
    )
    samples = [workload.sample(index) for index in range(3)]
    frames = sum(len(features(sample["audio"])) / 2 for sample in samples)
    with workload.predictor(on_onnx) as predict:
        rows = predict(workload.collate(samples))
    assert 0.3 < sum(map(len, rows)) / frames < 3


def test_made_up_utterances_are_as_long_as_real_ones() -> None:
    speech = MadeUpSpeech()
    seconds = np.array([len(speech.wave(index)) / RATE for index in range(len(speech))])
    assert seconds.mean() == pytest.approx(6.25, rel=0.1)
    assert np.median(seconds) == pytest.approx(5.5, rel=0.1)
    assert seconds.max() <= 15
    with pytest.raises(DataError):
        speech.text(0)


@pytest.mark.skipif("rnnt" not in miniatures(), reason="RNN-T's miniature has no trained weights yet")
def test_the_miniature_hears_most_words_and_the_batch_does_not_matter() -> None:
    mini = open_workload("rnnt", "mini", Asked())
    utterances = Utterances("test")
    samples = [mini.sample(index) for index in range(60)]
    with mini.predictor(on_onnx) as predict:
        together = predict(mini.collate(samples))
        apart = [predict(mini.collate([sample]))[0] for sample in samples[:10]]
    assert [row.tolist() for row in together[:10]] == [row.tolist() for row in apart]
    texts = [utterances.spoken(index).text for index in range(60)]
    right = sum(right_words(text, text_of(row)) for text, row in zip(texts, together, strict=True))
    assert 0.8 < right / sum(len(text.split()) for text in texts) < 0.995


@pytest.mark.skipif("rnnt" not in miniatures(), reason="RNN-T's miniature has no trained weights yet")
def test_the_score_is_jiwers_over_all_utterances() -> None:
    mini = open_workload("rnnt", "mini", Asked())
    utterances = Utterances("test")
    texts = [utterances.spoken(index).text for index in range(len(mini))]
    heard = [text if index % 3 else text[2:] + " a" for index, text in enumerate(texts)]
    rows = {index: bytes(LABELS.index(letter) for letter in text) for index, text in enumerate(heard)}
    score = mini.score(rows)
    assert score.value == pytest.approx(100 - 100 * jiwer.wer(texts, heard))
    assert score.low < score.value < score.high
    with pytest.raises(DataError, match="sample 3 has no answer"):
        mini.score({index: row for index, row in rows.items() if index != 3})


def test_utterances_are_drawn_from_split_and_index() -> None:
    one, again = Utterances("test").spoken(5), Utterances("test").spoken(5)
    assert np.array_equal(one.wave, again.wave)
    assert set(one.text) <= set(LABELS)
    assert set(one.text.split()) <= set(lexicon())
    assert len(one.spans) == len(one.text)
    assert one.spans[-1][1] <= len(one.wave)
    assert not np.array_equal(one.wave[:1_000], Utterances("train").spoken(5).wave[:1_000])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two utterances and one that is too long, in the official layout."""
    place = tmp_path / "84" / "121"
    place.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, seconds in enumerate((1.0, 2.0, 16.0)):
        wave = 0.1 * draw.standard_normal(int(seconds * RATE))
        soundfile.write(place / f"84-121-000{number}.flac", wave, RATE)
    lines = [f"84-121-000{number} GO DON'T STOP" for number in range(3)]
    (place / "84-121.trans.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_official_layout_is_read_and_long_utterances_are_left_out(folder: Path) -> None:
    speech = LibriSpeech(folder)
    assert len(speech) == 2
    assert speech.text(1) == "go don't stop"
    assert len(speech.wave(1)) == 2 * RATE


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("84-121-0009 NO SUCH FILE", "line 4: .*84-121-0009.flac: no such audio"),
        ("84-121-0002", "line 4: 84-121-0002 has no text"),
        ("84-121-0001 OR GO ON", "line 4: 84-121-0001 has a text already"),
        ("../121/84-121-0002 GO", "line 4: ../121/84-121-0002 is not the name of an utterance"),
        ("84-121-0002 AT 9", "line 4: no label for '9'"),
    ],
)
def test_bad_transcripts_are_named(folder: Path, line: str, says: str) -> None:
    path = folder / "84" / "121" / "84-121.trans.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=says):
        LibriSpeech(folder)


def test_transcripts_that_are_no_text_are_named(folder: Path) -> None:
    path = folder / "84" / "121" / "84-121.trans.txt"
    path.write_bytes(b"84-121-0000 D\xc9J\xc0\n")
    with pytest.raises(DataError, match=r"84-121\.trans\.txt: not text in UTF-8 \(byte 13\)"):
        LibriSpeech(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"84-121\.trans\.txt: Is a directory"):
        LibriSpeech(folder)


def test_audio_without_text_and_empty_folders_are_told(folder: Path, tmp_path: Path) -> None:
    soundfile.write(folder / "84" / "121" / "extra.flac", np.ones(400) / 2, RATE)
    with pytest.raises(DataError, match=r"extra\.flac: has no transcript"):
        LibriSpeech(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no transcript"):
        LibriSpeech(tmp_path / "empty")


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(build(SMALL, synthetic(SMALL, 0)), path)
    with pytest.raises(ModelInvalid, match=r"not features, lengths -> encoded \[\?, \?, 512\]"):
        open_workload("rnnt", "full", Asked(weights=str(path)))
    with pytest.raises(UsageError, match="bring it as ONNX with --weights FILE"):
        open_workload("rnnt", "full", Asked(weights="official"))
