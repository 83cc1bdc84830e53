# SPDX-License-Identifier: Apache-2.0
"""Train RNN-T's miniature on spoken strings: ``make train NETWORK=rnnt``.

The torch module mirrors `septet.workloads.transducer` weight for weight. Beside the transducer's loss stands a
cross-entropy of each frame with the letter spoken then, which the generator knows: without it small transducers do
not begin to learn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from septet.pipelines.audio import FEATURES, HOP, SPLICED, features
from septet.tensor import Array
from septet.workloads.accuracy import ratio
from septet.workloads.greedy import Greedy
from septet.workloads.librispeech import right_words, text_of
from septet.workloads.speech import Split, Spoken, Utterances
from septet.workloads.transducer import AFTER, BEFORE, BLANK, LABELS, PREDICTING, RNNT_MINI, Transducer, shapes

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F  # noqa: N812
except ModuleNotFoundError:
    sys.exit("Training needs torch: pip install 'septet[train]'")

SHIPPED = Path(__file__).parents[1] / "src/septet/workloads/data/rnnt-mini.npz"

BATCH = 16
STEPS = 2_200
PEAK_RATE = 3e-3
WEIGHT_DECAY = 1e-3
FRAMEWISE = 1.0
"""The weight of the frames' cross-entropy."""

CLIP = 1.0


class Network(nn.Module):
    """`net` in torch, and a layer that names the letter of each frame, which only training uses."""

    def __init__(self, net: Transducer) -> None:
        super().__init__()
        self.pre = nn.LSTM(FEATURES, net.hidden, BEFORE, batch_first=True)
        self.post = nn.LSTM(2 * net.hidden, net.hidden, AFTER, batch_first=True)
        self.embed = nn.Embedding(BLANK, net.predict)
        self.predictor = nn.LSTM(net.predict, net.predict, PREDICTING, batch_first=True)
        self.joint_encoder = nn.Linear(net.hidden, net.joint)
        self.joint_prediction = nn.Linear(net.predict, net.joint, bias=False)
        self.joint_out = nn.Linear(net.joint, BLANK + 1)
        self.framewise = nn.Linear(net.hidden, BLANK + 1)

    def encode(self, frames: Tensor) -> Tensor:
        """float32 [N, T, 240], T even -> [N, T ÷ 2, hidden]; padding reaches no frame of an utterance."""
        x, _ = self.pre(frames)
        x, _ = self.post(x.reshape(x.shape[0], x.shape[1] // 2, -1))
        return x

    def weigh(self, encoded: Tensor, symbols: Tensor) -> Tensor:
        """Log-chances of each symbol at each frame after each prefix: [N, T, U + 1, symbols]."""
        texts = F.pad(self.embed(symbols), (0, 0, 1, 0))  # decoding starts from a vector of zeros
        predicted, _ = self.predictor(texts)
        both = self.joint_encoder(encoded)[:, :, None] + self.joint_prediction(predicted)[:, None]
        return self.joint_out(F.relu(both)).log_softmax(3)


def transducer_loss(chances: Tensor, symbols: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """The mean of −log P(text) over all alignments: Graves 2012, equations 16 and 17, a frame at a time.

    Within a frame the recursion over symbols is a running sum: α(u) = E(u) + log Σ_{v ≤ u} exp(a(v) − E(v)), where
    a comes from the frame before and E adds up the symbols' log-chances.
    """
    blank = chances[..., BLANK]
    emit = chances[:, :, :-1].gather(3, symbols[:, None, :, None].expand(-1, chances.shape[1], -1, 1))[..., 0]
    sums = F.pad(emit.cumsum(2), (1, 0))
    alpha = sums[:, 0]
    ends = []
    rows = torch.arange(len(chances))
    for frame in range(chances.shape[1]):
        if frame:
            alpha = sums[:, frame] + torch.logcumsumexp(alpha + blank[:, frame - 1] - sums[:, frame], 1)
        ends.append(alpha[rows, lengths] + blank[rows, frame, lengths])
    return -(torch.stack(ends, 1)[rows, frames - 1] / (lengths + 1)).mean()


Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def collated(spoken: Sequence[Spoken]) -> Batch:
    """Features [N, T, 240], symbols [N, U], their frames [N] and lengths [N], letters of frames [N, T ÷ 2]."""
    frames = [features(one.wave) for one in spoken]
    longest = max(map(len, frames))
    longest += longest % 2
    padded = np.stack([np.pad(one, ((0, longest - len(one)), (0, 0))) for one in frames])
    texts = [[LABELS.index(letter) for letter in one.text] for one in spoken]
    most = max(map(len, texts))
    symbols = np.array([text + [0] * (most - len(text)) for text in texts])
    letters = np.full((len(spoken), longest // 2), BLANK)
    for row, (one, text) in enumerate(zip(spoken, texts, strict=True)):
        for (begin, end), symbol in zip(one.spans, text, strict=True):
            letters[row, begin // _STEP : -(-end // _STEP)] = symbol
    counts = np.array([(len(one) + 1) // 2 for one in frames])
    lengths = np.array([len(text) for text in texts])
    tensor = torch.from_numpy
    return tensor(padded), tensor(symbols), tensor(counts), tensor(lengths), tensor(letters)


_STEP = HOP * SPLICED * 2
"""Samples of an encoder frame."""


def batches(steps: int) -> Iterator[Batch]:
    """Fresh utterances for each step, drawn one step ahead on another thread."""
    utterances = Utterances("train")

    def draw(step: int) -> Batch:
        return collated([utterances.spoken(index) for index in range(step * BATCH, (step + 1) * BATCH)])

    with ThreadPoolExecutor(1) as ahead:
        drawn = [ahead.submit(draw, step) for step in range(min(2, steps))]
        for step in range(steps):
            batch = drawn.pop(0).result()
            if step + 2 < steps:
                drawn.append(ahead.submit(draw, step + 2))
            yield batch


def train(net: Transducer, steps: int, seed: int) -> Network:
    """Train from scratch: AdamW, one cycle of the learning rate."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    network = Network(net)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=max(steps, 2), pct_start=0.2)
    start = time.perf_counter()
    for step, (frames, symbols, counts, lengths, letters) in enumerate(batches(steps), 1):
        encoded = network.encode(frames)
        loss = transducer_loss(network.weigh(encoded, symbols), symbols, counts, lengths)
        named = F.cross_entropy(network.framewise(encoded).flatten(0, 1), letters.flatten())
        optimiser.zero_grad()
        (loss + FRAMEWISE * named).backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        cycle.step()
        if step % 100 == 0 or step == steps:
            left = (time.perf_counter() - start) / step * (steps - step)
            words = f"loss {loss.item():.3f}, frames {named.item():.3f}, about {left:.0f} s left"
            print(f"step {step} of {steps}: {words}", flush=True)
    return network.eval()


def weights_of(network: Network, net: Transducer) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, in float16, which costs no accuracy."""
    renamed = {"pre.": "encoder.pre_rnn.", "post.": "encoder.post_rnn.", "embed.": "prediction.embed."}
    renamed |= {"predictor.": "prediction.rnn.", "joint_encoder.": "joint.encoder."}
    renamed |= {"joint_prediction.": "joint.prediction.", "joint_out.": "joint.out."}
    state = {}
    for name, tensor in network.state_dict().items():
        for old, new in renamed.items():
            if name.startswith(old):
                state[new + name.removeprefix(old)] = tensor.numpy().astype(np.float16)
    return {name: state[name] for name in shapes(net)}


def accuracy(network: Network, net: Transducer, split: Split, count: int) -> str:
    """100 − WER in % over `count` utterances of `split`, with its 95 % interval, in words."""
    decode = Greedy({name: array.astype(np.float32) for name, array in weights_of(network, net).items()})
    utterances, right, words = Utterances(split), [], []
    with torch.inference_mode():
        for begin in range(0, count, 50):
            spoken = [utterances.spoken(index) for index in range(begin, min(begin + 50, count))]
            frames, _, counts, _, _ = collated(spoken)
            encoded = network.joint_encoder(network.encode(frames)).numpy()
            for one, symbols in zip(spoken, decode(encoded, counts.numpy()), strict=True):
                right.append(right_words(one.text, text_of(symbols)))
                words.append(len(one.text.split()))
    score = ratio("100 − WER", "%", np.array(right, float), np.array(words, float), scale=100.0)
    return f"100 − WER on {split}: {score.value:.2f} % ({score.low:.2f} … {score.high:.2f}), {count} utterances"


def main() -> None:
    """Train, print the word accuracy, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="FILE")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    network = train(RNNT_MINI, asked.steps, asked.seed)
    for split in ("search", "test"):
        print(accuracy(network, RNNT_MINI, split, 500), flush=True)
    arrays: dict[str, Any] = weights_of(network, RNNT_MINI)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(asked.out, **arrays)
    print(f"saved: {asked.out}, {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
