# SPDX-License-Identifier: Apache-2.0
"""Train RNN-T's miniature on spoken strings: ``make train NETWORK=rnnt``.

The torch module mirrors `septet.workloads.transducer` weight for weight. Beside the transducer's loss stands a
cross-entropy of each frame with the letter spoken a frame earlier, which the generator knows: without it small
transducers do not begin to learn, and without the delay, which gives a network that cannot look ahead time to hear
the letter, they learn many times slower. It judges the lower layers too, and for the first steps it stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from septet.pipelines.audio import FEATURES, HOP, SPLICED, features
from septet.score import Score
from septet.tensor import Array
from septet.workloads.greedy import Greedy
from septet.workloads.rnnt import word_accuracy
from septet.workloads.speech import Spoken, Utterances
from septet.workloads.transducer import AFTER, BEFORE, BLANK, LABELS, PREDICTING, RNNT_MINI, Transducer, shapes
from training import Losses, asked, drawn_ahead, fit, repeatable, save

BATCH = 16
STEPS = 2_000
PEAK_RATE = 3e-3
WEIGHT_DECAY = 1e-3
ALONE = 0.25
"""The share of the steps in which frames alone are judged."""

EARLY = 0.5
"""The weight of the lower layers' cross-entropy."""

DELAY = 1
"""By how many encoder frames letters are named after they are spoken."""

CLIP = 1.0


class Network(nn.Module):
    """`net` in torch, and two layers that name the letter of each frame, which only training uses."""

    def __init__(self, net: Transducer) -> None:
        super().__init__()
        self.pre = nn.LSTM(FEATURES, net.hidden, BEFORE, batch_first=True)
        self.post = nn.LSTM(2 * net.hidden, net.hidden, AFTER, batch_first=True)
        self.embed = nn.Embedding(BLANK, net.predict)
        self.predictor = nn.LSTM(net.predict, net.predict, PREDICTING, batch_first=True)
        self.joint_encoder = nn.Linear(net.hidden, net.joint)
        self.joint_prediction = nn.Linear(net.predict, net.joint, bias=False)
        self.joint_out = nn.Linear(net.joint, BLANK + 1)
        self.early = nn.Linear(2 * net.hidden, BLANK + 1)
        self.late = nn.Linear(net.hidden, BLANK + 1)

    def encode(self, frames: Tensor) -> Tensor:
        """float32 [N, T, 240], T even -> [N, T ÷ 2, hidden]; padding reaches no frame of an utterance."""
        return self.upper(self.lower(frames))

    def lower(self, frames: Tensor) -> Tensor:
        """The layers before two frames become one: float32 [N, T, 240] -> [N, T ÷ 2, 2 · hidden]."""
        x, _ = self.pre(frames)
        return x.reshape(x.shape[0], x.shape[1] // 2, -1)

    def upper(self, stacked: Tensor) -> Tensor:
        """The layers after: [N, T ÷ 2, 2 · hidden] -> [N, T ÷ 2, hidden]."""
        x, _ = self.post(stacked)
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


class Speech(Protocol):
    """Utterances without end."""

    def spoken(self, index: int) -> Spoken: ...


def collated(spoken: Sequence[Spoken]) -> Batch:
    """Features [N, T, 240], symbols [N, U], their frames [N] and lengths [N], letters of frames [N, T ÷ 2]."""
    frames = [features(one.wave) for one in spoken]
    longest = max(map(len, frames))
    longest += longest % 2
    padded = np.stack([np.pad(one, ((0, longest - len(one)), (0, 0))) for one in frames])
    texts = [[LABELS.index(letter) for letter in one.text] for one in spoken]
    most = max(map(len, texts))
    symbols = np.array([text + [0] * (most - len(text)) for text in texts])
    letters = np.stack([_letters(one, text, longest // 2) for one, text in zip(spoken, texts, strict=True)])
    counts = np.array([(len(one) + 1) // 2 for one in frames])
    lengths = np.array([len(text) for text in texts])
    tensor = torch.from_numpy
    return tensor(padded), tensor(symbols), tensor(counts), tensor(lengths), tensor(letters)


def _letters(one: Spoken, text: list[int], frames: int) -> Array:
    """The letter spoken in each encoder frame's middle, `DELAY` frames later; else the blank: int64 [frames]."""
    middles = (np.arange(frames) + 0.5 - DELAY) * HOP * SPLICED * 2
    place = np.searchsorted([end for _, end in one.spans], middles, side="right")
    letters: Array = np.array([*text, BLANK])[place]
    letters[middles < one.spans[0][0]] = BLANK
    return letters


def batches(utterances: Speech, steps: int) -> Iterator[Batch]:
    """The next utterances for each step."""
    return drawn_ahead(
        lambda step: collated([utterances.spoken(index) for index in range(step * BATCH, (step + 1) * BATCH)]),
        steps,
    )


def train(net: Transducer, utterances: Speech, steps: int, seed: int) -> Network:
    """Train from scratch on the first `BATCH` · `steps` of `utterances`."""
    repeatable(seed, threads=1)
    network = Network(net)

    def losses(step: int, batch: Batch) -> Losses:
        frames, symbols, counts, lengths, letters = batch
        stacked = network.lower(frames)
        encoded = network.upper(stacked)
        parts = {
            "early": EARLY * F.cross_entropy(network.early(stacked).flatten(0, 1), letters.flatten()),
            "late": F.cross_entropy(network.late(encoded).flatten(0, 1), letters.flatten()),
        }
        if step > ALONE * steps:
            parts["loss"] = transducer_loss(network.weigh(encoded, symbols), symbols, counts, lengths)
        return parts

    fit(
        network.parameters(),
        batches(utterances, steps),
        losses,
        steps=steps,
        rate=PEAK_RATE,
        decay=WEIGHT_DECAY,
        clip=CLIP,
    )
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


def accuracy(network: Network, net: Transducer, utterances: Speech, count: int) -> Score:
    """100 − WER in % over the first `count` of `utterances`."""
    decode = Greedy({name: array.astype(np.float32) for name, array in weights_of(network, net).items()})
    texts: list[str] = []
    heard: list[Array] = []
    with torch.inference_mode():
        for begin in range(0, count, 50):
            spoken = [utterances.spoken(index) for index in range(begin, min(begin + 50, count))]
            frames, _, counts, _, _ = collated(spoken)
            encoded = network.joint_encoder(network.encode(frames)).numpy()
            texts += [one.text for one in spoken]
            heard += decode(encoded, counts.numpy())
    return word_accuracy(texts, heard)


def main() -> None:
    """Train, print the word accuracy, save."""
    said = asked(__doc__, "rnnt", seed=9, steps=STEPS)
    network = train(RNNT_MINI, Utterances("train"), said.steps, said.seed)
    for split in ("search", "test"):
        score = accuracy(network, RNNT_MINI, Utterances(split), 500)
        print(f"100 − WER on {split}: {score.value:.2f} % ({score.low:.2f} … {score.high:.2f})", flush=True)
    save(weights_of(network, RNNT_MINI), said.out)


if __name__ == "__main__":
    main()
