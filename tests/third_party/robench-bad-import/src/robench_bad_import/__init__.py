"""Imports what is not there."""

import robench_a_module_that_does_not_exist  # noqa: F401

robench_api = 1
