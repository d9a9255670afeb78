# Every target sets up all that it needs in .venv, so a fresh clone needs only make and Python 3.11+.
#   make PYTHON=python3.12 test      use another interpreter
#   make TORCH='torch==2.9.1' demo   install this torch instead of the tested one
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export TORCH

.PHONY: help demo demo-visual quickstart test test-all serve bench lint lock clean

help:
	@echo "make demo        SmolLM2-135M learns to use a Python interpreter: cold start, GRPO, before and after (< 45 min)"
	@echo "make demo-visual a small model learns to see, then to zoom in; the report has episodes before and after (about 45 min)"
	@echo "make quickstart  the same with a tiny model from scratch (< 5 min)"
	@echo "make test        the tests that take seconds each (< 10 min);  make test-all: all of them"
	@echo "make bench       every benchmark, quick;  make lint: ruff and pyright;  make clean: remove .venv and caches"

$(READY): pyproject.toml constraints.txt .ci/make_venv.py
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) was not found: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) .ci/make_venv.py
	@touch $@

demo: $(READY)
	@$(BIN)/training run demo --out runs/demo

demo-visual: $(READY)  # the model that sees is taught first, in seconds where that is done; then seed 0 of docs/claims/zoom.md
	@$(BIN)/python -m pip install --quiet -c constraints.txt scikit-image scikit-learn
	@$(BIN)/training run tiny_vlm --out runs/tiny_vlm
	@$(BIN)/training run deepeyes preset=tiny threads=1 --out runs/demo-visual

quickstart: $(READY)
	@$(BIN)/training run quickstart --out runs/quickstart

test: $(READY)  # a file to a process; a third would wait for the two cores
	@$(BIN)/python -m pytest -m "not slow and not vllm" -n 2 --dist loadfile

test-all: $(READY)
	@$(BIN)/python .ci/bubblewrap.py
	@$(BIN)/python -m pytest -m ""

serve: $(READY)  # make serve MODEL=smollm2 PORT=8000: a vLLM server in an environment of its own, .venv-vllm
	@$(BIN)/python .ci/serve_vllm.py --model $(or $(MODEL),smollm2) --port $(or $(PORT),8000) $(OPTIONS)

bench: $(READY)
	@set -e; for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script --quick; done

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

lock: $(READY)  # after changing a dependency: write the tested set anew
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv .venv-vllm .served build dist .pytest_cache .ruff_cache .hypothesis
