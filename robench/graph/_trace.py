"""Traces a module's forward pass with tensors that record what is done to them.

A `Traced` tensor holds no numbers, only its place in the graph under construction. Every torch function
called while tracing is looked up by name in `_torch_ops.HANDLERS`; what involves no traced tensor
(weights normalised on the fly, constants) is simply computed. The batch size is an integer that may be
handed on as a size but not looked at, so that the graph holds for every batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robench.errors import GraphError
from robench.graph._builder import Builder
from robench.graph._ir import Attribute

__all__ = ["BATCH", "Handler", "Traced", "Tracer", "function_name"]

Handler = Callable[..., Any]


class _Batch(int):
    """The batch size: a size to hand on, not a number to compute with."""

    def _refuse(self, *others: object) -> NoReturn:
        raise GraphError("the forward pass computes with the batch size: it must treat every batch alike")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __int__ = __float__ = _refuse
    __hash__ = int.__hash__


# The number is only seen by torch's argument checks.
BATCH = _Batch(2)


@dataclass
class _Family:
    """Traced tensors that share memory; `sure` is False where some may be copies, as a cast is."""

    members: list[weakref.ref[Traced]] = field(default_factory=list)
    sure: bool = True


class Traced(Tensor):
    """A tensor of the traced forward pass: a node of the graph, and the tensors that share its memory."""

    place: int | None
    family: _Family

    @property
    def node(self) -> int:
        """The node. Raises GraphError where an operation in place on what may be a copy left it open."""
        if self.place is None:
            raise GraphError(
                "a tensor is used after an operation in place on its cast, which may or may not have changed it: "
                "use the form that returns a new tensor"
            )
        return self.place

    @staticmethod
    def make(node: int, shape: tuple[int, ...], family: _Family | None = None) -> Traced:
        """Return a traced tensor; `family` is that of the tensor that it is a view of."""
        with torch._C.DisableTorchFunctionSubclass():
            out = torch.Tensor._make_subclass(Traced, torch.empty((int.__index__(BATCH), *shape), device="meta"))
        out.place = node
        out.family = _Family() if family is None else family
        out.family.members.append(weakref.ref(out))
        return out

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Only reached outside of a trace."""
        raise GraphError("a tensor of a finished trace was used: the module keeps activations between calls")


class Tracer(TorchFunctionMode):
    """While active, turns torch functions on traced tensors into graph nodes."""

    def __init__(self, builder: Builder, handlers: Mapping[str, Handler], like: Tensor) -> None:
        """Record on `builder`; traced tensors have the dtype and device of `like`."""
        super().__init__()
        self.builder = builder
        self.like = like
        self._handlers = handlers
        self._layers: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Record one call."""
        kwargs = dict(kwargs or {})
        leaves = list(_leaves((args, kwargs)))
        if not any(isinstance(leaf, Traced) for leaf in leaves):
            if any(leaf is BATCH for leaf in leaves):
                raise GraphError(f"{function_name(func)} makes a tensor of the batch size{self.where()}")
            return func(*args, **kwargs)
        name = function_name(func)
        if "input" in kwargs and not args:
            args = (kwargs.pop("input"),)
        in_place = name.endswith("_") and not name.endswith("__")
        handler = self._handlers.get(name.rstrip("_") if in_place else name)
        if handler is None:
            raise GraphError(f"{name} is not supported{self.where()}")
        try:
            out = handler(self, *args, **kwargs)
        except GraphError as error:
            raise GraphError(f"{error}{self.where()}") from None
        except TypeError as error:
            raise GraphError(f"{name}: arguments not supported ({error}){self.where()}") from None
        return self.update(args[0], out) if in_place else out

    def emit(
        self,
        op: str,
        *inputs: Traced,
        constants: Mapping[str, Tensor] | None = None,
        **attributes: Attribute,
    ) -> Traced:
        """Append an operator to the graph."""
        return self.made(self.builder.add(op, *(x.node for x in inputs), constants=constants, **attributes))

    def made(self, node: int, view_of: Traced | None = None) -> Traced:
        """Return the traced tensor of a node; views share the memory of what they look at."""
        return Traced.make(node, self.builder.shape(node), view_of.family if view_of is not None else None)

    def shape(self, x: Traced) -> tuple[int, ...]:
        """Return the shape without the batch dimension."""
        return self.builder.shape(x.node)

    def axis(self, x: Traced, dim: int) -> int:
        """Return the unbatched axis of a dimension. Raises GraphError for the batch."""
        rank = len(self.shape(x)) + 1
        if not -rank <= dim < rank or dim % rank == 0:
            raise GraphError(f"dimension {dim} is the batch, or outside the {rank} dimensions")
        return dim % rank - 1

    def update(self, x: object, value: Traced) -> Traced:
        """Record that `x` was overwritten with `value`, in place. Raises GraphError where views would see it."""
        if not isinstance(x, Traced):
            raise GraphError("a constant is overwritten with an activation")
        if self.builder.shape(value.node) != self.builder.shape(x.node):
            raise GraphError("an operation in place changes the shape")
        relatives = [other for other in (link() for link in x.family.members) if other is not None]
        if any(other.place not in (x.node, None) for other in relatives):
            raise GraphError("an operation in place on a tensor that has views: use the form that returns a new tensor")
        for other in relatives:
            other.place = value.node if x.family.sure or other is x else None
        return x

    def entered(self, layer: str) -> None:
        """Note that a layer's forward pass starts."""
        self._layers.append(layer)

    def left(self) -> None:
        """Note that it ended."""
        self._layers.pop()

    def where(self) -> str:
        """Say in which layer the trace is."""
        return f" (in layer {self._layers[-1]})" if self._layers and self._layers[-1] else ""


def function_name(func: Callable[..., Any]) -> str:
    """Return the name of a torch function; of a property (`x.shape`) with a dot before it."""
    name = getattr(func, "__name__", str(func))
    return f".{func.__self__.__name__}" if name == "__get__" and hasattr(func, "__self__") else name


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value
