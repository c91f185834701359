"""The shape of the repository: which package may import which, and that all of it is installed."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("attacks", "model_zoo", "benchmark", "run_benchmark")  # each may import itself and what stands before it
PACKAGES = LAYERS[:-1]
FOLDERS = {
    "model_zoo": ("files", "masked", "architectures", "bounds", "defenses", "weights", "user_models", "training"),
    "benchmark": (
        *("data", "stats", "suites", "store", "evaluation", "sweep", "diagnose", "certify", "corruptions"),
        *("report", "speed", "gate", "training", "studies", "cli"),
    ),
}
"""Of a package, each of which may import itself and those before it; files beside them may import all."""
FILES = [ROOT / "run_benchmark.py", *(file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))]


def imported(source: str) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def forbidden(source: str, layer: str) -> list[str]:
    """The imports that a file of a layer may not have."""
    above = (*LAYERS[LAYERS.index(layer) + 1 :], "tests")
    return [name for name in imported(source) if name.startswith(".") or name.split(".")[0] in above]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_downwards_and_are_absolute(file: Path) -> None:
    layer = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert forbidden(file.read_text(encoding="utf-8"), layer) == []


@pytest.mark.parametrize("package", FOLDERS)
def test_folders_import_downwards_only(package: str) -> None:
    folders = FOLDERS[package]
    assert {path.parent.name for path in (ROOT / package).glob("*/__init__.py")} == set(folders)
    upwards = [
        f"{file.relative_to(ROOT)} imports {name}"
        for folder in folders
        for file in sorted((ROOT / package / folder).rglob("*.py"))
        for name in above(file.read_text(encoding="utf-8"), package, folder)
    ]
    assert upwards == []


def above(source: str, package: str, folder: str) -> list[str]:
    """Imports that a file of a folder may not have: later folders, files beside the folders, the package itself."""
    allowed = FOLDERS[package][: FOLDERS[package].index(folder) + 1]
    ours = [name.split(".") for name in imported(source) if name.split(".")[0] == package]
    return [".".join(parts) for parts in ours if len(parts) == 1 or parts[1] not in allowed]


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("from benchmark.report.score import score_suite", "store"),
        ("def f():\n    from benchmark.cli.app import main", "gate"),
        ("from benchmark import report", "data"),
        ("from benchmark.api import evaluate", "cli"),
    ],
)
def test_an_import_of_a_later_folder_is_seen(source: str, folder: str) -> None:
    assert len(above(source, "benchmark", folder)) == 1


def test_no_two_files_import_each_other_directly_or_by_way_of_others() -> None:
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    imports = {module: _imported_modules(file, modules) - {module} for module, file in modules.items()}
    sorter = TopologicalSorter(imports)
    sorter.prepare()  # raises CycleError, which names the files


def _imported_modules(file: Path, modules: Collection[str]) -> set[str]:
    """The modules of this project that a file imports, anywhere in it; other names of a package are of its init."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= parts | ({node.module, f"{node.module}.__init__"} if parts - set(modules) else set())
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return named & set(modules)


@pytest.mark.parametrize(
    ("source", "layer"),
    [
        ("import benchmark.suites.case", "model_zoo"),
        ("def f():\n    from model_zoo.registry import MODELS", "attacks"),
        ("from . import pgd", "attacks"),
        ("from run_benchmark import main", "benchmark"),
    ],
)
def test_an_import_upwards_or_relative_is_seen(source: str, layer: str) -> None:
    assert len(forbidden(source, layer)) == 1


def test_of_the_files_of_attacks_the_python_call_alone_imports_the_folder_of_models() -> None:
    importing = {
        file.name
        for file in (ROOT / "attacks").glob("*.py")
        if any(name.startswith("attacks.models") for name in imported(file.read_text(encoding="utf-8")))
    }
    assert importing == {"api.py"}


def test_run_benchmark_imports_the_command_line_and_nothing_else() -> None:
    ours = [
        name
        for name in imported((ROOT / "run_benchmark.py").read_text(encoding="utf-8"))
        if name not in ("sys", "pathlib")
    ]
    assert ours == [
        "attacks",
        "model_zoo",
        "benchmark.cli.app",
    ]  # the packages alone, so that they are ours from then on


def test_the_console_script_runs_ours_where_the_users_modules_come_first(tmp_path: Path) -> None:
    script = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = script["robustness-benchmark"].partition(":")
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the user has this for himself')\n")
    words = [sys.executable, "-c", f"import {module}; {module}.{function}()", "list", "suites"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trades-table5" in done.stdout


def test_no_file_is_called_utils() -> None:
    assert [file for folder in (*PACKAGES, "tests") for file in (ROOT / folder).rglob("*util*.py")] == []


def test_every_package_is_listed_for_installation() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES[1:]}
    assert sorted(listed) == sorted(folders)
    assert [name for name in listed if not (ROOT / name.replace(".", "/") / "__init__.py").is_file()] == []


def test_every_package_has_tests_beside_it() -> None:
    folders = {
        *PACKAGES,
        "attacks/models",
        *(f"{package}/{folder}" for package, inside in FOLDERS.items() for folder in inside),
    }
    tested = {folder for folder in folders if list((ROOT / "tests" / folder).rglob("test_*.py"))}
    by_the_command_line = {"model_zoo/user_models"}  # test_user_models_*.py
    assert folders - tested == by_the_command_line


def test_who_cites_cites_the_version_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    cited = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z-]+: ", line))
    assert (cited["cff-version"], cited["version"], cited["license"]) == (
        "1.2.0",
        project["version"],
        project["license"],
    )
    assert {"message", "title", "type"} <= set(cited)
    assert "authors:" in lines
