"""A DVC repository around the files of a test's run: dvc.yaml, and a dvc.lock with the hashes of the files."""

import json
from pathlib import Path

import yaml
from dvc.repo import Repo
from dvc.stage.serialize import to_single_stage_lockfile

PIPELINE = """
stages:
  prepare: {cmd: "true", params: [seed], outs: [data/prepared]}
  split: {cmd: "true", deps: [data/prepared/header.json], params: [seed], outs: [metrics/split.json]}
  audit: {cmd: "true", deps: [data/prepared], params: [seed], outs: [metrics/audit.json, data/audit]}
  tune:
    matrix: &backbones {backbone: [one, two]}
    cmd: "true"
    params: [seed]
    outs: ["data/tune/${item.backbone}", "metrics/tune/${item.backbone}.json", "plots/tune/${item.backbone}"]
  train:
    foreach:
      one-clean: {backbone: one, start: data/prepared/header.json, param: seed, out: one/clean}
      two-clean: {backbone: two, start: data/prepared/header.json, param: seed, out: two/clean}
      one-adv: {backbone: one, start: data/checkpoints/one/clean, param: adv.eps, out: one/adv}
      two-adv: {backbone: two, start: data/checkpoints/two/clean, param: adv.eps, out: two/adv}
    do:
      cmd: "true"
      deps: [data/prepared, "data/tune/${item.backbone}/best.json", src/training, "${item.start}"]
      params: ["${item.param}"]
      outs: ["data/checkpoints/${item.out}", "metrics/train/${key}.json", "plots/train/${key}",
        "data/predictions/${key}.parquet"]
  attack:
    matrix: {backbone: [one, two], regime: [clean, adv], suite: [pgd]}
    cmd: "true"
    deps: ["data/checkpoints/${item.backbone}/${item.regime}", data/prepared]
    outs: ["metrics/attack/${key}.json", "plots/attack/${key}.csv",
      "data/attacks/${item.backbone}-${item.regime}/${item.suite}.parquet"]
  patient:
    matrix: {backbone: [one, two], regime: [clean, adv]}
    cmd: "true"
    deps: ["data/checkpoints/${item.backbone}/${item.regime}", data/prepared]
    outs: ["metrics/patients/${key}.json", "data/predictions/patients/${key}.parquet"]
  attack_patient:
    matrix: {backbone: [one, two], regime: [clean, adv], suite: [pgd]}
    cmd: "true"
    deps: ["data/checkpoints/${item.backbone}/${item.regime}", data/prepared]
    outs: ["metrics/attack_patient/${key}.json", "data/attacks/patients/${key}.parquet"]
  transfer_patient:
    matrix: {backbone: [one, two], regime: [clean, adv]}
    cmd: "true"
    deps: ["data/checkpoints/${item.backbone}/${item.regime}", data/prepared]
    outs: ["data/transfer/patients/${key}.parquet"]
  check:
    matrix: {backbone: [one, two], regime: [clean, adv]}
    cmd: "true"
    deps: ["data/checkpoints/${item.backbone}/${item.regime}"]
    outs: ["metrics/checks/${key}.json"]
  corrupt:
    matrix: {backbone: [one, two]}
    cmd: "true"
    outs: ["metrics/corrupt/${item.backbone}-clean.json", "metrics/corrupt/${item.backbone}-adv.json"]
  ensemble:
    cmd: "true"
    deps: [data/checkpoints/one/adv, data/checkpoints/two/adv]
    outs: [metrics/ensemble.json, data/methods, data/predictions/ensemble.parquet]
  attack_ensemble:
    matrix: {suite: [pgd]}
    cmd: "true"
    params: [seed]
    outs: ["metrics/attack/ensemble-adv-${item.suite}.json", "plots/attack/ensemble-adv-${item.suite}.csv",
      "data/attacks/ensemble-adv/${item.suite}.parquet"]
  check_ensemble:
    cmd: "true"
    deps: [metrics/attack/ensemble-adv-pgd.json]
    outs: [metrics/checks/ensemble-adv.json]
  attack_method:
    matrix: {method: [equal], suite: [pgd]}
    cmd: "true"
    deps: ["data/methods/${item.method}"]
    outs: ["metrics/methods/${key}.json", "data/attacks/methods/${item.method}/${item.suite}.parquet"]
  check_method:
    matrix: {method: [equal]}
    cmd: "true"
    deps: ["data/methods/${item.method}"]
    outs: ["metrics/checks/${item.method}-method.json"]
  external:
    foreach: [sets, b-audit, b-one-clean, b-one-adv, b-two-clean, b-two-adv, evaluated0]
    do: {cmd: "true", outs: ["metrics/external/${item}.json"]}
  transfer:
    cmd: "true"
    deps: [data/checkpoints]
    outs: [metrics/transfer.json, plots/transfer/matrix.csv, data/transfer/scores.parquet]
"""


def write_repository(folder: Path, pipeline: str = PIPELINE) -> None:
    """Write dvc.yaml and the settings of a DVC repository without git; its caches stay in the folder."""
    code = folder / "src" / "training"
    code.mkdir(parents=True, exist_ok=True)
    (code / "loop.py").write_text("epochs = 3\n")
    (folder / "dvc.yaml").write_text(pipeline)
    (folder / ".dvcignore").write_text("__pycache__\n")
    (folder / ".dvc").mkdir(exist_ok=True)
    site = folder / ".dvc" / "site"
    (folder / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n    site_cache_dir = {site}\n")


def lock(folder: Path) -> None:
    """Write the dvc.lock of a run that has just ended; stages whose files are missing have no entry."""
    (folder / "dvc.lock").unlink(missing_ok=True)  # its hashes would be kept
    with Repo(str(folder)) as repo, repo.lock:
        entries = {}
        for stage in repo.index.stages:
            if not hasattr(stage, "name"):  # a file of `dvc add`
                continue
            files = [*stage.deps, *stage.outs]
            if all(file.exists for file in files):
                for file in files:
                    file.hash_info = file.get_hash()
                entries[stage.name] = json.loads(json.dumps(to_single_stage_lockfile(stage)))
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))
