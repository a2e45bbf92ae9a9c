"""States no API number."""

from robench import hookimpl


@hookimpl
def robench_register_attacks(register):
    register("from-nowhere", "robench_bad_no_api:Never")
