"""Plugins that load, and break their contract when they run."""

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_attacks(register):
    """Register attacks, none of which can be believed."""
    register("liar-nan", "robench_liars.attacks:Nan", summary="proposes NaN for every second sample")
    register("liar-shape", "robench_liars.attacks:Shape", summary="proposes one point for the whole batch")
    register("liar-box", "robench_liars.attacks:Box", summary="proposes points outside the domain")
    register("liar-budget", "robench_liars.attacks:Budget", summary="proposes points outside the budget")
    register("liar-success", "robench_liars.attacks:Success", summary="claims success with the clean input")
    register("liar-raises", "robench_liars.attacks:Raises", summary="raises in the middle of its work")


@hookimpl
def robench_register_certifiers(register):
    """Register certifiers, none of which can be believed."""
    register("liar-radius", "robench_liars.certifiers:Radius", summary="1.5 times the exact linear radius")
    register("liar-open-mouth", "robench_liars.certifiers:Raises", summary="raises in the middle of its work")


@hookimpl
def robench_register_bounds(register):
    """Register bounds, none of which can be believed."""
    register("liar-rising", "robench_liars.bounds:Rising", summary="a ceiling that rises with ε")
    register("liar-nan", "robench_liars.bounds:Nan", summary="NaN at every ε")
    register("liar-short", "robench_liars.bounds:Short", summary="one value, whatever the number of ε")
    register("liar-words", "robench_liars.bounds:Words", summary="a direction that nobody knows")
    register("liar-raises", "robench_liars.bounds:Raises", summary="raises in the middle of its work")
    register("liar-low", "robench_liars.bounds:Low", summary="a ceiling below what somebody reaches")
