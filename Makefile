# Every target sets up what it needs; nothing has to be installed by hand but
# Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY_VENV := .venv-parity
STAMP := $(VENV)/.installed
PARITY_STAMP := $(PARITY_VENV)/.installed
LABEL_STUDIO_VENV := .venv-label-studio
LABEL_STUDIO_STAMP := $(LABEL_STUDIO_VENV)/.installed
E2E_STAMP := $(VENV)/.installed-e2e
ML_HOST_VENV := .venv-ml-host
ML_HOST_STAMP := $(ML_HOST_VENV)/.installed
S3_VENV := .venv-s3
S3_STAMP := $(S3_VENV)/.installed
LOCK_VENV := .venv-lock
LOCK_STAMP := $(LOCK_VENV)/.installed

.PHONY: install demo studio test test-slow fuzz faults load parity e2e ml-host s3 bench bench-queue \
	training-pack lock sbom clean

install: $(STAMP)

# LOCKED=1, as CI has it: just the files that requirements-test.lock names.
# torch comes first and through the constraints file: a later, wider
# requirement then finds it there instead of fetching gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt torch
ifdef LOCKED
	$(BIN)/pip install --disable-pip-version-check -q --no-deps --require-hashes \
		-r requirements-test.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	$(BIN)/pip check
else
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test,hub]'
endif
	$(BIN)/pip install --disable-pip-version-check -q --no-deps vos-benchmark==0.1.0 trackeval==1.3.0
	touch $@

demo: $(STAMP)
	$(BIN)/python -m backend.demo --out out/demo

# A real Label Studio. Its database is migrated once; each server begins with a copy.
$(LABEL_STUDIO_STAMP): Makefile
	$(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/pip install --disable-pip-version-check -q label-studio==1.23.2
	rm -rf $(LABEL_STUDIO_VENV)/empty
	COLLECT_ANALYTICS=false LATEST_VERSION_CHECK=false SENTRY_DSN= \
		$(LABEL_STUDIO_VENV)/bin/label-studio version --data-dir $(LABEL_STUDIO_VENV)/empty \
		>$(LABEL_STUDIO_VENV)/migration.log 2>&1
	touch $@

studio: $(STAMP) $(LABEL_STUDIO_STAMP)
	$(BIN)/python -m backend.studio --label-studio $(LABEL_STUDIO_VENV)/bin/label-studio \
		--empty-data $(LABEL_STUDIO_VENV)/empty

# Networks and pictures are small: a second thread costs more than it brings (82 s, not 51).
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# Other requests, configs, results and URLs each time, and many more than in `test`.
fuzz: $(STAMP)
	$(BIN)/python -m pytest --hypothesis-profile=fuzz \
		tests/backend/test_fuzz_api.py tests/backend/test_fuzz_inputs.py

test-slow: $(STAMP)
	$(BIN)/python -m pytest tests/slow

# Real processes killed, starved of disk and memory, and refused by Label Studio. Needs a
# redis-server (apt-get install redis-server), as some of `make test` does.
faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults tests/backend/test_restart.py

# 200 clients for five minutes.
load: $(STAMP)
	$(BIN)/python -m benchmarks.load

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

$(E2E_STAMP): $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[e2e]'
	touch $@

# Needs a chromium too (apt-get install chromium), or its path in CHROMIUM. The warnings are of
# label-studio-sdk (open connections, old calls) and pycocotools.
e2e: $(STAMP) $(E2E_STAMP) $(LABEL_STUDIO_STAMP)
	$(BIN)/python -m pytest tests/e2e -W ignore::ResourceWarning -W ignore::DeprecationWarning

# label-studio-ml of PyPI pins Flask 1.1.2, which our own server does not take: the service
# inside it needs an environment of its own, without our web server's packages.
$(ML_HOST_STAMP): Makefile pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ML_HOST_VENV)
	$(ML_HOST_VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt torch
	$(ML_HOST_VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt \
		label-studio-ml==1.0.9 rq redis numpy pillow av safetensors filelock pycocotools \
		ijson tqdm pyjwt pytest
	touch $@

# Storage in S3, spoken by moto's server.
$(S3_STAMP):
	$(PYTHON) -m venv $(S3_VENV)
	$(S3_VENV)/bin/pip install --disable-pip-version-check -q \
		s3fs 'moto[s3]>=5' flask flask-cors pytest
	touch $@

s3: $(S3_STAMP)
	PYTHONPATH=. $(S3_VENV)/bin/python -m pytest tests/s3 -W default

ml-host: $(ML_HOST_STAMP)
	PYTHONPATH=. $(ML_HOST_VENV)/bin/python -m pytest tests/ml_host -W default

bench: $(PARITY_STAMP)
	PYTHONPATH=. $(PARITY_VENV)/bin/python -m benchmarks.run

# Needs a redis-server.
bench-queue: $(STAMP)
	$(BIN)/python -m benchmarks.queue

# What a GPU machine without a network needs to train: sam2_model/training/piece.sh.
PACK ?= runs/pack
PACK_PYTHON ?= 3.12
PACK_PLATFORMS := $(foreach n,2_28 2_27 2_17 2014,--platform manylinux$(if $(findstring 2014,$(n)),,_)$(n)_x86_64)

training-pack: $(STAMP)
	$(BIN)/python -m sam2_model.training.materials --out $(PACK)/materials $(if $(COCO),--coco $(COCO))
	$(BIN)/pip download --disable-pip-version-check -q --no-deps --only-binary=:all: \
		--implementation cp --python-version $(PACK_PYTHON) $(PACK_PLATFORMS) \
		-d $(PACK)/wheels numpy pillow safetensors tqdm av filelock

$(LOCK_STAMP): Makefile
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/pip install --disable-pip-version-check -q 'uv>=0.9' 'cyclonedx-bom>=7'
	touch $@

# The newest versions that go together, each file of them by its hash, for Python 3.11 on
# Linux x86_64: what the container and CI install. PyTorch is not among them: which build it
# is depends on the machine (constraints.txt has its version), and with it go CUDA's packages.
CUDA_PACKAGES := triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,\
	cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
	cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
COMPILE = $(LOCK_VENV)/bin/uv pip compile -q --upgrade --generate-hashes --no-header \
	--no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	$(foreach name,torch $(CUDA_PACKAGES),--no-emit-package $(name)) -c constraints.txt

lock: $(LOCK_STAMP)
	$(COMPILE) --extra hub --extra redis -o requirements.lock pyproject.toml
	$(COMPILE) --extra hub --extra redis --extra test -c requirements.lock -o requirements-test.lock pyproject.toml

# What the container has in it, in CycloneDX's form.
sbom: $(LOCK_STAMP)
	mkdir -p out
	cat requirements.lock constraints.txt | $(LOCK_VENV)/bin/cyclonedx-py requirements \
		--pyproject pyproject.toml --output-reproducible --of JSON -o out/sbom.cdx.json -

clean:
	rm -rf $(VENV) $(LOCK_VENV) $(ML_HOST_VENV) $(PARITY_VENV) $(LABEL_STUDIO_VENV) out build dist *.egg-info
