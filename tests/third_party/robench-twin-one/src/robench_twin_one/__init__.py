"""Registers names that other distributions have too."""

from dataclasses import dataclass

from robench import Attack, Proposal, hookimpl

robench_api = 1


@hookimpl
def robench_register_attacks(register):
    register("twin", "robench_twin_one:Twin", summary="what one makes of it", default=True)
    register("pgd", "robench_twin_one:Twin", summary="not the built-in one", default=True, cost="small")


@dataclass(frozen=True)
class Twin(Attack):
    """Proposes the clean input."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x)
