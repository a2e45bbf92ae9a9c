"""The identity of what a module holds: a hash of values, of code, and of what the code refers to."""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import secrets
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.graph._fingerprint import tensor_digest
from robench.graph._packages import origin

__all__ = ["Identity", "identify"]

_SHOWN = (
    types.NoneType,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    range,
    types.EllipsisType,
    Fraction,
    Decimal,
)
_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, types.NotImplementedType)
_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
_SLOT = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_STORED = (types.MemberDescriptorType, types.GetSetDescriptorType)

_CONTAINERS = (dict, set, frozenset, list, tuple, deque, defaultdict, OrderedDict, types.MappingProxyType)
_SOLID = frozenset((*_CONTAINERS, *_SHOWN))

# Attributes of every torch.nn.Module; what else a module holds may be part of what it computes.
_OWN = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_HOOK_MODES = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")

_HEAP = 1 << 9  # a class made while Python runs, Py_TPFLAGS_HEAPTYPE

# What Python and torch keep in a class about the class, not about what it computes.
_BOOKKEEPING = frozenset(
    {
        "__module__",
        "__qualname__",
        "__dict__",
        "__weakref__",
        "__doc__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "_abc_impl",
        "__parameters__",
        "__orig_bases__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__signature__",
        "__conditional_annotations__",
        "_backward_cls",
        "_autograd_function_id",
        "_compiled_autograd_backward_state",
    }
)


class Identity:
    """Hashes of Python objects by content: equal content gives equal hashes, in every process.

    Attributes:
        known: whether everything so far could be identified; what could not got a hash that nothing else has.
    """

    def __init__(self, packages: Iterable[str] = ()) -> None:
        """Start with nothing hashed. Of classes of `packages`, what C code holds is known by what they would pickle."""
        self.known = True
        self._packages = frozenset(packages)
        self._done: dict[int, tuple[object, bytes]] = {}  # holds the objects, so that no id is used twice
        self._open: dict[int, int] = {}

    def of(self, value: object) -> bytes:
        """Return the sha256 of a value."""
        if type(value) in _SHOWN or isinstance(value, (*_TORCH, PurePath)):
            return _sha(type(value).__qualname__, repr(value))
        key = id(value)
        if key in self._done:
            return self._done[key][1]
        if key in self._open:  # a value inside of itself, by its depth
            return _sha("cycle", str(self._open[key]))
        self._open[key] = len(self._open)
        try:
            found = self._object(value)
        except Exception:  # whatever another's object does when it is looked at
            found = self._unknown()
        del self._open[key]
        self._done[key] = value, found
        return found

    def _unknown(self) -> bytes:
        self.known = False
        return secrets.token_bytes(32)

    def _all(self, name: str, *values: object) -> bytes:
        return _sha(name, *(self.of(value) for value in values))

    def _object(self, value: object) -> bytes:
        """Return the hash of what is more than a plain value."""
        if isinstance(value, Tensor):
            extra = () if type(value) in (Tensor, nn.Parameter, nn.Buffer) else (type(value),)
            return _sha("tensor", tensor_digest(value.resolve_conj().resolve_neg()), self._all("", vars(value), *extra))
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            items: object = array.tolist() if array.dtype.hasobject else array.tobytes()
            if array.dtype.names is not None:  # column by column: what pads a record is anything
                items = [np.ascontiguousarray(array[name]) for name in array.dtype.names]
            return self._all("array", str(array.dtype.descr), array.shape, items)
        if isinstance(value, enum.Enum):
            return self._all("enum", type(value), value.name, value.value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._python_module(value)
        if isinstance(value, functools.cached_property):
            return self._all("cached property", value.func)
        if callable(value) or isinstance(value, staticmethod | classmethod | property):
            found = self._callable(value)
            if found is not None:
                return found
        if isinstance(value, weakref.ref):
            return self._all("weak", value())
        if isinstance(value, types.CellType):
            try:
                return self._all("cell", value.cell_contents)
            except ValueError:
                return _sha("empty cell")
        if isinstance(value, _STORED):
            return _sha("stored", value.__name__)
        if isinstance(value, slice):
            return self._all("slice", value.start, value.stop, value.step)
        return self._instance(value)

    def _items(self, value: object) -> Iterable[bytes]:
        """Return the hashes of what a container holds. Dicts keep their order, which a module can see."""
        if isinstance(value, dict | types.MappingProxyType):
            return [self._all("item", key, item) for key, item in value.items()]
        if isinstance(value, set | frozenset):
            return sorted(self.of(item) for item in value)
        if isinstance(value, list | tuple | deque):
            return [self.of(item) for item in value]
        return []

    def _instance(self, value: object) -> bytes:
        """Return the hash of an object by its class, its items and its attributes."""
        cls = type(value)
        if _state_in_c(cls):
            return self._reduced(value)
        shown = next((base for base in _SHOWN if isinstance(value, base)), None)
        plain = "" if shown is None else str(vars(shown)["__repr__"](value))
        state = {**getattr(value, "__dict__", {}), **{n: getattr(value, n) for n in _slots(cls) if hasattr(value, n)}}
        factory = getattr(value, "default_factory", None)
        name = cls.__qualname__ if cls.__module__ in ("builtins", "collections") else self.of(cls)
        return _sha("instance", name, plain, self.of(factory), *self._items(value), *self._attributes(state))

    def _reduced(self, value: object) -> bytes:
        """Return the hash of what an object would be made from again, where its package is one to ask."""
        if type(value).__module__.partition(".")[0] not in self._packages:
            return self._unknown()
        made = value.__reduce_ex__(4)
        if isinstance(made, str):
            return self._unknown()
        held = [list(part) if isinstance(part, Iterator) else part for part in made]
        return self._all("reduced", type(value), held)

    def _attributes(self, state: dict[str, Any]) -> list[bytes]:
        return [_sha(name, self.of(state[name])) for name in sorted(state)]

    def _module(self, module: nn.Module) -> bytes:
        """Return the hash of a torch module: code, tensors, attributes, hooks, and the modules in it."""
        inner = vars(module).get("_modules", {})
        if "_orig_mod" in inner:  # what torch.compile wraps
            return self._all("compiled", inner["_orig_mod"])
        if isinstance(module, torch.jit.ScriptModule):
            return self._unknown()  # its code is no Python
        hooks = [
            (name, hook, [vars(module).get(mode, {}).get(key, False) for mode in _HOOK_MODES])
            for name in _HOOKS
            for key, hook in vars(module).get(name, {}).items()
        ]
        held = {key: value for key, value in vars(module).items() if key not in _OWN}
        children = [(name, child) for name, child in inner.items()]
        tensors = {**module._parameters, **module._buffers}
        return _sha(
            "module", self.of(type(module)), *self._attributes(tensors), self._all("", hooks, children),
            *self._attributes(held),
        )  # fmt: skip

    def _callable(self, value: Any) -> bytes | None:
        """Return the hash of a function or what wraps one; None for an object that is called by its class."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._all("method", value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            return self._all("partial", value.func, value.args, value.keywords)
        if isinstance(value, staticmethod | classmethod):
            return self._all(type(value).__name__, value.__func__)
        if isinstance(value, property):
            return self._all("property", value.fget, value.fset, value.fdel)
        if isinstance(value, _BUILTIN):
            owner = value.__self__
            if owner is None or isinstance(owner, type | types.ModuleType):
                return _sha("builtin", value.__module__ or "", value.__qualname__, self.of(owner))
            return self._all("builtin method", value.__name__, owner)
        if isinstance(value, _SLOT):
            return self._all("slot", value.__name__, value.__objclass__)
        if isinstance(value, np.ufunc):
            name = str(getattr(value, "__name__", ""))
            return _sha("ufunc", name, np.__version__) if getattr(np, name, None) is value else None
        if isinstance(value, functools._lru_cache_wrapper):
            return self._all("cached", value.__wrapped__)
        return None

    def _function(self, function: types.FunctionType) -> bytes:
        """Return the hash of a function: code, defaults, closure, and the globals that it reads."""
        package = origin(function.__globals__.get("__name__"))
        held = self._all(
            "", function.__code__, function.__defaults__, function.__kwdefaults__, function.__closure__,
            {name: value for name, value in vars(function).items() if name != "__wrapped__"},
        )  # fmt: skip
        if package is not None:
            return _sha("function", package, function.__qualname__, held)
        names = sorted(_global_names(function.__code__))
        read = {name: function.__globals__[name] for name in names if name in function.__globals__}
        return _sha("function", function.__qualname__, held, *self._attributes(read))

    def _code(self, code: types.CodeType) -> bytes:
        """Return the hash of what a code object does, wherever its source stands."""
        return self._all(
            "code", code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable,
        )  # fmt: skip

    def _class(self, cls: type) -> bytes:
        """Return the hash of a class: package and version where it has one, else its methods, attributes and bases."""
        package = origin(cls.__module__)
        by_name = _found(cls.__module__, cls.__qualname__)
        if package is not None and (by_name is cls or not cls.__flags__ & _HEAP):
            return _sha("class", package, cls.__module__, cls.__qualname__)
        held = {name: value for name, value in vars(cls).items() if name not in _BOOKKEEPING}
        return _sha("class", cls.__qualname__, *map(self.of, cls.__bases__), *self._attributes(held))

    def _python_module(self, module: types.ModuleType) -> bytes:
        """Return the hash of an imported module: package and version, or the bytes of its file."""
        package = origin(module.__name__)
        if package is not None:
            return _sha("python", package, module.__name__)
        file = getattr(module, "__file__", None)
        return self._unknown() if file is None else _sha("python", Path(file).read_bytes())


def identify(label: str, *values: object, packages: Iterable[str] = ()) -> tuple[str, bool]:
    """Return the sha256 (hex) of `values` by content under `label`, and whether it names them, in every process.

    It covers code and all that the code refers to. Of classes of `packages`, what C code holds is known by what they
    would pickle; nothing is unpickled.
    """
    identity = Identity(packages)
    found = _sha(label, *(identity.of(value) for value in values))
    return found.hex(), identity.known


def _slots(cls: type) -> list[str]:
    """Return the names of the slots that Python classes declare."""
    return [
        name
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType)
    ]


def _state_in_c(cls: type) -> bool:
    """Whether instances hold more than a container's items, attributes and slots: what C code put there."""
    solid = next((base for base in cls.__mro__ if base in _SOLID), object)
    pointers = (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0) + len(_slots(cls))
    inherited = (solid.__dictoffset__ > 0) + (solid.__weakrefoffset__ > 0)
    size = solid.__basicsize__ + (pointers - inherited) * np.dtype(np.intp).itemsize
    return cls.__basicsize__ > size or cls.__itemsize__ > solid.__itemsize__


def _global_names(code: types.CodeType) -> set[str]:
    """Return the names of the globals that code and the functions within it read."""
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(item) for item in code.co_consts if isinstance(item, types.CodeType)))


def _found(module: str, path: str) -> object:
    """Return what a module has under a dotted path, None where nothing."""
    return functools.reduce(lambda owner, name: getattr(owner, name, None), path.split("."), sys.modules.get(module))


def _sha(*parts: str | bytes) -> bytes:
    """Return the sha256 of the parts, their lengths and kinds."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        sha.update(f"{type(part).__name__} {len(data)}:".encode() + data)
    return sha.digest()
