"""Attack a few test images again on every model and keep the pictures for report/cases.html (a minute)."""

import argparse
from pathlib import Path

from medrobust.core.code import read_entries
from medrobust.core.errors import UserError
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.params.schema import REGIMES, load_params
from medrobust.core.records import read_json, write_json
from medrobust.core.runtime import device, run_stage, say


def parse() -> argparse.Namespace:
    """The command line of dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("backbones", "models", "ensemble", "guards", "prepared", "split", "suites", "plan", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Collect the cases; write an empty file where no picture is wanted."""
    params = load_params()
    count = params.report.cases if params.report.pictures else 0
    if not count:
        write_json(args.out, {})
        return
    from medrobust.attacks.engine.suite import read_suite
    from medrobust.cases.collect import ShownModel, collect_cases
    from medrobust.data.store import open_splits
    from medrobust.detection.guard import load_guard
    from medrobust.models.card import is_adversarial, weights_hash
    from medrobust.models.folder import load

    images = open_splits(args.prepared, args.split)
    cells = [(backbone, regime) for backbone in read_json(args.backbones) for regime in REGIMES]
    folders = {"-".join(cell): args.models.joinpath(*cell) for cell in cells} | {"ensemble": args.ensemble}
    ensemble_guard = f"ensemble-{'adv' if is_adversarial(args.ensemble) else 'clean'}"
    models = []
    for name, folder in folders.items():
        guard = args.guards / (ensemble_guard if name == "ensemble" else name)
        guarded = load_guard(guard, device()) if (guard / "card.json").is_file() else None
        if guarded and guarded.model != weights_hash(folder):
            raise UserError(str(guard), f"was fitted to another model than {folder}", "Run `dvc repro`")
        models.append(ShownModel(name, load(folder, device()), guarded))
    suites = [read_suite(args.suites / name) for name in params.attacks.suites]
    cases = collect_cases(
        models, images.subset("test"), images.subset("train"), suites,
        count=count, seed=params.seed, cells=params.explain.grid, ordered=images.store.header.ordered,
    )  # fmt: skip
    made_on = {
        **images.hashes,
        "models": {name: weights_hash(folder) for name, folder in folders.items()},
        "suites": {suite["name"]: suite_hash(suite) for suite in suites},
    }
    write_json(args.out, {**cases, MADE_ON: made_on})
    say(f"{len(cases['cases'])} images, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    args = parse()
    # The folder may have suites of an earlier run; the file beside it names those of this one.
    resolved = [args.suites / name / "suite.json" for name in read_json(args.suites.with_suffix(".json"))]
    run_stage(main, "cases", entries=read_entries(args.plan, *resolved))
