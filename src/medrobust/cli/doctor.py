"""`medrobust doctor`: what is installed and configured, and what is missing."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from os.path import expandvars
from pathlib import Path

import click

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

    Exit code 1 if something that the pipeline needs is missing.
    """
    missing = [*_packages(), *_devices(), *_repository(Path())]
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


def _repository(folder: Path) -> list[str]:
    """Data, remotes and locks of a clone; outside one, that there is none."""
    if not (folder / "dvc.yaml").is_file():
        click.echo("pipeline: this folder has no dvc.yaml; models can be used, and nothing can be trained here")
        return []
    problems = [] if (folder / "dvc.lock").is_file() else ["dvc.lock: no run is recorded. Run: make repro"]
    problems += [f"{tool}, a program. Install it" for tool in ("git", "dvc") if shutil.which(tool) is None]
    return problems + _data(folder) + _remotes(folder) + _locks(folder)


def _data(folder: Path) -> list[str]:
    from medrobust.core.errors import UserError
    from medrobust.core.params.schema import load_params

    try:
        params = load_params(folder / "params.yaml")
    except UserError as error:
        return [str(error)]
    prepared = (folder / "data" / "prepared" / "header.json").is_file()
    click.echo(f"data: source {params.data.source}, {'prepared' if prepared else 'not prepared (make repro)'}")
    models = sorted(path.parent.relative_to(folder) for path in (folder / "models").glob("*/*/card.json"))
    click.echo(f"models: {', '.join(map(str, models)) or 'none (make repro, or dvc pull)'}")
    path = params.data.path
    if not path or "://" in path or params.data.source in ("medmnist", "kaggle"):
        return []
    found = Path(expandvars(path)).expanduser()
    click.echo(f"data.path: {found if found.exists() else f'{path}, which is not here'}")
    if found.exists() or prepared:  # prepared data need no raw data
        return []
    unset = "; set the variable" if "$" in str(found) else ""
    return [f"data.path: {path} does not exist{unset}"]


def _remotes(folder: Path) -> list[str]:
    import configparser

    config = configparser.ConfigParser()
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"])
    remotes = [section.split('"')[1] for section in config.sections() if "remote " in section and '"' in section]
    click.echo(f"DVC remotes: {', '.join(remotes) or 'none (docs/sharing.md)'}")
    return []


def _locks(folder: Path) -> list[str]:
    held = sorted(path.name for path in (folder / ".dvc" / "tmp").glob("*lock") if path.stat().st_size)
    click.echo(f"DVC locks: {', '.join(held) or 'none'}")
    return []
