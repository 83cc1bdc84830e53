# SPDX-License-Identifier: Apache-2.0
"""What recipes share: batches drawn ahead, the steps of an optimiser, and the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from septet.tensor import Array
from septet.workloads.weights import shipped

try:
    import torch
    from torch import Tensor, nn
except ModuleNotFoundError:
    sys.exit("Training needs torch: pip install 'septet[train]'")

Batch = TypeVar("Batch")

Losses = Mapping[str, Tensor]
"""Parts of the loss by what progress calls them; their sum is made smaller."""


def drawn_ahead(draw: Callable[[int], Batch], steps: int) -> Iterator[Batch]:
    """``draw(0)``, ``draw(1)``, … of `steps` steps, drawn one step ahead on another thread."""
    with ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(draw, step) for step in range(min(2, steps))]
        for step in range(steps):
            drawn = coming.pop(0).result()
            if step + 2 < steps:
                coming.append(ahead.submit(draw, step + 2))
            yield drawn


def repeatable(seed: int, threads: int | None = None) -> None:
    """Make training repeatable. Sums depend on how many `threads` there are, where it does not say: all."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    if threads is not None:
        torch.set_num_threads(threads)


def fit(
    weights: Iterable[Tensor],
    batches: Iterable[Batch],
    losses_of: Callable[[int, Batch], Losses],
    *,
    steps: int,
    rate: float,
    decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    warm: float = 0.2,
    clip: float | None = None,
) -> None:
    """Train `weights`: AdamW, one cycle of the learning rate up to `rate` over the share `warm` of the steps and
    down again, gradients cut at the norm `clip`. Progress is printed a hundred steps at a time."""
    trained = list(weights)
    optimiser = torch.optim.AdamW(trained, rate, betas, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 2), pct_start=warm)
    start = time.perf_counter()
    for step, batch in enumerate(batches, 1):
        losses = losses_of(step, batch)
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        optimiser.step()
        cycle.step()
        if step % 100 == 0 or step == steps:
            left = (time.perf_counter() - start) / step * (steps - step)
            words = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"step {step} of {steps}: {words}, about {left:.0f} s left", flush=True)


def asked(words: str, network: str, *, seed: int, steps: int) -> argparse.Namespace:
    """The command line of a recipe: ``--out``, by default where the weights of `network` ship, ``--seed`` and
    ``--steps``."""
    parser = argparse.ArgumentParser(description=words.splitlines()[0])
    parser.add_argument("--out", type=Path, default=shipped(network), metavar="FILE")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--steps", type=int, default=steps)
    return parser.parse_args()


def save(weights: Mapping[str, Array], to: Path) -> None:
    """Write weights by name, and say where."""
    arrays: dict[str, Any] = dict(weights)
    to.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to, **arrays)
    print(f"saved: {to}, {to.stat().st_size / 1e6:.2f} MB", flush=True)
