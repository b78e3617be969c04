"""The files that a run with two backbones, three classes and one suite leaves for the report."""

import hashlib
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medrobust.attacks.engine.attempts import ATTEMPTS, table_of
from medrobust.core.lineage import MADE_ON, suite_hash
from medrobust.core.records import write_json, write_metrics, write_table
from medrobust.data.store import Header, write_store
from medrobust.report.answers import read_answers
from medrobust.report.collect import Folders, collect
from medrobust.report.comparisons import compare_models
from medrobust.report.page.sections import ReportSettings
from medrobust.report.page.write import ReportOutputs
from medrobust.report.provenance import Provenance
from medrobust.report.run import REGIMES, Ensemble, Patients, Run
from medrobust.report.sample_size import plan_sample
from medrobust.report.scores import score_models
from tests.report.pipeline import lock, write_repository

CLASSES = ["Non <b>", "Mild", "Severe"]
SETTINGS = ReportSettings("a title", 1, "patient", 0.95, {"pgd": "Linf"})


MODELS = ("one-clean", "one-adv", "two-clean", "two-adv")
SUITE = {"name": "pgd", "norm": "Linf", "eps": [0.005, 0.01], "give_up": False, "attacks": []}
IMAGES = {"data": "d" * 64, "split": "5" * 16}


def weights(model: str) -> str:
    """The hash of the weights of a model (`one-adv`) or of an ensemble."""
    name = "ensemble" if model.startswith("ensemble") else model  # whatever its members are
    return "a" * 64 if name == "one-adv" else hashlib.sha256(name.encode()).hexdigest()


def made_on(path: Path) -> dict[str, Any]:
    """What the result in a metrics file was made on, by the path of the file."""
    name, folder = path.stem, path.parent.name
    found: dict[str, Any] = dict(IMAGES)
    if folder in ("train", "attack", "checks", "detect", "explain", "corrupt", "patients", "attack_patient"):
        found["weights"] = weights(name.removesuffix("-method").removesuffix("-pgd"))
    if folder == "methods":
        found["weights"] = weights(name.partition("-")[0])
    if folder in ("attack", "methods", "attack_patient"):
        found["suite"] = suite_hash(SUITE)
    if folder in ("checks", "detect", "explain") or name == "transfer":
        found["suites"] = {"pgd": suite_hash(SUITE)}
    models = {
        f"{backbone}-{regime}": weights(f"{backbone}-{regime}")
        for backbone in ("one", "two")
        for regime in REGIMES
    }
    if name == "ensemble":
        found |= {"weights": weights("ensemble-adv"), "models": models}
        found["methods"] = {method: weights(method) for method in ("equal", "convex", "stacking")}
    if name == "transfer":
        found["models"] = {**models, "ensemble": weights("ensemble-adv")}
    return found


def clean_record(accuracy: float = 0.7123) -> dict[str, Any]:
    ci = {f"{name}_ci": [0.5, 0.9] for name in ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa")}
    recalls = {f"recall_{name}": 0.5 for name in CLASSES[:2]} | {"recall_Severe": None, "recall_Severe_ci": None}
    return {
        "n": 30, "patients": 10, "accuracy": accuracy, "balanced_accuracy": 0.6, "macro_f1": 0.5, "auroc": None,
        "quadratic_kappa": 0.4, "ece": 0.1, "ece_null": 0.08, "ece_null_high": 0.15, "confidence_gap": 0.05,
        "confidence_gap_ci": [-0.02, 0.12], "calibration_slope": 0.8, "calibration_slope_ci": [0.5, 1.1],
        "calibration_intercept": None, "calibration_intercept_ci": None, **ci, **recalls,
    }  # fmt: skip


def checks_record(verdict: str = "no problem found") -> dict[str, Any]:
    word = {"invalid": "fail", "suspect": "warn"}.get(verdict, "pass")
    suites = {"pgd": {"verdict": verdict, "eps": 0.01, "checks": {"restarts": f"{word}: fools 3 of 12 images"}}}
    means, remedies = (
        {"restarts": text} if word != "pass" else {} for text in ("one start decides", "raise restarts")
    )
    model = {"collapse": "pass: 30%"}
    return {
        "verdict": verdict, "images": 13, "model": model, "suites": suites, "means": means, "remedies": remedies,
    }  # fmt: skip


def attack_record() -> dict[str, Any]:
    return {
        "n": 30, "patients": 10, "clean_accuracy": 0.7, "clean_balanced_accuracy": 0.6,
        "robust_accuracy": {"0.005": 0.5, "0.01": 0.25},
        "robust_accuracy_ci": {"0.005": [0.4, 0.6], "0.01": [0.2, 0.3]},
        "robust_balanced_accuracy": {"0.005": 0.4, "0.01": 0.2}, "gradient_evaluations": 1766, "queries": 302,
    }  # fmt: skip


def patient_record(**changes: Any) -> dict[str, Any]:
    return {
        "n": 20, "patients": 20, "accuracy": 0.8, "balanced_accuracy": 0.75, "balanced_accuracy_ci": [0.6, 0.9],
        "auroc": 0.85, "auroc_ci": [0.7, 0.95], "images_per_patient": [3, 4], "aggregate": "mean",
        "images_attacked_eps": 0.01, "images_attacked": {"1": 0.7, "10": 0.4},
        "images_attacked_ci": {"1": [0.5, 0.8], "10": [0.2, 0.6]}, **changes,
    }  # fmt: skip


def curve() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "eps": [0.005, 0.01], "robust_accuracy": [0.5, 0.25], "low": [0.4, 0.2], "high": [0.6, 0.3],
            "robust_balanced_accuracy": [0.4, 0.2], "balanced_low": [0.3, 0.1], "balanced_high": [0.5, 0.3],
            "robust_recall_Mild": [0.45, 0.0], "robust_recall_Mild_low": [0.2, 0.0],
            "robust_recall_Mild_high": [0.6, 0.0], "robust_recall_Severe": [None, None],
            "robust_recall_Severe_low": [None, None], "robust_recall_Severe_high": [None, None],
        }
    )  # fmt: skip


def card(backbone: str, regime: str) -> dict[str, Any]:
    return {
        "model": {"timm": "resnet10t", "image_size": 32}, "classes": CLASSES, "backbone": backbone,
        "regime": regime,
        "seed": 1, **IMAGES, "sha256": weights(f"{backbone}-{regime}"), "versions": {"torch": "2.0"},
        "params": {
            "train": {"epochs": 2, "lr": 0.001}, "augment": {"p": 0.3}, "clean": "b" * 64,
            "model": {"timm": "resnet10t", "weights": "none", "image_size": 32, "trainable": "all"},
            **({"adv": {"eps": 0.01}} if regime == "adv" else {}),
        },
    }  # fmt: skip


def write_prepared(folder: Path) -> None:
    """Six patients of two slices, two of each class."""
    rows = [
        (f"{label}/{p}{s}.png", label, f"p{k}{p}", s)
        for k, label in enumerate(CLASSES)
        for p in "ab"
        for s in (1, 2)
    ]
    manifest = pd.DataFrame(rows, columns=["id", "label", "patient", "slice"]).assign(
        sha256="", kind="real", parent="", published_split=""
    )
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8))
    header = Header(
        "phantom", CLASSES, True, 8, 1, 12, 6, dict.fromkeys(CLASSES, 4), "MIT", "A & B", "https://x", "d" * 64
    )
    write_store(folder, manifest, header)


def write_parts(data: Path, model: str) -> None:
    """What is published beside a checkpoint and its answers: no guard, a model of patients."""
    (data / "guards" / model).mkdir(parents=True)
    facts = {"patient": {"network": "../../checkpoints"}, "sha256": weights(model)}
    write_json(data / "patients" / model / "card.json", facts)
    (data / "patients" / model / "aggregate.safetensors").write_bytes(b"aggregate")
    val = pd.DataFrame(
        {"split": "val", "label": [0, 1, 2] * 4, "logprob_0": 0.0, "logprob_1": 0.1, "logprob_2": 0.2}
    )
    rows = pd.concat([val.assign(pred=2), decisions(MODELS.index(model))], ignore_index=True)
    rows.attrs[MADE_ON] = {**IMAGES, "weights": weights(model)}
    write_table(data / "predictions" / "patients" / f"{model}.parquet", rows)
    attempts = decisions(MODELS.index(model)).assign(id=lambda table: table["patient"])
    write_attempts(data / "attacks" / "patients" / f"{model}-pgd.parquet", model, attempts)


def write_run(folder: Path) -> None:
    """The results of a run in a DVC repository whose dvc.lock describes them."""
    shutil.copytree(_finished_run().name, folder, dirs_exist_ok=True)


@cache
def _finished_run() -> TemporaryDirectory[str]:
    """The same, written once; the folder is removed when the tests end."""
    folder = TemporaryDirectory()
    _write_results(Path(folder.name))
    write_repository(Path(folder.name))
    lock(Path(folder.name))
    return folder


def _write_results(tmp_path: Path) -> None:
    write_prepared(tmp_path / "data" / "prepared")
    m, p = tmp_path / "metrics", tmp_path / "plots"
    part: dict[str, Any] = {"images": 20, "patients": 7, **dict.fromkeys(CLASSES, 6)}
    part["patients_by_class"] = dict(zip(CLASSES, (2, 3, 2), strict=True))
    write_record(m / "audit.json", {"verdict": "leaking", "reasons": ["2 of 7 test patients are also in train"]})
    write_record(m / "split.json", {"train": part, "val": part, "test": part})
    write_json(tmp_path / "data" / "resolved" / "suites.json", {"pgd": suite_hash(SUITE)})
    write_answers(tmp_path / "data")
    write_json(tmp_path / "data" / "methods" / "convex" / "card.json", {"method": "convex"})
    write_ensemble(m, p)
    (tmp_path / "data" / "audit").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "audit" / "pairs.png")
    for backbone in ("one", "two"):
        write_record(
            m / "tune" / f"{backbone}.json", {"best_val_balanced_accuracy": 0.5, "trials": 3, "pruned": 1}
        )
        best = {"lr": 0.001, "optimiser": "Adam", "batch_size": 32, "scheduler": "StepLR"}
        write_json(tmp_path / "data" / "tune" / backbone / "best.json", best)
        write_table(
            p / "tune" / backbone / "trials.csv", pd.DataFrame({"trial": [0], "lr": [0.001], "value": [None]})
        )
        for regime in REGIMES:
            name = f"{backbone}-{regime}"
            write_record(m / "train" / f"{name}.json", clean_record())
            checkpoint = tmp_path / "data" / "checkpoints" / backbone / regime
            write_json(checkpoint / "card.json", card(backbone, regime))
            (checkpoint / "model.safetensors").write_bytes(f"weights of {name}".encode())
            write_parts(tmp_path / "data", name)
            history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "val_balanced_accuracy": [0.4, 0.6]})
            write_table(p / "train" / name / "history.csv", history)
            # Each model answers a little differently, so that no two matrices are the same picture.
            more = ["Mild"] * (2 * (backbone == "two") + (regime == "adv"))
            actual, predicted = [CLASSES[0], "Mild", "Mild", *more], [CLASSES[0], "Mild", CLASSES[0], *more]
            answers = pd.DataFrame({"actual": actual, "predicted": predicted})
            write_table(p / "train" / name / "confusion.csv", answers)
    for name in ("one-clean", "one-adv", "two-clean", "two-adv"):
        write_record(m / "patients" / f"{name}.json", patient_record())
        write_record(m / "attack_patient" / f"{name}-pgd.json", attack_record())
    for name in ("one-clean", "one-adv", "two-clean", "two-adv", "ensemble-adv"):
        write_record(m / "attack" / f"{name}-pgd.json", attack_record())
        write_record(m / "checks" / f"{name}.json", checks_record())
        write_table(p / "attack" / f"{name}-pgd.csv", curve())
    (tmp_path / "params.yaml").write_text("seed: 1\nadv: {eps: 0.01}\n")


def write_answers(data: Path) -> None:
    """Predictions of all models, attempts of the suite, and the scores of the transfer matrix."""
    crossed = []
    for number, name in enumerate((*MODELS, "ensemble-adv")):
        table, file = predictions(number), name.removesuffix("-adv") if name == "ensemble-adv" else name
        table.attrs[MADE_ON] = {**IMAGES, "weights": weights(name)}
        write_table(data / "predictions" / f"{file}.parquet", table)
        write_attempts(data / "attacks" / name / "pgd.parquet", name, table[table["split"] == "test"], number)
        if name != "ensemble-adv":
            write_scored_patients(data, name, number)
        crossed.append(table[table["split"] == "test"][:8].assign(source="no attack", judge=file))
        crossed.append(predictions(number + 9)[:8].assign(source=file, judge=file))
    scores = pd.concat(crossed, ignore_index=True)
    scores.attrs[MADE_ON] = made_on(Path("transfer.json"))
    write_table(data / "transfer" / "scores.parquet", scores)


def write_scored_patients(data: Path, name: str, number: int) -> None:
    """Predictions of the 12 test patients after an attack with all steps."""
    table = predictions(number + 9).drop_duplicates("patient").drop(columns="id").reset_index(drop=True)
    table = table[table["split"] == "test"].drop(columns="split")
    table.attrs[MADE_ON] = {**IMAGES, "weights": weights(name), "suite": suite_hash(SUITE)}
    write_table(data / "transfer" / "patients" / f"{name}.parquet", table)


def write_attempts(path: Path, name: str, clean: pd.DataFrame, number: int = 0) -> None:
    """Attempts of a model: the clean answer of each image or patient, and one attack at each radius."""
    rows = []
    for k, image in enumerate(clean.to_dict("records")):
        right = image["label"] == image["pred"]
        row = {**dict.fromkeys(ATTEMPTS, 0), **{key: image[key] for key in ("id", "patient", "label")}}
        row |= {"clean_pred": image["pred"], "pred": image["pred"]}
        rows.append({**row, "attack": "natural", "fooled": not right})
        for eps in (0.005, 0.01) if right else ():
            fooled = (k + number) % 3 == 0 or ("clean" in name and eps == 0.01)
            pred = (image["label"] + 1) % 3 if fooled else image["pred"]
            rows.append(
                {**row, "attack": "pgd(steps=3)", "eps": eps, "distance": eps, "fooled": fooled, "pred": pred}
            )
    table = table_of(rows)
    table.attrs[MADE_ON] = {**IMAGES, "weights": weights(name), "suite": suite_hash(SUITE)}
    write_table(path, table)


def predictions(seed: int) -> pd.DataFrame:
    """Answers on 12 validation and 24 test images, two per patient, that are better than chance."""
    rng = np.random.default_rng(seed)
    ids = [f"{label}/{p}{s}.png" for label in CLASSES for p in "abcdef" for s in (1, 2)]
    labels = np.repeat(np.arange(3), 12)
    logits = rng.normal(size=(36, 3)) + 1.2 * np.eye(3)[labels]
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    patients = [f"p{k}{p}" for k in range(3) for p in "abcdef" for _ in "12"]
    table = pd.DataFrame({"id": ids, "patient": patients, "label": labels, "pred": logprobs.argmax(1)})
    table["split"] = np.where(np.tile(np.arange(12), 3) < 4, "val", "test")
    return table.join(pd.DataFrame(logprobs, columns=[f"logprob_{k}" for k in range(3)]))


def decisions(seed: int) -> pd.DataFrame:
    """Decisions on the 12 test patients of `predictions`, each the class with the largest mean log-probability."""
    table = predictions(seed)
    columns = [f"logprob_{k}" for k in range(3)]
    found = table[table["split"] == "test"].groupby("patient", as_index=False)[["label", *columns]].mean()
    pred = found[columns].to_numpy().argmax(1)
    return found.assign(pred=pred, split="test", images=2).astype({"label": "int64"})


def crossings() -> pd.DataFrame:
    """A transfer matrix in which each model errs most on images that were made on it."""
    models = ["one-clean", "one-adv", "two-clean", "two-adv", "ensemble"]
    cells = [(source, model) for source in ("no attack", *models) for model in models]
    rows = []
    for source, model in [*cells, ("per member", "ensemble")]:
        right = {"no attack": 0.75, "per member": 0.5, model: 0.25}.get(source, 0.625)
        rows.append(
            {
                "source": source, "judge": model, "accuracy": right, "low": right - 0.1, "high": right + 0.1,
                "log_loss": 2 - right, "log_loss_low": 1.0, "log_loss_high": 2.0, "brier": 1 - right,
                "ece": 0.3 - right / 4, "ece_null": 0.06, "ece_null_high": 0.12, "confidence_gap": 0.5 - right,
                "confidence_gap_low": 0.4 - right, "confidence_gap_high": 0.6 - right, "calibration_slope": 0.9,
                "calibration_intercept": None,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def write_ensemble(metrics: Path, plots: Path) -> None:
    """An ensemble of two adversarially trained models, the comparison of methods, and a transfer matrix."""
    facts = {
        "method": "convex", "objective": "weighted", "robust_share": 0.5, "members": ["one-adv", "two-adv"],
        "val_n": 20, "val_patients": 7, "absent_from_val": [], "weights": {"one-adv": 0.25, "two-adv": 0.75},
    }  # fmt: skip
    tested = {
        "test_accuracy": 0.7,
        "test_accuracy_ci": [0.6, 0.8],
        "test_ece": 0.1,
        "test_ece_null": 0.07,
        "val_log_loss": 0.91,
    }
    tested["test_ece_null_high"] = 0.16
    impossible = {"not_fitted": "too few validation patients have Severe"}
    methods = {"equal": tested, "convex": {**tested, "test_accuracy": 0.72}, "stacking": impossible}
    write_record(metrics / "ensemble.json", {**facts, **clean_record(), "methods": methods})
    write_record(metrics / "transfer.json", {"suite": "pgd", "norm": "Linf", "eps": 0.01, "n": 8, "patients": 6})
    write_table(plots / "transfer" / "matrix.csv", crossings())


def write_attacked_method(folder: Path) -> None:
    """The files of a method that is not selected: its card, and the records of a suite and of the checklist."""
    write_json(folder / "data" / "methods" / "equal" / "card.json", {"method": "equal"})
    answers = predictions(7)
    path = folder / "data" / "attacks" / "methods" / "equal" / "pgd.parquet"
    write_attempts(path, "equal", answers[answers["split"] == "test"], 7)
    record = {**attack_record(), "robust_accuracy": {"0.005": 0.375, "0.01": 0.125}}
    write_record(folder / "metrics" / "methods" / "equal-pgd.json", record)
    write_record(folder / "metrics" / "checks" / "equal-method.json", checks_record("suspect"))


def text_of(html: str) -> str:
    """A page without the marks inside its cells."""
    return re.sub(r"</?(span|wbr)[^>]*>", "", html)


def read(
    folder: Path, *, checked: bool = False, backbones: tuple[str, ...] = ("one", "two"), regime: str = "adv",
    attacked: tuple[str, ...] = (),
) -> Run:  # fmt: skip
    """The run of a folder; `checked` compares its files with dvc.lock."""
    provenance = Provenance.of(folder / "dvc.lock") if checked else None
    run = collect(
        folders(folder), list(backbones), ["pgd"], provenance, Ensemble(regime, attacked), Patients(("pgd",))
    )
    read_answers(run, folders(folder))
    compare_models(run, resamples=50, confidence=0.95)
    score_models(run, resamples=50, confidence=0.95)
    run.sample = plan_sample(run, confidence=0.95)
    return run


def write_record(path: Path, record: dict[str, Any]) -> None:
    """A metrics file of which the report reads the record alone; made on this run unless the record tells."""
    write_metrics(path, {MADE_ON: made_on(path), **record} if record else {}, {})


def folders(folder: Path) -> Folders:
    """Where a run's files are in a test."""
    data = folder / "data"
    return Folders(
        data / "prepared", folder / "metrics", folder / "plots", data / "tune", data / "checkpoints",
        data / "predictions", data / "attacks", data / "transfer" / "scores.parquet",
        data / "resolved" / "suites.json", data / "audit", data / "code",
        transferred=data / "transfer" / "patients",
    )  # fmt: skip


def outputs(folder: Path) -> ReportOutputs:
    """Where a test lets the report write."""
    tables = {name: folder / "out" / f"{name}.csv" for name in ("robust_accuracy", "training", "confusion")}
    return ReportOutputs(folder / "out" / "page", folder / "out" / "figures", folder / "out" / "vectors", tables)
