# Everything runs from .venv; `make setup` is implied. On Windows use the commands after $(VENV)/.
PYTHON ?= python3
# notebooks of `make reproduce` at once, each with its share of the cores
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup reproduce test lint export clean readme
help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with the pinned versions
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: fusionrepro needs Python 3.11 or later; name one with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# torch by itself first, so that a CPU build already at hand satisfies the pin
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

reproduce: setup ## run the papermill batch (PROFILE=smoke) and write the report
	# the report is written even when a notebook failed: it says which; the exit code stays
	$(BIN)/fusionrepro run --profile $(or $(PROFILE),smoke) --jobs $(JOBS); code=$$?; \
	  $(BIN)/fusionrepro report && exit $$code

test: lint       ## everything that CI runs
	# one process a core, each with one thread: twice as fast as one process with two
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: setup
	$(BIN)/ruff check .

export: setup    ## notebooks -> fusionrepro/, cleaned; commit both
	$(BIN)/jupyter nbconvert --clear-output --inplace --log-level=ERROR $$(find nbs -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*')
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export

readme: setup    ## nbs/index.ipynb -> README.md, with the recorded results and a fresh picture
	$(BIN)/python -m fusionrepro.reproduction.readme

clean:           ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) _build .pytest_cache .ruff_cache
