# SPDX-License-Identifier: Apache-2.0
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.errors import DataError
from septet.pipelines.audio import RATE, features, log_mel, read
from septet.tensor import Array

LIBRIVOX = Path(__file__).parents[4] / "shared" / "data" / "librivox"


def mel_table() -> Array:
    """Slaney's triangles, one by one, from the definition."""

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1_000 * 6.4 ** ((mel - 15) / 27)

    highest = 15 + 27 * np.log(8) / np.log(6.4)
    ends = [hertz(highest * place / 81) for place in range(82)]
    table = np.zeros((257, 80))
    for mel in range(80):
        low, middle, high = ends[mel : mel + 3]
        for place in range(257):
            at = place * RATE / 512
            height = min((at - low) / (middle - low), (high - at) / (high - middle))
            table[place, mel] = max(0.0, height) * 2 / (high - low)
    return table


def by_hand(wave: Array) -> Array:
    """The features in float64, frame by frame, from the words of the reference's configuration."""
    x = wave.astype(float)
    x = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    padded = np.pad(x, 256, mode="reflect")
    window = np.zeros(512)
    window[96:416] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 319)
    table = mel_table()
    frames = []
    for begin in range(0, len(padded) - 512 + 1, 160):
        power = np.abs(np.fft.fft(padded[begin : begin + 512] * window)[:257]) ** 2 + 1e-10
        frames.append(np.log(power @ table + 1e-20))
    count = ceil(ceil(len(wave) / 160) / 3)
    frames += [np.zeros(80)] * 3
    spliced = np.array([np.concatenate(frames[3 * k : 3 * k + 3]) for k in range(count)])
    return np.asarray((spliced - spliced.mean(0)) / (spliced.std(0, ddof=1) + 1e-5))


@settings(deadline=None, max_examples=15)
@given(st.integers(1_000, 9_000), st.integers(0, 2**31))
def test_features_are_what_the_words_say(length: int, seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(length).astype(np.float32) * np.float32(0.1)
    ours = features(wave)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, by_hand(wave), atol=2e-3)


def test_a_tone_is_loudest_where_it_lies() -> None:
    wave = np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE).astype(np.float32)
    assert abs(int(log_mel(wave).mean(axis=0).argmax()) - int(mel_table()[32].argmax())) <= 1


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_files_are_read(tmp_path: Path, suffix: str) -> None:
    wave = (0.3 * np.sin(np.arange(4_000) / 9)).astype(np.float32)
    soundfile.write(tmp_path / f"a.{suffix}", wave, RATE)
    np.testing.assert_allclose(read(tmp_path / f"a.{suffix}"), wave, atol=1e-4)


def test_bad_audio_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    for name, wave, rate, says in (
        ("rate", noise, 8_000, "8,000 samples a second, not 16,000"),
        ("stereo", np.stack([noise, noise], 1), RATE, "2 channels"),
        ("silent", np.zeros(4_000), RATE, "silent"),
        ("short", noise[:100], RATE, "less than one window"),
        ("empty", noise[:0], RATE, "less than one window"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", wave, rate)
        with pytest.raises(DataError, match=rf"{name}\.wav: .*{says}"):
            read(tmp_path / f"{name}.wav")
    soundfile.write(tmp_path / "nan.wav", np.append(noise, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav: some samples are not finite"):
        read(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "huge.wav", np.append(noise, -1e25), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"huge\.wav: a sample is -1e\+25, where full scale is 1"):
        read(tmp_path / "huge.wav")
    (tmp_path / "text.flac").write_text("no sound")
    for name in ("text.flac", "none.wav"):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_wav_that_is_cut_short_is_named(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 4_000), RATE, subtype=subtype)
    whole = path.read_bytes()
    for keep in (len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"a\.wav: cut short: [\d,]+ bytes of sound are said"):
            read(path)
    path.write_bytes(whole + b"LIST\x04\0\0\0more")
    assert len(read(path)) == 4_000


@pytest.mark.skipif(not LIBRIVOX.is_dir(), reason="needs read sentences, which are not here")
def test_real_sentences_have_the_same_features() -> None:
    for path in sorted(LIBRIVOX.rglob("*.wav")):
        wave = read(path)
        np.testing.assert_allclose(features(wave), by_hand(wave), atol=5e-3)
