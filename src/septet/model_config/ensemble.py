# SPDX-License-Identifier: Apache-2.0
"""The rules for ensembles: every tensor comes from somewhere, once, goes somewhere, and fits the models it goes
through; no step waits for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from septet.model_config.config import Ensembling, Input, ModelConfig, Output, Step
from septet.model_config.fault import Fault

Find = Callable[[Step], ModelConfig | None]
"""The complete configuration of a step's model; ``None`` where it is not known."""


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
    """Steps that never have all their inputs, outputs that nothing makes, and inputs that nothing takes."""
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
    taken = {name for step in ensemble.step for name in step.input_map.values()}
    for index, given in enumerate(config.input):
        if given.name not in taken:
            yield Fault(f"input[{index}].name", f"no step takes {given.name!r}")


@dataclass(frozen=True)
class _Described:
    """A tensor as `by` describes it; its `shape` begins with -1 for the batch, where there is one."""

    by: str
    data_type: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Input | Output, config: ModelConfig) -> _Described:
        """What the configuration that `tensor` stands in says of it."""
        kind = "model" if config.ensemble_scheduling is None else "ensemble"
        lead = (-1,) if config.max_batch_size else ()
        return cls(f"{kind} '{config.name}'", tensor.data_type, lead + tensor.dims)

    def fits(self, other: _Described) -> bool:
        """Whether a tensor can be both; what is free is known only when it is there."""
        return (
            self.data_type == other.data_type
            and len(self.shape) == len(other.shape)
            and all(-1 in pair or pair[0] == pair[1] for pair in zip(self.shape, other.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.data_type} {list(self.shape)} in {self.by}"


def misfits(config: ModelConfig, ensemble: Ensembling, find: Find) -> Iterator[Fault]:
    """Where steps do not fit the models that they name, as far as those are known."""
    known = [
        (f"ensemble_scheduling.step[{index}]", step, model)
        for index, step in enumerate(ensemble.step)
        if (model := find(step)) is not None
    ]
    tensors = {each.name: _Described.of(each, config) for each in config.input}
    for where, step, model in known:
        if _leads_to(config.name, model, find, set()):
            yield Fault(f"{where}.model_name", f"'{config.name}' is itself a part of ensemble '{model.name}'")
        if model.max_batch_size < config.max_batch_size:
            most = f"batches of at most {model.max_batch_size}" if model.max_batch_size else "no batches"
            text = f"model '{model.name}' takes {most}, the ensemble batches of up to {config.max_batch_size}"
            yield Fault(f"{where}.model_name", text)
        outputs = {each.name: each for each in model.output}
        for name, tensor in step.output_map.items():
            if name in outputs:
                tensors.setdefault(tensor, _Described.of(outputs[name], model))
            else:
                yield Fault(f"{where}.output_map", _lacks("output", name, model, list(outputs)))
    for where, step, model in known:
        yield from _inputs(f"{where}.input_map", step, model, tensors)
    for index, output in enumerate(config.output):
        promised = _Described.of(output, config)
        if output.name in tensors and not promised.fits(tensors[output.name]):
            yield Fault(f"output[{index}]", f"tensor {output.name!r} is {promised}, {tensors[output.name]}")


def _inputs(field: str, step: Step, model: ModelConfig, tensors: dict[str, _Described]) -> Iterator[Fault]:
    inputs = {each.name: each for each in model.input}
    for name, tensor in step.input_map.items():
        if name not in inputs:
            yield Fault(field, _lacks("input", name, model, list(inputs)))
        elif tensor in tensors and not (taken := _Described.of(inputs[name], model)).fits(tensors[tensor]):
            yield Fault(field, f"tensor {tensor!r} is {tensors[tensor]}, but input {name!r} is {taken}")
    for name, given in inputs.items():
        if name not in step.input_map and not given.optional:
            yield Fault(field, f"nothing is mapped to input {name!r} of model '{model.name}'")


def _lacks(kind: str, name: str, model: ModelConfig, have: Sequence[str]) -> str:
    return f"model '{model.name}' has no {kind} {name!r}; it has {', '.join(map(repr, have))}"


def _leads_to(name: str, model: ModelConfig, find: Find, seen: set[str]) -> bool:
    """Whether an ensemble has the model `name` among its steps, or those of its steps."""
    if model.ensemble_scheduling is None or model.name in seen:
        return False
    seen.add(model.name)
    return any(
        step.model_name == name or ((inner := find(step)) is not None and _leads_to(name, inner, find, seen))
        for step in model.ensemble_scheduling.step
    )
