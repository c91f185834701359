# Every target uses the interpreter on the PATH; the README's commands make a virtual environment for it.
.PHONY: check test smoke gate

check:
	ruff check .
	ruff format --check .
	mypy

test:
	python -m pytest

smoke:
	python run_benchmark.py --models natural,madry --attacks pgd-20 --examples 50 --results-dir build/smoke

gate:
	python run_benchmark.py gate --baseline results/digits/baseline.json --results-dir build/gate
