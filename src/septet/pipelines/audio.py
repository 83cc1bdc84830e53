# SPDX-License-Identifier: Apache-2.0
"""Speech to features, as the v0.7 reference does it for RNN-T: log-mel frames, spliced by three, normalised.

Source: mlcommons/inference v0.7.1, speech_recognition/rnnt, pytorch/rnnt.toml and its preprocessing.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from os import SEEK_END
from pathlib import Path
from struct import unpack

import numpy as np
import scipy.fft
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

from septet.errors import DataError
from septet.tensor import Array

RATE = 16_000
WINDOW, HOP, POINTS = 320, 160, 512
MELS = 80
SPLICED = 3
FEATURES = MELS * SPLICED
PREEMPHASIS = 0.97
DITHER = 1e-5
_FLOOR = 1e-20
_TINY = 1e-5
_BLOCK = 256
"""Frames at a time: few enough for the processor's cache, which makes the whole half as fast again."""

_LOUDEST = 2.0**31
"""Full scale is 1, or that of whole numbers that were stored as floats as they are; what is beyond is no sound."""


def features(wave: Array) -> Array:
    """The features of one utterance, float32 [samples] at 16 kHz -> float32 [frames, 240], one each 30 ms.

    There are ⌈⌈samples ÷ 160⌉ ÷ 3⌉ frames. Each feature has mean 0 and unbiased deviation 1 over them. The
    reference adds 1e-5 to the deviations once for each utterance of a batch; here it is once.
    """
    count = ceil(ceil(len(wave) / HOP) / SPLICED)
    frames = log_mel(wave)[: count * SPLICED]
    if len(frames) < count * SPLICED:
        frames = np.pad(frames, ((0, count * SPLICED - len(frames)), (0, 0)))
    spliced = frames.reshape(count, FEATURES)
    spliced -= spliced.mean(axis=0)
    spread = np.sqrt(np.einsum("ij,ij->j", spliced, spliced) / np.float32(max(count - 1, 1)))
    spliced /= spread + np.float32(_TINY)
    return spliced


def log_mel(wave: Array) -> Array:
    """The logarithm of the mel spectrum, float32 [samples] -> float32 [1 + samples ÷ 160, 80], one each 10 ms."""
    emphasised = wave.copy()
    emphasised[1:] -= np.float32(PREEMPHASIS) * wave[:-1]
    # a window of 320 in the middle of 512 points sees 160 samples to either side of its centre
    framed = sliding_window_view(np.pad(emphasised, WINDOW // 2, mode="reflect"), WINDOW)[::HOP]
    mel = np.empty((len(framed), MELS), np.float32)
    for begin in range(0, len(framed), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        spectrum = scipy.fft.rfft(framed[block] * _window(), POINTS, axis=1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        power += np.float32(DITHER**2)
        np.matmul(power, _mel_filters(), out=mel[block])
    mel += np.float32(_FLOOR)
    return np.log(mel, out=mel)


@cache
def _window() -> Array:
    """Hann's window, both ends zero."""
    return np.hanning(WINDOW).astype(np.float32)


@cache
def _mel_filters() -> Array:
    """Triangles on Slaney's mel scale, each of area 1: float32 [257, 80].

    The scale is linear below 1 kHz, 15 mel to it, and logarithmic above, 27 mel to a factor of 6.4 (Slaney,
    «Auditory Toolbox», 1998).
    """
    ends = _hertz(np.linspace(_mel(0.0), _mel(RATE / 2), MELS + 2))
    bins = np.linspace(0, RATE / 2, POINTS // 2 + 1)[:, None]
    rising = (bins - ends[:-2]) / (ends[1:-1] - ends[:-2])
    falling = (ends[2:] - bins) / (ends[2:] - ends[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (ends[2:] - ends[:-2])
    return np.ascontiguousarray(filters, np.float32)


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1_000 else 15 + 27 * float(np.log(hertz / 1_000) / np.log(6.4))


def _hertz(mel: Array) -> Array:
    return np.asarray(np.where(mel < 15, mel * 200 / 3, 1_000 * 6.4 ** ((mel - 15) / 27)))


def read(path: Path) -> Array:
    """The samples of an audio file, float32 [samples].

    Raises DataError, naming the file, for one that is unreadable, cut short, not 16 kHz, not of one channel, too
    short, silent, or holds what is no number or beyond all scales.
    """
    _require_whole(path)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path}: not a readable audio file: {error}") from error
    if rate != RATE:
        raise DataError(f"{path}: {rate:,} samples a second, not {RATE:,}")
    if samples.shape[1] != 1:
        raise DataError(f"{path}: {samples.shape[1]} channels, not one")
    if len(samples) < WINDOW:
        raise DataError(f"{path}: {len(samples)} samples are less than one window of {WINDOW}")
    if not np.isfinite(samples).all():
        raise DataError(f"{path}: some samples are not finite numbers")
    if np.abs(samples).max() > _LOUDEST:
        raise DataError(f"{path}: a sample is {samples.flat[np.abs(samples).argmax()]:g}, where full scale is 1")
    if not samples.any():
        raise DataError(f"{path}: silent from end to end")
    return np.ascontiguousarray(samples[:, 0])


def _require_whole(path: Path) -> None:
    """Raise DataError where a WAV file is shorter than it says: its decoder takes what is there and does not tell.

    Source: Microsoft and IBM, «Multimedia Programming Interface and Data Specifications 1.0», 1991: chunks of four
    letters, a size of four bytes and as many bytes, filled up to an even number.
    """
    try:
        with path.open("rb") as file:
            if file.read(12)[:4] != b"RIFF":
                return
            length = file.seek(0, SEEK_END)
            at = 12
            while at + 8 <= length:
                file.seek(at)
                name, size = unpack("<4sI", file.read(8))
                at += 8 + size
                if name == b"data" and at > length:
                    raise DataError(
                        f"{path}: cut short: {size:,} bytes of sound are said, {length - at + size:,} are there"
                    )
                at += size % 2
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
