"""robench-example: one plugin of each kind, and run hooks, as a third party would write them.

Nothing heavy is imported here: robench imports this module whenever it lists plugins.
"""

import json
import os
from pathlib import Path

from robench import hookimpl

robench_api = 1


@hookimpl
def robench_register_datasets(register):
    """Register the dataset."""
    register("halves", "robench_example.dataset:Halves", summary="uniform points on two sides of a hyperplane")


@hookimpl
def robench_register_transforms(register):
    """Register the transform."""
    register("every", "robench_example.transform:Every", summary="keep every k-th sample")


@hookimpl
def robench_register_models(register):
    """Register the model."""
    register("halves", "robench_example.model:HalvesModel", summary="which side of a hyperplane")


@hookimpl
def robench_register_wrappers(register):
    """Register the wrapper."""
    register("scaled", "robench_example.wrapper:Scaled", summary="multiply the logits")


@hookimpl
def robench_register_noises(register):
    """Register the noise."""
    register("laplace", "robench_example.noise:Laplace", summary="Laplace noise, which certifies in l1")


@hookimpl
def robench_register_attacks(register):
    """Register the attack."""
    register("descent", "robench_example.attack:Descent", summary="signed gradient descent on the margin")


@hookimpl
def robench_register_attack_modifiers(register):
    """Register the attack modifier."""
    register("again", "robench_example.attack_modifier:Again", summary="run an attack several times")


@hookimpl
def robench_register_certifiers(register):
    """Register the certifier."""
    register("hyperplane", "robench_example.certifier:Hyperplane", summary="exact radius of an affine classifier")


@hookimpl
def robench_register_bounds(register):
    """Register the bound."""
    register("twins", "robench_example.bound:Twins", summary="identical inputs with different labels")


@hookimpl
def robench_register_recipes(register):
    """Register the recipe."""
    register("logistic", "robench_example.recipe:Logistic", summary="logistic regression by gradient descent")


@hookimpl
def robench_register_importers(register):
    """Register the importer."""
    register("csv-radii", "robench_example.importer:CsvRadii", summary="radii from a comma-separated file")


def _log(**event):
    """Append one line to the file that ROBENCH_EXAMPLE_LOG names, if it names one."""
    if path := os.environ.get("ROBENCH_EXAMPLE_LOG"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


@hookimpl
def robench_run_started(run_id, request):
    """Log that a run began."""
    _log(event="started", run=run_id, evaluators=list(request["evaluators"]))


@hookimpl
def robench_evidence_written(run_id, rows):
    """Log how much evidence was written."""
    _log(event="written", run=run_id, rows=rows)


@hookimpl
def robench_run_finished(run_id):
    """Log that a run ended; a hook takes only the arguments it needs."""
    _log(event="finished", run=run_id)
