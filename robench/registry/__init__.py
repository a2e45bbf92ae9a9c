"""Plugins: found by entry point, loaded one by one, looked up by name, built from specs."""

from robench.kinds import KINDS, Kind
from robench.registry._loading import Entry, PluginRow
from robench.registry._plugins import Part, Plugins, Resolved, load_plugins
from robench.registry._run_hooks import PluginWarning, RunHooks
from robench.registry._sources import Source, find_sources

__all__ = [
    "KINDS",
    "Entry",
    "Kind",
    "Part",
    "PluginRow",
    "PluginWarning",
    "Plugins",
    "Resolved",
    "RunHooks",
    "Source",
    "find_sources",
    "load_plugins",
]
