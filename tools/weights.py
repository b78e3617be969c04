"""Write timm's pretrained weights of every backbone in params.yaml to files, for machines without the hub.

`make weights OUT=weights` on a machine with the hub; then `weights: weights/B.safetensors` on the other machine.
"""

import argparse
import sys
from pathlib import Path

from medrobust.core.errors import UserError
from medrobust.core.params.schema import load_params
from medrobust.core.records import atomic_file
from medrobust.models.build import pretrained_backbone


def export(params: Path, out: Path) -> list[Path]:
    """Write `out/B.safetensors` for each backbone B of a params file; return the paths.

    Raises:
        UserError: the params are invalid, or the hub cannot be reached.
    """
    from safetensors.torch import save_file

    paths = []
    for name, model in load_params(params).models.items():
        state = {key: value.contiguous() for key, value in pretrained_backbone(model).state_dict().items()}
        paths.append(out / f"{name}.safetensors")
        with atomic_file(paths[-1]) as temporary:
            save_file(state, temporary, {"timm": model.timm})
    return paths


def main() -> None:
    """Write the files and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, default=Path("weights"))
    args = parser.parse_args()
    for path in export(args.params, args.out):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
