"""Import timm without torch's compiler, which costs 1.2 s at every start of a process and is not used here.

Two places import it: `torchvision.ops.roi_align` for a function that it may call later, and a class in timm for a
decorator that keeps the compiler off a function.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"


class _Compiler(ModuleType):
    """Stands for the compiler while timm is imported; whatever needs more of it gets the compiler itself."""

    __path__: list[str] = []  # noqa: RUF012  of a package, as the compiler is one

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        """Nothing is compiled, so there is nothing to keep the compiler from."""
        return function

    @staticmethod
    def is_compile_supported(device: str) -> bool:
        """As in `torch._dynamo.utils`, which is imported by the first call."""
        return bool(import_module(UTILS).is_compile_supported(device))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(import_module(self.__name__), name)


def import_timm() -> Any:
    """The module `timm`; the first call imports it."""
    if "timm" not in sys.modules and COMPILER not in sys.modules:
        sys.modules.update({name: _Compiler(name) for name in (COMPILER, UTILS)})
        try:
            return import_module("timm")
        finally:
            _remove_stand_ins()
    return import_module("timm")


def _remove_stand_ins() -> None:
    for name in (COMPILER, UTILS):
        if isinstance(sys.modules.get(name), _Compiler):
            del sys.modules[name]
