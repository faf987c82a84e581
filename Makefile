# `make` lists the targets. Every target sets up what it needs: a virtual environment in .venv and nothing outside it.
# Options: PYTHON=python3.12 (the interpreter for a new .venv), ARGS="..." (passed on to pytest, the demo or JupyterLab,
# or the notebooks to refresh).
PYTHON ?= python3
ARGS ?=
# How many test files run at once; each process uses one thread.
JOBS ?= 2

BIN := .venv/bin
RUN := $(BIN)/python
# uv installs in a quarter of the time; pip does the same where there is no uv.
UV := $(shell command -v uv 2>/dev/null)
# These are called with the folder of an environment.
install = $(if $(UV),$(UV) pip install --python $(1)/bin/python,$(1)/bin/python -m pip install --disable-pip-version-check)
venv = $(if $(UV),$(UV) venv --seed --clear --python $(PYTHON) $(1),$(PYTHON) -m venv --clear $(1))
usable = $(1)/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
OLD := echo "minillada needs Python 3.11 or newer: name one, as in make PYTHON=python3.12 (now: $(PYTHON))"; exit 2

# Kernels of notebooks inherit this: OpenMP's waiting threads sleep soon, and two notebooks at once do not take each
# other's cores (minillada/__init__.py). What the user has set stays.
ifndef OMP_WAIT_POLICY
GOMP_SPINCOUNT ?= 1000
export GOMP_SPINCOUNT
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest lab play notebooks editions docs docs-tools official-tools play-tools slides lint lint-tools clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp file dates the last complete install: a newer pyproject.toml or constraints.txt installs again, and so does
# an install that was interrupted.
.venv/installed: pyproject.toml constraints.txt
	@echo "setting up .venv: about 2 minutes and 6 GB with pip, faster with uv"
	@$(call usable,.venv) || $(call venv,.venv)
	@$(call usable,.venv) || { $(OLD); }
	$(call install,.venv) -e ".[ablate]" -c constraints.txt
	@touch $@

.venv/installed-dev: .venv/installed
	$(call install,.venv) -e ".[dev]" -c constraints.txt
	@touch $@

.venv/installed-docs: .venv/installed
	$(call install,.venv) -e ".[docs]" -c constraints.txt
	@touch $@

.venv/installed-official: .venv/installed
	$(call install,.venv) -e ".[official]" -c constraints.txt
	@touch $@

.venv/installed-play: .venv/installed
	$(call install,.venv) -e ".[play]" -c constraints.txt
	@touch $@

# A second environment, with the oldest PyTorch that pyproject.toml admits; all else as constraints.txt has it.
OLDEST := .venv-oldest
OLDEST_PINS := sed -n -E 's/^ *"(torch|torchvision)>=([0-9.]+)",$$/\1==\2/p' pyproject.toml

$(OLDEST)/installed: pyproject.toml constraints.txt
	@echo "setting up $(OLDEST): 6 GB more"
	$(call venv,$(OLDEST))
	@$(call usable,$(OLDEST)) || { $(OLD); }
	$(OLDEST_PINS) > $(OLDEST)/torch.txt
	sed -E '/^torch(vision)?==/d' constraints.txt > $(OLDEST)/others.txt
	$(call install,$(OLDEST)) -e ".[ablate,official]" -r $(OLDEST)/torch.txt -c $(OLDEST)/others.txt
	@touch $@

demo: .venv/installed ## draw digits from captions and describe test images (outputs/demo.png)
	$(RUN) -m minillada demo $(ARGS)

test: .venv/installed ## run the whole test suite, notebooks included
	TQDM_DISABLE=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-oldest: $(OLDEST)/installed ## run the tests without notebooks, with the oldest PyTorch
	TQDM_DISABLE=1 $(OLDEST)/bin/python -m pytest tests --ignore=tests/test_notebooks.py -n $(JOBS) --dist loadfile $(ARGS)

lab: .venv/installed ## open JupyterLab on the notebooks
	$(RUN) -m jupyterlab notebooks $(ARGS)

play: .venv/installed-play ## open the playground in a browser: draw a digit, and see what the model makes of it
	$(RUN) -m voila minillada/playground/playground.ipynb $(ARGS)

notebooks: .venv/installed ## run the notebooks and store their outputs (ARGS=notebooks/04_... for one)
	$(RUN) notebooks/refresh.py $(ARGS)

editions: .venv/installed ## make the notebooks for students, for instructors and for nbgrader (editions/)
	$(RUN) -m minillada editions --out editions $(ARGS)

docs: .venv/installed-docs ## build the site from the stored outputs (docs/_build/html), links checked
	$(RUN) -m sphinx -q -W --keep-going -b html -c docs . docs/_build/html
	@echo "open docs/_build/html/index.html"

slides: .venv/installed-docs ## make slides of the notebooks (docs/_build/slides; ARGS=notebooks/04_... for one)
	$(RUN) docs/slides/make.py $(ARGS)

lint-tools: .venv/installed-dev

docs-tools: .venv/installed-docs

official-tools: .venv/installed-official

play-tools: .venv/installed-play

lint: .venv/installed-dev ## check style with ruff, notebooks included, and types with mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove outputs and caches; trainings in runs/ stay
	rm -rf outputs build dist docs/_build docs/api .pytest_cache .ruff_cache .hypothesis *.egg-info
	find minillada notebooks tests \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv and .venv-oldest
	rm -rf .venv $(OLDEST)
