"""docs/notebook.ipynb: every cell runs, in a kernel of its own, and what is committed is what it gave."""

import copy
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/notebook.ipynb"


def texts(cell: Any) -> list[str]:
    return [output.get("name", "") for output in cell.get("outputs", []) if output["output_type"] == "stream"]


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_cell_of_the_notebook_runs_and_says_nothing_to_stderr() -> None:
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = copy.deepcopy(committed)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=folder).execute()
    for notebook in (fresh, committed):
        assert {name for cell in notebook.cells for name in texts(cell)} == {"stdout"}
        assert pictures(notebook) == 2
        assert "worst case" in "".join(str(cell.get("outputs")) for cell in notebook.cells)
