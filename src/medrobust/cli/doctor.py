"""`medrobust doctor`: what is installed and configured, and what is missing."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from medrobust.cli import repository
from medrobust.cli.options import counted, say

#: Packages whose versions results name, and the extra that installs each optional one.
PACKAGES = ("medrobust", "torch", "torchvision", "timm", "kornia", "numpy", "dvc")
OPTIONAL = {
    "nibabel": "formats", "pydicom": "formats", "h5py": "formats", "onnx": "onnx", "onnxscript": "onnx",
    "onnxruntime": "onnx", "gradio": "app", "distributed": "scale", "dvc-s3": "s3",
}  # fmt: skip


@click.command(epilog="Example: medrobust doctor")
def doctor() -> None:
    """Show versions, devices, data, remotes and locks of the current folder, and what is missing.

    Each remote of DVC is asked whether it answers; no other address is. Exit code 1 if something that the pipeline
    needs is missing.
    """
    folder = Path()
    asked = repository.Question(folder) if (folder / ".dvc").is_dir() and _version("dvc") else None
    missing = [*_packages(), *_devices(), *_clone(folder, asked)]
    for problem in missing:
        click.echo(f"missing: {problem}")
    say("nothing is missing" if not missing else f"missing: {counted(len(missing), 'thing')}")
    if missing:
        raise SystemExit(1)


def _packages() -> list[str]:
    click.echo(f"python {platform.python_version()}, {platform.platform()}")
    problems = []
    for name in PACKAGES:
        found = _version(name)
        click.echo(f"{name} {found or 'not installed'}")
        if found is None:
            problems.append(f"the package {name}. Run: pip install medrobust")
    for name, extra in OPTIONAL.items():
        found = _version(name)
        click.echo(
            f"{name} {found}" if found else f"{name} not installed (optional: pip install medrobust[{extra}])"
        )
    return problems


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if _version("torch") is None:
        return []
    import torch

    from medrobust.core.errors import UserError
    from medrobust.core.runtime import device

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    click.echo(f"GPUs: {', '.join(names) or 'none'}")
    try:
        click.echo(f"device that is used: {device()}")
    except UserError as error:
        return [str(error)]
    return []


def _clone(folder: Path, asked: repository.Question | None) -> list[str]:
    """The parts of a clone; outside one, that there is none."""
    if not (folder / "dvc.yaml").is_file():
        click.echo("pipeline: this folder has no dvc.yaml; models can be used, and nothing can be trained here")
        return []
    repository.packages(folder / "requirements.lock")
    problems = [] if (folder / "dvc.lock").is_file() else ["dvc.lock: no run is recorded. Run: make repro"]
    problems += [*repository.programs(), *repository.data(folder)]
    problems += repository.pipeline(asked, folder / "dvc.lock")
    repository.locks(folder / ".dvc" / "tmp")
    return problems
