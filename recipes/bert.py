# SPDX-License-Identifier: Apache-2.0
"""Train BERT's miniature on tales: ``make train NETWORK=bert``.

The torch module mirrors the ONNX graph of `septet.workloads.transformer` weight for weight. Training begins with
short passages and ends with whole ones. One seed gives one set of weights.
About five minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from septet.pipelines.text import LENGTH, Passage, Window, WordPieces, split, windows
from septet.score import mean
from septet.tensor import Array
from septet.workloads.split import Split
from septet.workloads.squad import Paragraph, SquadWindows, best, exact, f1
from septet.workloads.tales import FILLERS, Tales, vocabulary
from septet.workloads.transformer import BERT_MINI, EPSILON, Bert, shapes
from septet.workloads.weights import shipped
from training import Losses, asked, drawn_ahead, fit, repeatable, save

BATCH = 32
STEPS = 800
PEAK_RATE = 1.5e-3
TUNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
Phases = tuple[tuple[float, float], ...]

PHASES: Phases = ((0.0, 0.3), (0.35, 0.55), (0.6, 1.0))
"""From which share of the steps on, passages have which share of their length."""

WHOLE: Phases = ((0.0, 1.0),)

CHUNK = 4
"""Batches that are drawn together and shared out by length, so that little is padded."""

NEVER = -10_000.0

HINT_LAYER = 2
"""After so many layers the network is asked, while it learns, which tokens tell of the asked person."""

ALIKE, NEAR, ASKED = 1.2, 2.0, 3.0
"""How sharply attention begins to look at what is spelt alike and at what stands near, and how strongly the
first layer hands on whether what is alike stands in the question. With an even beginning, names were still not
matched after a thousand steps: answers were of the right kind, but of anybody."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Ids, mask and segments, int64 [N, L], the answers' first and last places, int64 [N, 2], and whether each token
tells of the asked person, float32 [N, L]."""

Example = tuple[Window, tuple[int, int], Array]
"""A window, the places of the answer in its tensors, and which of its pieces tell of the asked person."""


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
        self.hint = nn.Linear(net.hidden, 1)
        _begin(self, net)

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        logits, _ = self.both(ids, mask, segments, 0)
        return logits

    def both(self, ids: Tensor, mask: Tensor, segments: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        """The logits, and how much each token seems to tell of the asked person, float32 [N, L]; `begin` is
        the place that the first token is said to have."""
        x = self.words(ids) + self.places.weight[begin : begin + ids.shape[1]] + self.segments(segments)
        x = self.begun(x)
        hidden = (1.0 - mask[:, None, None, :].float()) * NEVER
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, hidden)
            if number == HINT_LAYER:
                hint = self.hint(x)[..., 0]
        return self.answer(x), hint


def _begin(network: Network, net: Bert) -> None:
    """Begin where learning to look things up is short.

    Words, segments and places have dimensions of their own, and places are waves. In the first layer half of
    the heads look at what is spelt alike, wherever it stands, the others at the token before and behind; in
    those above, half of the heads look at the few words before.
    """
    words, marks = net.hidden * 5 // 8, net.hidden // 32
    first = words + marks
    pairs, used = (net.hidden - first) // 2, net.head // 2
    rates = 3.0 * 0.007 ** torch.linspace(0, 1, pairs)
    angles = torch.arange(net.positions)[:, None] * rates
    for table in (network.words, network.segments, network.places):
        nn.init.zeros_(table.weight)
    nn.init.normal_(network.words.weight.data[:, :words], std=0.5)
    nn.init.normal_(network.segments.weight.data[:, words:first], std=0.7)
    network.places.weight.data[:, first : first + 2 * pairs] = 0.4 * torch.stack(
        [angles.sin(), angles.cos()], -1
    ).flatten(1)

    def look(layer: Layer, head: int, shift: float, pair: int) -> None:
        """Let `head` look `shift` tokens ahead, told by the waves from number `pair` on."""
        rows = slice(head * net.head, (head + 1) * net.head)
        query, key = layer.query.weight.data[rows].zero_(), layer.key.weight.data[rows].zero_()
        for place, rate in enumerate(rates[pair : pair + used]):
            cos, sin = torch.cos(rate * shift), torch.sin(rate * shift)
            at, of = (
                slice(2 * place, 2 * place + 2),
                slice(first + 2 * (pair + place), first + 2 * (pair + place) + 2),
            )
            query[at, of] = NEAR * torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
            key[at, of] = NEAR * torch.eye(2)

    for number, layer in enumerate(network.layers):
        for part in (layer.query, layer.key, layer.value, layer.join):
            nn.init.orthogonal_(part.weight)
            nn.init.zeros_(part.bias)
        for head in range(net.heads // 2):
            if number == 0:
                rows = slice(head * net.head, (head + 1) * net.head)
                alike = torch.zeros(net.head, net.hidden)
                alike[:, :words] = ALIKE * nn.init.orthogonal_(torch.empty(net.head, words))
                layer.query.weight.data[rows], layer.key.weight.data[rows] = alike, alike
                asked = layer.value.weight.data[rows].zero_()
                asked[:marks, words:first] = ASKED * torch.eye(marks)
                look(layer, net.heads - 1 - head, 1 if head % 2 else -1, 0)
            else:
                look(layer, head, -3.0 - 4 * head, max(pairs - used, 0))


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
        if name.rpartition(".")[0] in called
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


def _telling(paragraph: Paragraph, passage: Passage) -> Array:
    """Which pieces stand in sentences on the asked person, whom they name or who was named last: float32."""
    person = next(word for word in reversed(paragraph.qas[0].question.rstrip("?").split()) if word.istitle())
    tells, on, begins = [], False, True
    for place, word in enumerate(passage.words):
        if begins:
            end = next(at for at in range(place, len(passage.words)) if passage.words[at].endswith("."))
            sentence = passage.words[place : end + 1]
            if person in (one.rstrip(".") for one in sentence):
                on = True
            elif word not in ("He", "She") and " ".join(sentence) not in FILLERS:
                on = False
        tells.append(on)
        begins = word.endswith(".")
    return np.array(tells, np.float32)[passage.pieces.words]


def _examples(indices: range, shrink: float, pieces: WordPieces) -> list[Example]:
    """The windows of tales that hold the answer, and its places in their tensors."""
    drawn = Tales("train")
    paragraphs = [drawn.paragraph(index, shrink) for index in indices]
    words = [split(paragraph.context) for paragraph in paragraphs]
    passages = [Passage(*both) for both in zip(words, pieces(words), strict=True)]
    asked = pieces([[paragraph.qas[0].question] for paragraph in paragraphs])
    found = []
    for paragraph, passage, question in zip(paragraphs, passages, asked, strict=True):
        first, last = _places(paragraph, passage)
        telling = _telling(paragraph, passage)
        for window in windows(question.ids, passage):
            if window.begin <= first and last < window.begin + window.size:
                shift = window.first - window.begin
                seen = telling[window.begin : window.begin + window.size]
                found.append((window, (first + shift, last + shift), seen))
    return found


def _joined(chunk: list[Example], pieces: WordPieces) -> Batch:
    length = max(window.first + window.size + 1 for window, _, _ in chunk)
    tensors = zip(*(window.tensors(pieces, length) for window, _, _ in chunk), strict=True)
    ids, mask, segments = (torch.from_numpy(np.stack(rows)) for rows in tensors)
    telling = np.zeros(ids.shape, np.float32)
    for row, (window, _, seen) in zip(telling, chunk, strict=True):
        row[window.first : window.first + window.size] = seen
    return ids, mask, segments, torch.tensor([places for _, places, _ in chunk]), torch.from_numpy(telling)


def _chunk(step: int, shrink: float, pieces: WordPieces) -> list[Batch]:
    """The batches of steps `step` … `step` + CHUNK, in a drawn order; passages have `shrink` of their length."""
    found = _examples(range(step * BATCH, (step + CHUNK) * BATCH), shrink, pieces)
    found.sort(key=lambda one: one[0].first + one[0].size)
    size = -(-len(found) // CHUNK)
    order = np.random.default_rng(step).permutation(CHUNK)
    return [_joined(found[place * size : (place + 1) * size], pieces) for place in order]


def batches(steps: int, phases: Phases = PHASES, begin: int = 0) -> Iterator[Batch]:
    """Fresh tales for each step; those of the `begin` steps before have been seen."""
    pieces = WordPieces(vocabulary())
    done = 0

    def draw(place: int) -> list[Batch]:
        step = place * CHUNK
        shrink = next(share for since, share in reversed(phases) if step >= since * steps)
        return _chunk(begin + step, shrink, pieces)

    for drawn in drawn_ahead(draw, -(-steps // CHUNK)):
        for batch in drawn[: steps - done]:
            yield batch
            done += 1


def losses(network: Network, step: int, batch: Batch) -> Losses:
    """How wrong the answers are, and the hint."""
    ids, mask, segments, places, telling = batch
    # short passages are said to lie anywhere, so that what is learnt from them holds at all places
    first = int(np.random.default_rng(step).integers(LENGTH - ids.shape[1] + 1))
    logits, hint = network.both(ids, mask, segments, first)
    told = F.binary_cross_entropy_with_logits(hint, telling, segments.float(), reduction="sum")
    # over places, for start and end alike
    loss = F.cross_entropy(logits + (mask[:, :, None] - 1) * -NEVER, places)
    return {"loss": loss, "hint": told / segments.sum()}


def train(net: Bert, steps: int, seed: int) -> Network:
    """Train from scratch."""
    repeatable(seed, threads=1)  # another one draws the tales
    network = Network(net)
    fit(
        network.parameters(),
        batches(steps),
        partial(losses, network),
        steps=steps,
        rate=PEAK_RATE,
        decay=WEIGHT_DECAY,
        betas=(0.9, 0.98),
        warm=0.1,
        clip=1.0,
    )
    return network.eval()


def layers_of(network: Network) -> list[Layer]:
    """The encoder's layers."""
    return [layer for layer in network.layers if isinstance(layer, Layer)]


def resumed(net: Bert) -> Network:
    """The network with the weights that ship; only the hint, which does not, begins anew."""
    network = Network(net)
    with np.load(shipped("bert"), allow_pickle=False) as stored:
        state = {
            f"{ours}.{part}": torch.from_numpy(stored[f"{theirs}.{part}"].astype(np.float32))
            for ours, theirs in names(net).items()
            for part in ("weight", "bias")
            if f"{theirs}.{part}" in stored
        }
    network.load_state_dict(state | {f"hint.{name}": value for name, value in network.hint.state_dict().items()})
    return network


def tune(network: Network, steps: int, begin: int) -> None:
    """Train on with whole passages: with those of step `begin` and after, which nobody has seen before."""
    fit(
        network.parameters(),
        batches(steps, WHOLE, begin),
        partial(losses, network),
        steps=steps,
        rate=TUNING_RATE,
        decay=WEIGHT_DECAY,
        betas=(0.9, 0.98),
        warm=0.1,
        clip=1.0,
    )


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


def run(words: str, name: str, steps: int, train: Callable[[Bert, int, int], Network]) -> None:
    """Do what the command line asks of a recipe: `train`, save, print F1 and exact match."""
    said = asked(words, name, seed=7, steps=steps)
    network = train(BERT_MINI, said.steps, said.seed)
    save(weights_of(network, BERT_MINI), said.out)
    for part in ("search", "test"):
        print(scores(network, part), flush=True)


def main() -> None:
    """Train, save, print F1 and exact match."""
    run(__doc__, "bert", STEPS, train)


if __name__ == "__main__":
    main()
