# Every target sets up what it needs; nothing has to be installed by hand but
# Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY_VENV := .venv-parity
STAMP := $(VENV)/.installed
PARITY_STAMP := $(PARITY_VENV)/.installed

.PHONY: install demo test parity bench clean

install: $(STAMP)

# torch comes first and through the constraints file: a later, wider
# requirement then finds it there instead of fetching gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test,hub]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m backend.demo --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest

# Meta's package on a CPU torch, beside ours: see tests/parity.
$(PARITY_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt torch
	$(PARITY_VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt \
		'setuptools<81' wheel numpy pillow tqdm hydra-core iopath av safetensors filelock \
		pytest matplotlib
	SAM2_BUILD_CUDA=0 $(PARITY_VENV)/bin/pip install --disable-pip-version-check -q \
		--no-build-isolation --no-deps sam2==1.1.0
	$(PARITY_VENV)/bin/pip install --disable-pip-version-check -q --no-deps torchvision==0.28.0
	touch $@

parity: $(PARITY_STAMP)
	PYTHONPATH=. $(PARITY_VENV)/bin/python -m pytest tests/parity -W ignore

bench: $(PARITY_STAMP)
	PYTHONPATH=. $(PARITY_VENV)/bin/python -m benchmarks.run

clean:
	rm -rf $(VENV) $(PARITY_VENV) out build dist *.egg-info
