"""Mistakes that linear bounds make, as changes of the engine's source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robench_plugins.verify import _forms
from robench_plugins.verify._engine import (
    backward,
    balls,
    bounds,
    errors,
    forward,
    lower,
    lowering,
    patches,
    region,
    relax,
    steps,
)

__all__ = ["MUTATIONS", "Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A piece of source `old` of `function` becomes `new`; `steps` are operators that show it."""

    function: Callable
    old: str
    new: str
    steps: str = "linear relu linear relu linear"
    rounding: str = ""
    shape: tuple[int, ...] = (2, 3, 3)


CONV = "conv2d relu conv2d relu linear"
IMAGES = "relu conv2d relu conv2d relu"
SMOOTH = "linear sigmoid linear tanh linear"

MUTATIONS = {
    # Lines.
    "slope of the chord u / (u + l)": Mutation(relax._relu, "(upper - lower)", "(upper + lower)"),
    "intercept missing": Mutation(relax._relu, "torch.maximum(left, right)", "torch.zeros_like(left)"),
    "intercept halved": Mutation(relax._relu, "torch.maximum(left, right)", "left / 2"),
    "bounds swapped": Mutation(relax.relax, "_relu(lower, upper)", "_relu(upper, lower)"),
    "upper line used below": Mutation(relax._relu, "adaptive, slope, None, shift", "slope, slope, shift, shift"),
    "slope below off by one": Mutation(relax._relu, "(upper > -lower).to(lower)", "1 + (upper > -lower).to(lower)"),
    "open ReLUs taken as off": Mutation(
        relax._relu, "(lower < 0) & (upper > 0)", "(lower < 0) & (upper > 0) & (upper > -lower)"
    ),
    "lower and upper lines of smooth functions swapped": Mutation(
        relax.relax, "low, high, below, above", "high, low, above, below", SMOOTH
    ),
    "no mirror for lines below": Mutation(
        relax.shifts, "_above(op, -upper, -lower, low)", "_above(op, lower, upper, low)", SMOOTH
    ),
    "sigmoid mirrored like tanh": Mutation(relax.shifts, "constant - mirrored", "2 * constant - mirrored", SMOOTH),
    "concave part forgotten": Mutation(
        relax._above, "torch.where(upper > 0, torch.maximum(ends, inside), ends)", "ends", SMOOTH
    ),
    "convex part forgotten": Mutation(relax._above, "torch.maximum(ends, inside)", "inside", SMOOTH),
    "product with the wrong sign": Mutation(relax._gap_up, "y - product", "y + product", SMOOTH),
    # Rows.
    "line above for positive coefficients": Mutation(backward._through, "rows > 0", "rows < 0"),
    "intercept dropped": Mutation(
        backward._through, "owners.dot(rows.clamp_max(0), lines.upper_shift)", "owners.dot(rows, lines.upper_shift) * 0"
    ),
    "intercept for positive coefficients": Mutation(
        backward._through, "rows.clamp_max(0), lines.upper", "rows.clamp_min(0), lines.upper"
    ),
    "intercept below dropped": Mutation(
        backward._through, "constant + owners.dot(rows.clamp_min(0), lines.lower_shift)", "constant", SMOOTH
    ),
    "slopes above 1 let through": Mutation(backward.fitted, ".clamp(0, 1)", ""),
    "a known sign's slope not its own": Mutation(
        backward.fitted,
        "torch.where(owners.of(line.unstable), free, owners.of(line.lower_slope))",
        "1 - owners.of(line.lower_slope)",
    ),
    "offsets dropped": Mutation(backward._lower_bounds, "total = total + part", "total = total + part * 0"),
    "offsets subtracted": Mutation(backward._lower_bounds, "total = total + part", "total = total - part"),
    "residual rows replaced": Mutation(
        backward._lower_bounds,
        "_together(pending[source], arriving)",
        "arriving",
        "linear relu linear add\xa0nodes relu",
    ),
    "bias of unit rows without sign": Mutation(
        backward._start, "[rows.unit // places] * rows.sign", "[rows.unit // places]"
    ),
    "sign of unit rows dropped": Mutation(backward._start, "exact * rows.sign.reshape(around)", "exact"),
    "the constant asked for dropped": Mutation(
        backward._start, "zeros if rows.constant is None else rows.constant", "zeros"
    ),
    # Steps.
    "bias of linear layers dropped": Mutation(steps.Linear.offset, "rows @ self.bias", "None"),
    "transpose of linear layers": Mutation(steps.Linear.back, "rows @ self.weight", "rows @ self.weight.abs()"),
    "bias of convolutions dropped": Mutation(steps.Conv.offset, "rows.flatten(2).sum(2) @ self.bias", "None", CONV),
    "uneven padding taken as even": Mutation(steps.Conv.back, "(begin[i], end[i])", "(end[i], begin[i])", CONV),
    "padding of convolutions forgotten": Mutation(
        steps.Conv.back, "rows, self.source[1:], begin", "rows, self.source[1:], (0,) * rank", CONV
    ),
    "unit rows of convolutions in the wrong channel": Mutation(
        steps.Conv.unit_rows, "self.weight[channel]", "self.weight[channel - 1]", CONV
    ),
    "sign of a shift": Mutation(
        steps.Scale.offset, "(rows * self.shift)", "-(rows * self.shift)", "conv2d add relu batch_norm relu"
    ),
    "factors forgotten": Mutation(
        steps.Scale.back, "rows if self.factor is None else rows * self.factor", "rows", "linear mul relu"
    ),
    "shift of a clip dropped": Mutation(
        steps.Mix.offset, "rows.flatten(1).sum(1) * self.shift", "None", "linear clip linear clip"
    ),
    "weights of a mix dropped": Mutation(
        steps.Mix.back, "rows * weight", "rows", "linear sub\xa0nodes relu leaky_relu"
    ),
    "repeated elements counted once": Mutation(
        steps.Gather.back, ".index_add(1, index, flat)", ".index_copy(1, index, flat)", "max_pool2d relu max_pool2d"
    ),
    "padding's value dropped": Mutation(
        steps.Gather.offset, "if self.fill else None", "* 0 if self.fill else None", "pad linear relu"
    ),
    # Lowering.
    "min and max swapped": Mutation(
        lowering.Lowering.compared, "(-1.0, 1.0), (a, b)", "(1.0, -1.0), (a, b)", "group_sort linear group_sort"
    ),
    "padding taken as 0 in a max pool": Mutation(
        lower._max_pool2d,
        "torch.where(inside, flat, first)",
        "torch.where(inside, flat, flat.clamp(0, height * width - 1))",
        "max_pool2d relu",
    ),
    "slope of a leaky ReLU": Mutation(
        lower._leaky_relu, "1.0 - slope", "1.0 + slope", "linear leaky_relu linear leaky_relu"
    ),
    "bounds of a clip": Mutation(lower._clip, "weights.append(-1.0)", "weights.append(1.0)", "linear clip"),
    "mean of a batch norm": Mutation(lower._batch_norm, "bias - moved", "bias + moved", "conv2d batch_norm relu"),
    "count of an average pool": Mutation(
        lower._avg_pool2d, 'if not node.attributes["count_include_pad"]', "if False", "avg_pool2d relu avg_pool2d"
    ),
    "c − x taken as x − c": Mutation(
        lower._sub, 'if node.attributes.get("reverse")', "if False", "sub linear relu sub"
    ),
    # Sets.
    "lower and upper ends of a box swapped": Mutation(
        region.Region.least,
        "owners.dot(rows.clamp_min(0), self.lower) + owners.dot(rows.clamp_max(0), self.upper)",
        "owners.dot(rows.clamp_min(0), self.upper) + owners.dot(rows.clamp_max(0), self.lower)",
    ),
    "the primal norm": Mutation(balls.greatest, 'norm == "l1"', 'norm == "l2"', "linear relu"),
    "walls of the wrong side": Mutation(region.Region._fall, "rows > 0", "rows < 0", "linear relu"),
    "a point that is not the maximum": Mutation(balls._greatest_l2, "form / t,", "form * t,", "linear relu"),
    "a multiplier without its budget": Mutation(balls._greatest_l1, "t[:, 0] + (", "(", "linear relu"),
    "half of the ball": Mutation(
        region.region_of, "threat.norm, radius, threat.domain", "threat.norm, radius / 2, threat.domain"
    ),
    # Bounds of neurons.
    "lower bound from the upper rows": Mutation(bounds.tightened, "found[: len(index)])\n", "-found[len(index) :])\n"),
    "sign of upper bounds": Mutation(
        bounds.tightened, "torch.minimum(high[index, entry], -found", "torch.minimum(high[index, entry], found"
    ),
    "boxes half as wide": Mutation(
        forward._affine,
        "torch.maximum(high - centre, centre - low)",
        "(high - centre) / 2",
        "max_pool2d relu avg_pool2d",
    ),
    "boxes without their radius": Mutation(
        forward._affine,
        "spread = step.magnitude(*radii, constant=False) +",
        "spread =",
        "group_sort linear avg_pool2d relu",
    ),
    "margins with the wrong sign": Mutation(_forms.label_forms, "own[:, None], 1.0", "own[:, None], -1.0"),
    "a class left out": Mutation(_forms.label_forms, "others >= y[:, None]", "others > y[:, None]"),
    # Windows.
    "windows moved against the padding": Mutation(
        patches.Patches._convolved, "self.top * down - top", "self.top * down + top", IMAGES, shape=(2, 9, 9)
    ),
    "windows of the wrong place": Mutation(
        patches.Patches.gathered,
        "self.top + over[2], self.left",
        "self.left + over[0], self.left",
        IMAGES,
        shape=(2, 9, 9),
    ),
    # The error term.
    "no error term": Mutation(backward._lower_bounds, "below(bound, error)", "bound", rounding="branches"),
    "errors of steps dropped": Mutation(
        backward._lower_bounds,
        "error + own.dot(incoming.abs()",
        "error + 0 * own.dot(incoming.abs()",
        rounding="a product",
    ),
    "no error in affine steps": Mutation(
        errors.errors_of,
        "step.magnitude(*arguments) * rounding",
        "step.magnitude(*arguments) * 0",
        rounding="a product",
    ),
    "error without its number of terms": Mutation(
        errors.errors_of, "rounding = gamma(max(step.terms, size) + 8)", "rounding = gamma(0)", rounding="a product"
    ),
}
