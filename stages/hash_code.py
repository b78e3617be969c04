"""Hash the source code that each stage runs, and the registry entries in use; note versions (a second)."""

import argparse
from pathlib import Path

from medrobust.core.params.schema import load_params
from medrobust.core.runtime import run_stage


def main() -> None:
    """Write one file per stage script, one per registry with the entries that params.yaml names, and versions."""
    from medrobust.core.code import entry_hashes, stage_code
    from medrobust.core.params.entries import used_entries
    from medrobust.core.records import atomic_dir, write_json
    from medrobust.core.versions import installed
    from medrobust.corruptions.lookup import chosen_names

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    params = load_params()
    used = used_entries(
        params.data.source, [params.train.objective, params.adv.objective], params.models.values(),
        params.attacks.suites.values(), params.detect.detectors,
        chosen_names(params.corruptions.modality, params.corruptions.names),
    )  # fmt: skip
    with atomic_dir(args.out) as folder:
        own = Path(__file__)
        for script in {*own.parent.glob("*.py")} - {own}:
            (folder / script.stem).write_text(stage_code(script), encoding="utf-8")
        for kind, names in used.items():
            write_json(folder / f"{kind}.json", {"code": entry_hashes(kind, names)})
        # A file of its own: an external set with another source must not run `download` again.
        external = {block.source for block in params.external.sets.values()}
        write_json(folder / "external_sources.json", {"code": entry_hashes("sources", external)})
        write_json(folder / "versions.json", installed())


if __name__ == "__main__":
    run_stage(main, "code")
