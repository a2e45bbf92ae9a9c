"""One letter of a hook's name is wrong."""

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_atacks(register):
    register("never", "robench_bad_hook:Never")
