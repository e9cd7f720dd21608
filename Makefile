# Everything a newcomer needs is Python (>= 3.11) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where nothing compiled is kept, each process of the tests compiles all modules that it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint check format bench vllm infinity sglang triton clean

demo: $(READY)  ## classify the sample files with the built-in server and show the first rows
	@$(BIN)/python data/demo.py

test: $(READY)  ## the tests, on all cores; what takes long or needs a real server is left out
	$(BIN)/python -m pytest

test-all: $(READY)  ## all of them; those of a real server run where `make` has installed it, in one worker, to start it once
	$(BIN)/python -m pytest --all -m 'not real'
	$(BIN)/python -m pytest --all -m real --numprocesses=1

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## what must pass before a commit; .ci/run has `test-all` instead of `test`

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure: rows a second, CPU, memory, start-up
	$(BIN)/python tests/bench/run.py

vllm infinity sglang triton:  ## install a real server for CPUs: vLLM (3.5 GB, and tiny models), Infinity (0.5) and SGLang (0.3) in vLLM's torch, Triton (0.4)
	tests/real/install/$@.sh

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/bench/build

# pip knows dependency groups only from 25.1 on; an environment's own pip may be older.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable . --group dev
	@touch $(READY)
