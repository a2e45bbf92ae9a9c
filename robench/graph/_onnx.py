"""From an ONNX file to a graph that runs on any batch, whatever batch the file was exported with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from robench.errors import DataError, GraphError, RobenchError
from robench.graph._builder import Builder
from robench.graph._ir import Graph
from robench.graph._onnx_call import Call, Value
from robench.graph._onnx_file import as_tensor, quoted, read_model
from robench.graph._onnx_fold import FOLDERS, TYPES
from robench.graph._onnx_ops import IMPORTERS
from robench.graph.operators._base import MAX_ELEMENTS
from robench.text import one_line

__all__ = ["from_onnx"]

_OLDEST_OPSET = 7  # before it, broadcasting had rules of its own
_STANDARD = ("", "ai.onnx")


def from_onnx(path: str | Path) -> Graph:
    """Return the graph of an ONNX classifier; a softmax at the very end is dropped, so that the output is logits.

    Raises DataError for a file that is missing, truncated or damaged, GraphError for an operator (by name)
    or a shape that a graph cannot express, InputError where the `onnx` package is missing.
    """
    path = Path(path)
    model = read_model(path)
    try:
        return _Import(model, path).run()
    except DataError:
        raise
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None


class _Import:
    """One import: the values that the file names, and the graph under construction."""

    def __init__(self, model: Any, path: Path) -> None:
        self.proto, self.path = model.graph, path
        versions = [entry.version for entry in model.opset_import if entry.domain in _STANDARD]
        self.opset = max(versions, default=0)
        if self.opset < _OLDEST_OPSET:
            raise GraphError(f"operator set {self.opset} is too old: convert the file to {_OLDEST_OPSET} or newer")
        if self.proto.sparse_initializer:
            raise GraphError("sparse weights are not supported")
        self.values: dict[str, Value] = {t.name: as_tensor(t, path) for t in self.proto.initializer}
        inputs = [value for value in self.proto.input if value.name not in self.values]
        if len(inputs) != 1 or len(self.proto.output) != 1:
            raise GraphError(f"{len(inputs)} inputs and {len(self.proto.output)} outputs: a classifier has one of each")
        self.output = self.proto.output[0].name
        self._open_input(inputs[0])

    def _open_input(self, value: Any) -> None:
        """Read the input's shape: the first dimension is the batch, a lone one is a bare vector."""
        tensor = value.type.tensor_type
        dtype = TYPES.get(tensor.elem_type)
        if dtype is None or not dtype.is_floating_point:
            raise GraphError(f"input {quoted(value.name)} holds no floating point numbers")
        if not tensor.HasField("shape") or not tensor.shape.dim:
            raise GraphError(f"input {quoted(value.name)} has no shape: export with a fixed input size")
        dims = list(tensor.shape.dim)
        self.batched = len(dims) > 1
        self.batch: int | None = dims[0].dim_value if self.batched and dims[0].dim_value > 0 else None
        sizes = []
        for position, dim in enumerate(dims[int(self.batched) :], int(self.batched)):
            if dim.dim_value < 1:
                name = f" ({quoted(dim.dim_param)})" if dim.dim_param else ""
                raise GraphError(
                    f"dimension {position}{name} of input {quoted(value.name)} is dynamic: export with a fixed size"
                )
            sizes.append(min(dim.dim_value, MAX_ELEMENTS + 1))
        self.builder = Builder(sizes)
        self.values[value.name] = 0

    def run(self) -> Graph:
        """Import every operator in the order of the file."""
        for number, node in enumerate(self.proto.node, 1):
            if node.domain not in _STANDARD or not (node.op_type in IMPORTERS or node.op_type in FOLDERS):
                operator = quoted(node.op_type if node.domain in _STANDARD else f"{node.domain}::{node.op_type}")
                name = f" {quoted(node.name)}" if node.name else ""
                raise GraphError(f"operator {operator} is not supported (node {number}{name} of the file)")
            used = [name for name in node.output if name]
            for name in used:
                if name in self.values:
                    raise DataError(f"{self.path}: {quoted(name)} is given twice; the file is damaged")
            outputs = self._apply(node)
            if any(node.output[len(outputs) :]):
                raise GraphError(f"{node.op_type}: its output {len(outputs)} is not supported")
            self.values.update({name: out for name, out in zip(node.output, outputs, strict=False) if name})
        out = self.values.get(self.output)
        if out is None:
            raise DataError(f"{self.path}: nothing gives the output {quoted(self.output)}; the file may be truncated")
        if isinstance(out, Tensor):
            raise GraphError("the output does not depend on the input")
        *rest, classes = self.builder.shape(out)
        if not self.batched and rest and all(size == 1 for size in rest):  # a net that makes a batch of one itself
            out = self.builder.reshape(out, (classes,))
        return self.builder.finish(out)

    def _apply(self, node: Any) -> Sequence[Value]:
        call = self._call(node)
        constant = all(not isinstance(value, int) for value in call.inputs)
        table = FOLDERS if constant else IMPORTERS
        run = table.get(call.op)
        if run is None:
            raise GraphError(f"operator {call.op!r} is not supported on {'constants' if constant else 'activations'}")
        try:
            out = run(call)
            call.finish()
        except RobenchError:
            raise
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError, ZeroDivisionError) as error:
            reason = one_line(error, 120)
            raise DataError(f"{self.path}: {call.op} {quoted(node.name)} is inconsistent ({reason})") from None
        return out if isinstance(out, list | tuple) else [out]  # type: ignore[list-item]

    def _call(self, node: Any) -> Call:
        from onnx import AttributeProto, helper

        inputs: list[Value | None] = []
        for name in node.input:
            if name and name not in self.values:
                raise DataError(
                    f"{self.path}: {node.op_type} reads {quoted(name)}, which nothing before it gives: "
                    "the file is damaged, or its operators run in a circle"
                )
            inputs.append(self.values[name] if name else None)
        attributes = {}
        for entry in node.attribute:
            if entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or entry.ref_attr_name:
                raise GraphError(f"{node.op_type}: attribute {quoted(entry.name)} is not supported")
            try:
                value = helper.get_attribute_value(entry)
            except ValueError:
                raise DataError(f"{self.path}: attribute {quoted(entry.name)} of {node.op_type} is damaged") from None
            attributes[entry.name] = as_tensor(value, self.path) if entry.type == AttributeProto.TENSOR else value
        return Call(
            node.op_type,
            inputs,
            attributes,
            outputs=len(node.output),
            last=len(node.output) > 0 and node.output[0] == self.output,
            opset=self.opset,
            builder=self.builder,
            batched=self.batched,
            batch=self.batch,
        )
