"""Runs: a manifest, evidence and witnesses in one folder, written so that a kill at any instant loses nothing."""

from robench.runs._find import find_runs
from robench.runs._git import git_state
from robench.runs._layout import folder_name, new_run_id, open_results, slug
from robench.runs._load import load
from robench.runs._manifest import (
    MANIFEST_VERSION,
    ClassifierInfo,
    Component,
    DatasetInfo,
    Display,
    Environment,
    EvaluatorInfo,
    Flag,
    GitState,
    Manifest,
    PluginInfo,
    Request,
    RunId,
    StageInfo,
    Trust,
)
from robench.runs._run import Run, samples_hash

__all__ = [
    "MANIFEST_VERSION",
    "ClassifierInfo",
    "Component",
    "DatasetInfo",
    "Display",
    "Environment",
    "EvaluatorInfo",
    "Flag",
    "GitState",
    "Manifest",
    "PluginInfo",
    "Request",
    "Run",
    "RunId",
    "StageInfo",
    "Trust",
    "find_runs",
    "folder_name",
    "git_state",
    "load",
    "new_run_id",
    "open_results",
    "samples_hash",
    "slug",
]
