"""Written for an API that is not there yet."""

from robench import hookimpl

robench_api = 2


@hookimpl
def robench_register_attacks(register):
    register("from-the-future", "robench_bad_api:Never")
