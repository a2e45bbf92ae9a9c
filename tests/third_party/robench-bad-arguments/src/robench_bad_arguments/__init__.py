"""A hook with an argument that it is never given, next to one that is right."""

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_models(register):
    register("bad-arguments", "robench_bad_arguments:Never")


@hookimpl
def robench_register_attacks(register, registry):
    register("bad-arguments", "robench_bad_arguments:Never")
