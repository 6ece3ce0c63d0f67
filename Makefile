# Needs Python 3.11 or newer and make; everything else is put into .venv and build/ of this folder.
PYTHON ?= python3
WORKERS ?= 4

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# What is imported is compiled then, which is a small part of all that is installed.
PIP_INSTALL = $(BIN)/python -m pip install -qq --no-compile
unexport PYTHONDONTWRITEBYTECODE
PYTEST = CHROMIUM_FOR_TESTS="$$(cat build/chromium)" \
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

define NO_VENV

$(PYTHON) cannot make a virtual environment with pip in it. On Debian and Ubuntu it comes in a package
of its own: `apt-get install python3-venv` as root, then run make again. Or name another Python:
`make PYTHON=/path/to/python3.12 ...`.
endef
export NO_VENV

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo ## Run the whole thing against the sandbox: no key, no network, no money
	$(BIN)/kling-nb demo --prompts tests/data/vbench_prompts.jsonl

.PHONY: test
test: venv chromium ## Set up everything and run every check
	@$(MAKE) --no-print-directory --jobs=2 pytest static

.PHONY: pytest
pytest: venv chromium
	@# One process compiles the tests for all workers.
	@$(BIN)/pytest --collect-only -q >build/tests.txt 2>&1 || { cat build/tests.txt; exit 1; }
	$(PYTEST) -m "not matrix"

# Beside the tests, which wait for each other now and then; one after the other, for their own caches' sake.
.PHONY: static
static: lint
	@$(MAKE) --no-print-directory docs

.PHONY: matrix
matrix: venv chromium ## Run the full matrices, which `make test` leaves out
	$(BIN)/python tests/support/pythons.py
	@found=0; $(BIN)/pytest -m matrix --collect-only -q >build/matrix.txt 2>&1 || found=$$?; \
	if [ $$found -eq 5 ]; then echo "There is no test marked matrix yet."; exit 0; fi; \
	if [ $$found -ne 0 ]; then cat build/matrix.txt; exit $$found; fi; \
	$(PYTEST) -m matrix $(MATRIX_ARGS)

.PHONY: lab
lab: $(VENV)/.lab ## Open JupyterLab on the notebooks
	@# By its default address, so that the address it prints opens the notebook too.
	cd notebooks && ../$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/01_first_video.ipynb \
	  $$(test "$$(id -u)" != 0 || echo --allow-root)

.PHONY: docs
docs: venv ## Build the documentation into build/docs; a warning is an error
	$(BIN)/python docs/tools/tables.py --check
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees -b html docs build/docs

.PHONY: tables
tables: venv ## Write the tables of the documentation from the code
	$(BIN)/python docs/tools/tables.py

.PHONY: pictures
pictures: venv ## Take the pictures of the documentation in a real browser
	$(BIN)/python docs/tools/pictures.py
	$(BIN)/python docs/tools/pictures_form.py
	$(BIN)/python docs/tools/pictures_gallery.py
	$(BIN)/python docs/tools/pictures_compare.py
	$(BIN)/python docs/tools/pictures_page.py

.PHONY: states
states: venv ## Take a picture of every state of every view, and write the page that shows them
	$(BIN)/python docs/tools/states.py

.PHONY: notebooks
notebooks: venv ## Run the tutorials that are kept with their outputs, and write them
	$(BIN)/python docs/tools/notebooks.py

.PHONY: bench
bench: $(VENV)/.bench ## Measure everything beside its peers, and write docs/benchmarks.md (BENCH_ARGS=--quick)
	$(BIN)/python tests/benchmarks/bench.py $(BENCH_ARGS)

.PHONY: lint
lint: venv ## Check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: venv ## Put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: venv
venv: $(VENV)/.dev ## Set up the virtual environment for development

.PHONY: clean
clean: ## Remove the virtual environment and whatever was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Finding or installing a browser is a step of its own, so that a failure is loud and not a skipped test.
.PHONY: chromium
chromium: venv
	@mkdir -p build
	@$(BIN)/python tests/support/chromium.py --install >build/chromium
	@echo "Chromium: $$(cat build/chromium)"

# Debian's Python can lack what venv takes pip from; a pip outside may then still provide it.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "kling_nb needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; } 2>/dev/null \
	  || { rm -rf $(VENV); echo "$$NO_VENV" >&2; exit 1; }
	@$(PIP_INSTALL) --upgrade 'pip>=25.1'
	@touch $@

# One stamp for each dependency group. The group `dev` holds the others, so that it stands in for them.
GROUPS := $(if $(wildcard $(VENV)/.dev),dev,dev demo lab)
$(GROUPS:%=$(VENV)/.%): $(VENV)/.%: pyproject.toml $(VENV)/.python
	@echo "Installing kling_nb and what '$*' needs"
	@$(PIP_INSTALL) --editable . --group $*
	@touch $@
# The peers of the benchmarks are never part of another group: nothing else may come to need them.
$(VENV)/.bench: $(VENV)/.dev
	@echo "Installing the peers of the benchmarks"
	@$(PIP_INSTALL) --group bench
	@touch $@
ifeq ($(GROUPS),dev)
$(VENV)/.demo $(VENV)/.lab: $(VENV)/.dev
	@touch $@
endif
