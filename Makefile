# Everything is set up by the targets that need it: `make demo` and `make test` work on a fresh machine
# with Python 3.9 to 3.12, make and g++.

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that is of a version Jittor runs on.
FITS := -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10 python3.9; do $$p $(FITS) && echo $$p && break; done)

.PHONY: demo test extended processors parity alignment docs dist image lint format clean

demo: $(VENV)/.installed
	$(BIN)/medsegdiff demo --out-dir demo

# Most tests are small: two at a time with a thread each are done sooner than one with all threads. Those of the kernels
# ask for all threads themselves. WORKERS=3 fills the cores while one waits for another's compilers; each may take 5 GB.
# COVERAGE=1 also says which lines ran, those in processes of their own aside.
WORKERS ?= 2
ABREAST := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ABREAST) -m "not extended" \
		$(if $(COVERAGE),--cov=medsegdiff --cov-report=term:skip-covered)

# What takes long beside that: pages in Chromium (Debian: chromium, chromium-driver), tutorials, packages, further
# sizes of networks, and the kernels of GPUs by emulation.
extended: $(VENV)/.installed-extended
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ABREAST) -m extended

# As on other processors: an old one (kernels compiled for vectors of 256 bits, oneDNN with AVX2), and one with AVX-512 and
# bf16, but no AMX. ALL=1: all kernels and a training on the old one too, and further instruction sets.
PROVEN := $(addprefix tests/kernels/cpu/test_,convolution.py linear.py)
OLD := $(if $(ALL),tests/training/test_processors.py tests/kernels --ignore=tests/kernels/test_precision.py \
	--ignore=tests/kernels/cuda,$(PROVEN) $(addprefix tests/kernels/cpu/test_,normalisation.py update.py product.py))
ISAS := AVX512_CORE_BF16 $(if $(ALL),AVX512_CORE AVX2)
.PHONY: haswell $(ISAS)
processors:
	$(MAKE) --no-print-directory --jobs 2 --output-sync --keep-going haswell $(ISAS)

haswell: $(VENV)/.installed-dev
	MEDSEGDIFF_TUNING=-march=haswell ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -q -k "not v2" $(OLD)

$(ISAS): $(VENV)/.installed-dev
	ONEDNN_MAX_CPU_ISA=$@ $(BIN)/python -m pytest -q -k "not v2" \
		$(PROVEN) tests/kernels/cpu/test_attention.py tests/training/test_processors.py

# All parity cases; with FULL=--full-curve the whole training curve too (ten minutes more).
parity: $(VENV)/.installed
	$(BIN)/medsegdiff parity tests/parity/cases $(FULL)

# The same training in this package and in PyTorch; DATA is a folder with Train and Test of ISIC 2016. Hours on two cores.
DATA ?= data/ISIC
alignment: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[benchmarks]'
	$(BIN)/python -m benchmarks.alignment --data-dir $(DATA) --lr 1e-4

# The documentation as a site in site/; a broken link is an error.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet, which counts no warning

# What is released: dist/*.whl and dist/*.tar.gz. REPOSITORY: where the links of its description lead, as
# https://HOST/NAME/blob/v1.0; without it they are left out.
dist: $(VENV)/.installed-extended
	rm -rf dist
	MEDSEGDIFF_REPOSITORY=$(REPOSITORY) $(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# The Dockerfile's steps in a Debian root of its own, a folder that is not there yet; as root, with debootstrap.
ROOT ?= /var/tmp/medsegdiff-root
image:
	python3 docker/in_root.py $(ROOT) cpu doctor

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What stays editable is installed by pip 21.3 and newer; Python 3.9 may bring an older one.
$(VENV)/.created:
	@$(or $(PYTHON),false) $(FITS) || { echo "error: $(or $(PYTHON),Python): not found, or not 3.9 to 3.12; install one of these, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=21.3'
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-extended: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[extended]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
