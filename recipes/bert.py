# SPDX-License-Identifier: Apache-2.0
"""Train BERT's miniature on tales: ``make train NETWORK=bert``.

The torch module mirrors the ONNX graph of `septet.workloads.transformer` weight for weight. Training begins with
short passages and ends with whole ones. One seed gives one set of weights; another seed gives about the same F1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from septet.pipelines.text import Passage, Window, WordPieces, split, windows
from septet.tensor import Array
from septet.workloads.accuracy import mean
from septet.workloads.digits import Split
from septet.workloads.squad import Paragraph, SquadWindows, best, exact, f1
from septet.workloads.tales import Tales, vocabulary
from septet.workloads.transformer import BERT_MINI, EPSILON, Bert, shapes

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F  # noqa: N812
except ModuleNotFoundError:
    sys.exit("Training needs torch: pip install 'septet[train]'")

SHIPPED = Path(__file__).parents[1] / "src/septet/workloads/data/bert-mini.npz"

BATCH = 32
STEPS = 2_000
PEAK_RATE = 1.5e-3
WEIGHT_DECAY = 0.01
PHASES = ((0.0, 0.3), (0.5, 0.55), (0.75, 1.0))
"""From which share of the steps on, passages have which share of their length."""

CHUNK = 4
"""Batches that are drawn together and shared out by length, so that little is padded."""

NEVER = -10_000.0

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Ids, mask and segments, int64 [N, L], and the answers' first and last places, int64 [N, 2]."""


class Layer(nn.Module):
    """One layer of the encoder; its parts are named by `Network.names`."""

    def __init__(self, net: Bert) -> None:
        super().__init__()
        self.heads = net.heads
        self.query, self.key, self.value, self.join = (nn.Linear(net.hidden, net.hidden) for _ in range(4))
        self.attended = nn.LayerNorm(net.hidden, EPSILON)
        self.widen = nn.Linear(net.hidden, net.between)
        self.narrow = nn.Linear(net.between, net.hidden)
        self.ended = nn.LayerNorm(net.hidden, EPSILON)

    def forward(self, source: Tensor, hidden: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        parts = (heads(part(source)) for part in (self.query, self.key, self.value))
        x = F.scaled_dot_product_attention(*parts, attn_mask=hidden)
        x = self.attended(source + self.join(x.transpose(1, 2).flatten(2)))
        ended: Tensor = self.ended(x + self.narrow(F.gelu(self.widen(x))))
        return ended


class Network(nn.Module):
    """`net` in torch: ids, mask, segments, int64 [N, L] -> logits, float32 [N, L, 2]."""

    def __init__(self, net: Bert) -> None:
        super().__init__()
        self.words = nn.Embedding(net.vocabulary, net.hidden)
        self.places = nn.Embedding(net.positions, net.hidden)
        self.segments = nn.Embedding(net.segments, net.hidden)
        self.begun = nn.LayerNorm(net.hidden, EPSILON)
        self.layers = nn.ModuleList(Layer(net) for _ in range(net.layers))
        self.answer = nn.Linear(net.hidden, 2)
        _begin(self, net)

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        x = self.words(ids) + self.places.weight[: ids.shape[1]] + self.segments(segments)
        x = self.begun(x)
        hidden = (1.0 - mask[:, None, None, :].float()) * NEVER
        for layer in self.layers:
            x = layer(x, hidden)
        logits: Tensor = self.answer(x)
        return logits


def _begin(network: Network, net: Bert) -> None:
    """Begin where learning to look things up is short: waves for places, and in the first layer keys that
    are their queries, so that a token looks at its like from the start."""
    for table, spread in ((network.words, 0.5), (network.segments, 0.2)):
        nn.init.normal_(table.weight, std=spread)
    place = torch.arange(net.positions)[:, None]
    rate = torch.exp(torch.arange(0, net.hidden, 2) * (-np.log(10_000.0) / net.hidden))
    waves = torch.cat([torch.sin(place * rate), torch.cos(place * rate)], 1)
    network.places.weight.data = 0.4 * waves
    for layer in network.layers:
        for part in (layer.query, layer.key, layer.value, layer.join):
            nn.init.orthogonal_(part.weight)
            nn.init.zeros_(part.bias)
    first = network.layers[0]
    first.key.weight.data = first.query.weight.data.clone()


def names(net: Bert) -> dict[str, str]:
    """The graph's name of each part of `Network`."""
    found = {
        "words": "bert.embeddings.word_embeddings",
        "places": "bert.embeddings.position_embeddings",
        "segments": "bert.embeddings.token_type_embeddings",
        "begun": "bert.embeddings.LayerNorm",
        "answer": "qa_outputs",
    }
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "join": "attention.output.dense",
        "attended": "attention.output.LayerNorm",
        "widen": "intermediate.dense",
        "narrow": "output.dense",
        "ended": "output.LayerNorm",
    }
    for layer in range(net.layers):
        found |= {
            f"layers.{layer}.{ours}": f"bert.encoder.layer.{layer}.{theirs}" for ours, theirs in parts.items()
        }
    return found


def weights_of(network: Network, net: Bert) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, float16: half the file, and nothing lost that F1 shows."""
    called = names(net)
    state = {
        f"{called[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor.numpy().astype(np.float16)
        for name, tensor in network.state_dict().items()
    }
    return {name: state[name] for name in shapes(net)}


def _places(paragraph: Paragraph, passage: Passage) -> tuple[int, int]:
    """The first and last piece of the answer, of the passage's."""
    answer = paragraph.qas[0].answers[0]
    word = len(split(paragraph.context[: answer.answer_start]))
    owners = passage.pieces.words
    first = int(np.searchsorted(owners, word))
    last = int(np.searchsorted(owners, word + len(split(answer.text)))) - 1
    return first, last - (passage.pieces.spellings[last] == ".")


def _training_windows(indices: range, shrink: float, pieces: WordPieces) -> list[tuple[Window, tuple[int, int]]]:
    """The windows of tales that hold the answer, and its places in their tensors."""
    drawn = Tales("train")
    paragraphs = [drawn.paragraph(index, shrink) for index in indices]
    words = [split(paragraph.context) for paragraph in paragraphs]
    passages = [Passage(*both) for both in zip(words, pieces(words), strict=True)]
    asked = pieces([[paragraph.qas[0].question] for paragraph in paragraphs])
    found = []
    for paragraph, passage, question in zip(paragraphs, passages, asked, strict=True):
        first, last = _places(paragraph, passage)
        for window in windows(question.ids, passage):
            if window.begin <= first and last < window.begin + window.size:
                shift = window.first - window.begin
                found.append((window, (first + shift, last + shift)))
    return found


def _joined(chunk: list[tuple[Window, tuple[int, int]]], pieces: WordPieces) -> Batch:
    length = max(window.first + window.size + 1 for window, _ in chunk)
    tensors = zip(*(window.tensors(pieces, length) for window, _ in chunk), strict=True)
    ids, mask, segments = (torch.from_numpy(np.stack(rows)) for rows in tensors)
    return ids, mask, segments, torch.tensor([places for _, places in chunk])


def _chunk(step: int, steps: int, pieces: WordPieces) -> list[Batch]:
    """The batches of steps `step` … `step` + CHUNK, in a drawn order."""
    shrink = next(share for begin, share in reversed(PHASES) if step >= begin * steps)
    found = _training_windows(range(step * BATCH, (step + CHUNK) * BATCH), shrink, pieces)
    found.sort(key=lambda one: one[0].first + one[0].size)
    size = -(-len(found) // CHUNK)
    order = np.random.default_rng(step).permutation(CHUNK)
    return [_joined(found[place * size : (place + 1) * size], pieces) for place in order]


def batches(steps: int) -> Iterator[Batch]:
    """Fresh tales for each step, drawn ahead on another thread."""
    pieces = WordPieces(vocabulary())
    done = 0
    with ThreadPoolExecutor(1) as ahead:
        begins = list(range(0, steps, CHUNK))
        coming = [ahead.submit(_chunk, begin, steps, pieces) for begin in begins[:2]]
        for place in range(len(begins)):
            drawn = coming.pop(0).result()
            if place + 2 < len(begins):
                coming.append(ahead.submit(_chunk, begins[place + 2], steps, pieces))
            for batch in drawn[: steps - done]:
                yield batch
                done += 1


def train(net: Bert, steps: int, seed: int) -> Network:
    """Train from scratch: AdamW, one cycle of the learning rate, gradients cut at norm 1."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    network = Network(net)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.98), weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=max(steps, 2), pct_start=0.1)
    start = time.perf_counter()
    for step, (ids, mask, segments, places) in enumerate(batches(steps), 1):
        logits = network(ids, mask, segments) + (mask[:, :, None] - 1) * -NEVER
        loss = F.cross_entropy(logits, places)  # over places, for start and end alike
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        cycle.step()
        if step % 100 == 0 or step == steps:
            left = (time.perf_counter() - start) / step * (steps - step)
            print(f"step {step} of {steps}: loss {loss.item():.3f}, about {left:.0f} s left", flush=True)
    return network.eval()


def scores(network: Network, part: Split, count: int | None = None) -> str:
    """F1 and exact match in % over the tales of `part`, with their 95 % intervals, in words."""
    pieces = WordPieces(vocabulary())
    tales = SquadWindows(Tales(part, count).file(), pieces, f"tales, {part} split")
    logits = []
    with torch.inference_mode():
        for begin in range(0, len(tales), BATCH):
            rows = zip(*(tales.tensors(at) for at in range(begin, min(begin + BATCH, len(tales)))), strict=True)
            logits += list(network(*(torch.from_numpy(np.stack(row)) for row in rows)).numpy())
    said = tales.answers(logits)
    found = [
        mean(words, "%", best(measure, said, tales.truths()), scale=100)
        for words, measure in (("F1", f1), ("exact match", exact))
    ]
    words = ", ".join(f"{one.metric} {one.value:.2f} % ({one.low:.2f} … {one.high:.2f})" for one in found)
    return f"on {part}: {words}, {len(said)} questions"


def main() -> None:
    """Train, print F1 and exact match, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="FILE")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    network = train(BERT_MINI, asked.steps, asked.seed)
    arrays: Any = weights_of(network, BERT_MINI)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(asked.out, **arrays)
    print(f"saved: {asked.out}, {asked.out.stat().st_size / 1e6:.2f} MB", flush=True)
    for part in ("search", "test"):
        print(scores(network, part), flush=True)


if __name__ == "__main__":
    main()
