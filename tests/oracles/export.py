"""ONNX files from torch's own exporters."""

import contextlib
import io
import logging
import warnings

import torch


def export(module, shape, path, *, dynamo, free_batch):
    x = torch.rand(3 if free_batch else 1, *shape)
    options = {"dynamo": dynamo, "input_names": ["x"], "verbose": False}
    if free_batch and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif free_batch:
        options["dynamic_axes"] = {"x": {0: "batch"}}
    # Both exporters warn about themselves and report on stdout.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            torch.onnx.export(module, (x,), path, **options)
        finally:
            logging.disable(logging.NOTSET)
    return path
