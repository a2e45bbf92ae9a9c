"""The built-in plugins: one package per family, each loaded and reported on its own.

The same door that third parties use: an entry point of the group `robench`. A family's `__init__` holds
only hook implementations, so that listing plugins imports nothing heavy.
"""

robench_api = 1

robench_modules = (
    "robench_plugins.datasets",
    "robench_plugins.models",
    "robench_plugins.zoo",
    "robench_plugins.attacks",
    "robench_plugins.peers",
    "robench_plugins.verify",
    "robench_plugins.lipschitz",
    "robench_plugins.smoothing",
    "robench_plugins.training",
    "robench_plugins.importers",
    "robench_plugins.theory",
)
