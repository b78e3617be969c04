"""Write each stage's source files into its `deps` in dvc.yaml (`make deps`); comments and order stay.

tests/test_pipeline.py proves that what stands there is what the scripts import.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tools.imports import source_files

ROOT = Path(__file__).resolve().parent.parent
#: Directories that stand for all their files, because each of their users loads all of them.
WHOLE = ("src/medrobust/core/params",)
#: Code that a stage reaches by a name in params.yaml, and so not by an import that can be followed.
PLUGINS = {
    "download": ["src/medrobust/data/sources"],
    "prepare": ["src/medrobust/data/sources"],
    "suite": ["src/medrobust/attacks"],
    "settings": ["src/medrobust/training/objectives"],
    "ensemble": ["src/medrobust/ensembling"],
    "detect_plan": ["src/medrobust/detection"],
    "report": ["src/medrobust/report"],
}


def code_deps(stage: str, root: Path = ROOT) -> list[str]:
    """The script, the source files and the plug-in folders of a stage, as dvc.yaml lists them."""
    script = root / "stages" / f"{stage}.py"
    names = {path.relative_to(root).as_posix() for path in source_files(script, root / "src")}
    folders = [*WHOLE, *PLUGINS.get(stage, [])]
    covered = {folder for folder in folders for name in names if name.startswith(f"{folder}/")}
    covered |= set(PLUGINS.get(stage, []))
    single = {name for name in names if not any(name.startswith(f"{folder}/") for folder in covered)}
    return [f"stages/{stage}.py", *sorted(covered | single)]


def is_code(dep: str) -> bool:
    """Whether a dep of dvc.yaml is source code (and not data)."""
    return dep.startswith(("src/", "stages/"))


def main() -> None:
    """Rewrite dvc.yaml."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 110, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = ROOT / "dvc.yaml"
    pipeline: Any = yaml.load(path.read_text(encoding="utf-8"))
    for name, stage in pipeline["stages"].items():
        stage["deps"] = [*code_deps(name), *(dep for dep in stage["deps"] if not is_code(dep))]
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(pipeline, file)


if __name__ == "__main__":
    main()
