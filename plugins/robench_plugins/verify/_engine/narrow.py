"""A network without the neurons that are off: the same function on its region, in smaller matrices."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from robench_plugins.verify._engine.bounds import Bounded, Kept
from robench_plugins.verify._engine.errors import Errors
from robench_plugins.verify._engine.forward import Interval
from robench_plugins.verify._engine.program import Activation, Program, Step
from robench_plugins.verify._engine.steps import Linear

__all__ = ["narrowed"]

WORTH = 0.9
"""Share of its neurons below which a layer is cut."""


def narrowed(known: Bounded) -> Bounded:
    """Return `known` without ReLUs between linear layers that are off on every region, where lines are known.

    What is proven of the smaller network holds for the whole one there: the weights left out meet zeros. The errors
    of the whole one are above those of its part.
    """
    cut = _awake(known)
    if not cut:
        return known
    program = known.program
    steps = tuple(_cut(program, position, step, cut) for position, step in enumerate(program.steps))

    def part(values: dict[int, Tensor]) -> dict[int, Tensor]:
        return {position: one[:, cut[position]] if position in cut else one for position, one in values.items()}

    def within(position: int, sides: Interval) -> Interval:
        low, high = sides
        return (low[:, cut[position]], high[:, cut[position]]) if position in cut else sides

    inputs = {position: within(position, sides) for position, sides in known.inputs.items()}
    lines = {
        position: line.columns(cut[position]) if position in cut else line for position, line in known.lines.items()
    }
    kept = {
        position: Kept(one.place[:, cut[position]] if position in cut else one.place, part(one.below), part(one.above))
        for position, one in known.kept.items()
    }
    boxes = [within(position, sides) for position, sides in enumerate(known.boxes)]
    errors = Errors(part(dict(known.errors.of)), part(dict(known.errors.reach)), known.errors.underflow)
    return Bounded(Program(steps, program.sources), known.region, boxes, errors, inputs, lines, kept)


def _awake(known: Bounded) -> dict[int, Tensor]:
    """Return the entries to keep, by the position of a ReLU and of the linear layer before it."""
    program, cut = known.program, {}
    readers: dict[int, list[Step]] = {}
    for step in program.steps:
        for source in step.inputs:
            readers.setdefault(source, []).append(step)
    for position, line in known.lines.items():
        source = program.steps[position].inputs[0]
        alone = isinstance(program.steps[source], Linear) and program.uses[source] == 1
        if not alone or line.lower_shift is not None:
            continue
        if position == program.last or not all(isinstance(one, Linear) for one in readers.get(position, [])):
            continue
        awake = (line.unstable | (line.lower_slope != 0)).any(0)
        if 0 < int(awake.sum()) < WORTH * len(awake):
            cut[position] = cut[source] = awake.nonzero()[:, 0]
    return cut


def _cut(program: Program, position: int, step: Step, cut: dict[int, Tensor]) -> Step:
    if position in cut and isinstance(step, Linear):
        step = step.part(cut[position])
    if isinstance(step, Linear) and step.inputs[0] in cut:
        step = replace(step, weight=step.weight[:, cut[step.inputs[0]]])
    if position in cut and isinstance(step, Activation):
        step = replace(step, shape=(len(cut[position]),))
    return step
