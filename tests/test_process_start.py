"""What a new process imports: half of a small cell is its start."""

import subprocess
import sys
from pathlib import Path

import pytest

#: What a stage script may only import once it knows that it has something to compute.
HEAVY = {"torch", "timm", "kornia", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "optuna", "dvc"}
SCRIPTS = """
import runpy, sys
for script in sys.argv[1:]:
    runpy.run_path(script)
    print(script, *sorted({heavy} & set(sys.modules)))
"""
#: Attacks a model as a cell does; prints what of the modules that it does not need has been imported.
CELL = """
import sys
import torch
from medrobust.attacks.engine import run
from medrobust.attacks.methods.iterative import PGD
from medrobust.core.params.training import ModelParams
from medrobust.models.build import build_classifier
from medrobust.patients import attack

model = build_classifier(ModelParams(timm="resnet10t", weights="none", image_size=32), ["no", "yes"]).eval()
images, labels = torch.rand(2, 1, 32, 32), torch.tensor([0, 1])
assert PGD(eps=0.1)(model, images, labels, seeds=torch.arange(2)).shape == images.shape
print(*sorted({"torch._dynamo", "sympy", "kornia", "optuna", "sklearn", "matplotlib"} & set(sys.modules)))
"""
#: What stands for the compiler while timm is imported gives way to it.
COMPILER = """
import sys
from medrobust.models.timm_import import COMPILER, UTILS, _Compiler, import_timm

sys.modules.update({name: _Compiler(name) for name in (COMPILER, UTILS)})
from torch._dynamo.utils import counters
assert not any(isinstance(sys.modules[name], _Compiler) for name in (COMPILER, UTILS))
assert counters is sys.modules[UTILS].counters
assert import_timm() is import_timm() is sys.modules["timm"]
"""
LATER = """
import torch
from medrobust.models.timm_import import import_timm

assert import_timm().__name__ == "timm"
from torchvision.ops import roi_align
print(tuple(roi_align(torch.zeros(1, 1, 8, 8), [torch.zeros(1, 4)], (2, 2)).shape))
import torch._dynamo
print(torch._dynamo.disable(abs)(-1))
"""


def printed(code: str, *arguments: str) -> list[str]:
    """The lines that Python code prints in a new process."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_stage_scripts_import_nothing_heavy() -> None:
    scripts = sorted(map(str, Path("stages").glob("*.py")))
    assert printed(SCRIPTS.format(heavy=HEAVY), *scripts) == scripts


def test_a_cell_imports_no_compiler_and_no_library_of_other_stages() -> None:
    assert printed(CELL) == [""]


@pytest.mark.slow
def test_the_compiler_is_imported_when_something_needs_it() -> None:
    assert printed(LATER) == ["(1, 1, 2, 2)", "1"]
    assert printed(COMPILER) == []
