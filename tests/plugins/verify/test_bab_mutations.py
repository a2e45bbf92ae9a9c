"""Each mistake of a tree that would certify wrongly, put in on purpose, is seen by the checks of `test_bab`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from oracles.decisions import affine, enumerated, gridded, tied
from oracles.mutants import mutate
from robench_plugins.verify._tree import inputs, query, run, search, signs


@dataclass(frozen=True)
class Mistake:
    """Source `old` of `function` becomes `new`; `check` sees it for one of the first `seeds` seeds."""

    function: Callable
    old: str
    new: str
    check: Callable[[int], str | None]
    seeds: int = 24


BY_SIGNS, BY_INPUTS = partial(enumerated, split="signs", inner=0), partial(enumerated, split="inputs")
CONDITIONS = partial(gridded, split="signs")


def TIES(seed: int) -> str | None:
    """Ask about one kink, which few pieces settle: no clock decides."""
    return tied(3 * seed, split="signs", inner=0, timeout=20.0)


MISTAKES = {
    "a child keeps the wrong half": Mistake(signs.Signs._children, "if sign > 0", "if sign < 0", BY_SIGNS),
    "the second child is forgotten": Mistake(signs.Signs._children, "(1, -1)", "(1,)", BY_SIGNS),
    "the first child is forgotten": Mistake(signs.Signs._children, "(1, -1)", "(-1,)", BY_SIGNS),
    "multipliers push the wrong way": Mistake(
        signs.Signs._started, "sign[owner][:, decided]", "-sign[owner][:, decided]", BY_SIGNS
    ),
    "pieces with crossed bounds of others": Mistake(
        signs.Signs._settle, "(children.low > children.high)", "(children.low > -children.high)", BY_SIGNS
    ),
    "a tight bound taken as empty": Mistake(
        signs.Signs._settle, "(children.low > children.high)", "(children.low >= children.high - 0.1)", BY_SIGNS
    ),
    "float32 is believed": Mistake(signs.Signs._bound, "] = exact > 0", "] = True", TIES, 40),
    "one row of a piece proves all": Mistake(
        signs.Signs._bound,
        "proven[owner[some], row[some]] = exact > 0",
        "proven[owner[some]] |= (exact > 0)[:, None]",
        BY_SIGNS,
    ),
    "the solver is believed": Mistake(signs.Signs.finish, "found.bound > 0", "found.optimum > -1e-9", TIES, 40),
    "open leaves are dropped": Mistake(signs.Signs.finish, "leaves.open.any(1)", "~leaves.open.any(1)", TIES, 40),
    "regions of other samples": Mistake(
        signs.Signs._known, "root.region.at(sample)", "root.region.at(sample * 0)", partial(BY_SIGNS, samples=6)
    ),
    "what a round leaves open is dropped": Mistake(search.search, "Pool.join([pool, left])", "pool", BY_SIGNS),
    "what waits is dropped": Mistake(search.search, "Pool.join([pool, left])", "left", partial(BY_SIGNS, batch=2), 60),
    "a search that stopped is taken as done": Mistake(search.Ended.settled, "reason is None", "True", TIES),
    "roots without open signs are dropped": Mistake(
        search._branching, "_leaves(tree, pieces.take(decided), refuter, ended, clock)", "pass", affine
    ),
    "one settled disjunct settles all": Mistake(
        query.Query.unsettled,
        "settled.gather(1, self.disjunct.clamp_min(0))",
        "settled.amax(1, keepdim=True)",
        BY_SIGNS,
    ),
    "disjuncts taken for one": Mistake(query.query_of, "matrix, constants, number", "matrix, constants, 0", CONDITIONS),
    "a row left out": Mistake(
        query.query_of,
        "at + len(constants)\n",
        "at + len(constants)\n            constants = constants + 1\n",
        CONDITIONS,
    ),
    "constants with the wrong sign": Mistake(
        query.Query.ask, "self.offsets[sample, row]", "-self.offsets[sample, row]", partial(gridded, split="inputs")
    ),
    "a box's half is forgotten": Mistake(
        inputs._halves, "first.and_(replace(boxes, lower=lower.reshape(shape), depth=deeper))", "first", BY_INPUTS
    ),
    "boxes in the ball taken as outside": Mistake(inputs._apart, "far * (1", "2 * far * (1", BY_INPUTS),
    "boxes that wait are dropped": Mistake(
        inputs.halve, "order[batch:]", "order[2 * batch :]", partial(BY_INPUTS, batch=2)
    ),
    "CROWN's bounds of one row": Mistake(run.Run._conclude, ".any(1)", ".all(1)", BY_SIGNS),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name, monkeypatch):
    one = MISTAKES[name]
    mutate(monkeypatch, one.function, one.old, one.new)
    assert any(map(one.check, range(one.seeds)))
