"""The files that CI reads are what their readers expect."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("file", "schema"),
    [(".github/workflows/gate.yml", "vendor.github-workflows"), ("action.yml", "vendor.github-actions")],
)
def test_workflow_and_action_are_valid_by_githubs_schemas(file: str, schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(ROOT / file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
