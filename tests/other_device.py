"""A GPU that is none: tensors that say they lie on `cuda:0`, refuse CPU tensors as CUDA does, and hold values.

Inside `other_device` code takes the ways of a GPU on a machine without one, so that a forgotten `.to(device)` is
found there. Below the surface all is the CPU's, its autocast and optimisers too, so that results are those of the
CPU bit for bit; kernels, their rounding and speed, memory and streams are not shown.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
HERE, THERE = torch.device("cpu"), torch.device("cuda:0")
COPIES = {aten.copy_, aten._to_copy}
JOINED = {aten.cat, aten.stack}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
#: Whether torch is at work on tensors over there, so that what it makes for itself belongs there too.
_busy_there: ContextVar[bool] = ContextVar("busy there", default=False)


class There(Tensor):
    """A tensor on the GPU that is none; `held` holds its values."""

    held: Tensor

    @staticmethod
    def __new__(cls: type["There"], held: Tensor) -> "There":
        found: There = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=HERE,
        )  # fmt: skip
        found.held = held
        return found

    def __init__(self, held: Tensor) -> None: ...

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # a file is read to the CPU

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None  # by which nn.Module.to knows what it moves

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> "There":
        return There(parts["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _compute(func, args, kwargs or {})


class _Move(torch.autograd.Function):
    """From one device to the other and, for gradients, back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, to_there: bool) -> Tensor:
        ctx.back = not to_there
        return _moved(tensor.detach(), to_there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _moved(gradient, ctx.back), None


def _moved(tensor: Tensor, to_there: bool) -> Tensor:
    held = tensor.held if isinstance(tensor, There) else tensor
    with torch.utils._python_dispatch._disable_current_modes():
        return There(held.clone()) if to_there else held.clone()


class _Surface(TorchFunctionMode):
    """What Python asks of a tensor itself: where it lies, to go elsewhere, and for its bytes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, first, name = kwargs or {}, args[0] if args else None, getattr(func, "__name__", "")
        if isinstance(first, There):
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
            if name == "tolist":
                return first.held.tolist()
            asked = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else ""
            if asked in ("device", "is_cuda", "is_cpu"):
                return {"device": THERE, "is_cuda": True, "is_cpu": False}[asked]
        if func is Tensor.pin_memory:
            return first  # page-locked memory is the CPU's
        if isinstance(first, Tensor) and func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._to(func, first, args[1:], kwargs)
        with _busy(any(isinstance(leaf, There) for leaf in tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)

    def _to(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        if func in (Tensor.cpu, Tensor.cuda):
            args, kwargs = (HERE if func is Tensor.cpu else THERE,), {}
        if args and isinstance(args[0], Tensor):  # .to(like)
            like = {"device": THERE if isinstance(args[0], There) else HERE, "dtype": args[0].dtype}
            args, kwargs = (), {**like, **kwargs}
        kwargs.pop("copy", None)
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        to_there = isinstance(tensor, There) if device is None else device.type == "cuda"
        if to_there != isinstance(tensor, There):
            tensor = _Move.apply(tensor, to_there)
        given: Any = {"dtype": dtype, "memory_format": layout}
        given = {key: value for key, value in given.items() if value is not None}
        return Tensor.to(tensor, **given) if given else tensor


@contextmanager
def _busy(there: bool) -> Iterator[None]:
    token = _busy_there.set(there)
    try:
        yield
    finally:
        _busy_there.reset(token)


class _Depths(TorchDispatchMode):
    """What is computed where no tensor of the other device is named: copies to it, and tensors made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, There) for tensor in tensors)
    device, packet = kwargs.get("device"), func.overloadpacket
    made = device is not None and (torch.device(device).type == "cuda" or (_busy_there.get() and not tensors))
    if packet in INDEXED:
        _check_index(*args)
    elif there and packet not in COPIES:
        _check_same(func, args, tensors)
    if (there or made) and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: the generator, which is the CPU's, and cuda:0 are not the same device")
    if device is not None:
        kwargs = {**kwargs, "device": HERE}
    plain_args, plain_kwargs = tree_map_only(There, lambda tensor: tensor.held, (args, kwargs))
    found = func(*plain_args, **plain_kwargs)
    if packet is aten.copy_:
        return args[0]
    if there or made:
        found = tree_map_only(Tensor, There, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if there else found


def _check_same(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Only numbers, tensors without dimensions, may come from the CPU, to be read and not to be joined."""
    written = args[:1] if func._schema.is_mutable and isinstance(args[0], Tensor) else ()
    strict = tensors if func.overloadpacket in JOINED else written
    own = {id(tensor) for tensor in strict}
    if any(not isinstance(tensor, There) and (tensor.ndim or id(tensor) in own) for tensor in tensors):
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")


def _check_index(target: Tensor, indices: Any, *values: Any) -> None:
    """An index may come from the CPU, but a CPU tensor takes none from elsewhere; nor may what is put there."""
    there = isinstance(target, There)
    if not there and any(isinstance(index, There) for index in indices):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if any(isinstance(v, Tensor) and v.ndim and isinstance(v, There) != there for v in values):
        raise RuntimeError("index_put: Expected all tensors to be on the same device")


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Inside, torch believes in one GPU."""
    chance = torch.Generator()
    facts: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: 1, "is_bf16_supported": lambda **_: True,
        "mem_get_info": lambda *_: (2**30, 2**30), "synchronize": lambda *_: None, "empty_cache": lambda: None,
        "current_device": lambda: 0, "set_device": lambda *_: None, "_lazy_init": lambda: None,
        "get_rng_state": lambda *_: chance.get_state(), "set_rng_state": lambda state, *_: chance.set_state(state),
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **facts))
        stack.enter_context(mock.patch("torch.optim.Optimizer._accelerator_graph_capture_health_check"))
        for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype"):
            stack.enter_context(mock.patch.object(torch, name, _on_cpu(getattr(torch, name))))
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(..., device=) asks to be moved
        stack.enter_context(_Depths())  # type: ignore[no-untyped-call]
        stack.enter_context(_Surface())
        yield THERE


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(device: str, *args: Any, **kwargs: Any) -> Any:
        return function("cpu" if device == "cuda" else device, *args, **kwargs)

    return call
