"""Registers factories that fail when they are used."""

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_attacks(register):
    for name in ("raises", "exits", "refuses", "thawed", "plain", "untyped", "empty"):
        register(f"bad-{name}", f"robench_bad_factory.factories:{name.capitalize()}")
    register("bad-class", "robench_bad_factory.factories:NotThere")
    register("bad-module", "robench_bad_factory.broken:Attack")
