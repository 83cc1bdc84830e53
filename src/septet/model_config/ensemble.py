# SPDX-License-Identifier: Apache-2.0
"""The rules for ensembles: every tensor comes from somewhere, once, and no step waits for itself."""

from __future__ import annotations

from collections.abc import Iterator

from septet.model_config.config import Ensembling, ModelConfig
from septet.model_config.fault import Fault


def ensemble_faults(config: ModelConfig, ensemble: Ensembling) -> Iterator[Fault]:
    """Everything that is wrong with the steps of a model."""
    field = "ensemble_scheduling"
    if not ensemble.step:
        yield Fault(field, "an ensemble needs at least one step")
    if config.instance_group:
        yield Fault(field, "an ensemble has neither instances nor a queue of its own; its models have")
    if ensemble.max_inflight_requests:
        yield Fault(
            f"{field}.max_inflight_requests", "ensembles here have no such limit; their models' queues have"
        )
    made = {each.name for each in config.input}
    for index, step in enumerate(ensemble.step):
        where = f"{field}.step[{index}]"
        if not step.model_name:
            yield Fault(f"{where}.model_name", "a step needs a model")
        if step.model_name == config.name:
            yield Fault(f"{where}.model_name", "an ensemble cannot be a step of itself")
        if not step.input_map or not step.output_map:
            yield Fault(where, "a step needs an input_map and an output_map")
        for name in step.output_map.values():
            if name in made:
                yield Fault(f"{where}.output_map", f"tensor {name!r} is made twice")
            made.add(name)
    yield from _unreachable(config, ensemble)


def _unreachable(config: ModelConfig, ensemble: Ensembling) -> Iterator[Fault]:
    """Steps that never have all their inputs, and outputs that nothing makes."""
    there = {each.name for each in config.input}
    left = dict(enumerate(ensemble.step))
    while ready := [index for index, step in left.items() if there.issuperset(step.input_map.values())]:
        for index in ready:
            there.update(left.pop(index).output_map.values())
    promised = there.union(*(step.output_map.values() for step in left.values()))
    for index, step in left.items():
        field = f"ensemble_scheduling.step[{index}].input_map"
        if unmade := sorted({repr(name) for name in step.input_map.values() if name not in promised}):
            yield Fault(field, f"nothing makes {', '.join(unmade)}")
        elif all(promised.issuperset(each.input_map.values()) for each in left.values()):
            yield Fault(field, "this step waits for itself, or for steps that wait for it")
    for index, output in enumerate(config.output):
        if output.name not in promised:
            yield Fault(f"output[{index}].name", f"no step makes {output.name!r}")
