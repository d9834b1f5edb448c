# make serve: everything from nothing to a running OCR service.    make test: everything checked.
# Needs Python 3.10 to 3.13, pip and make; all else is installed into .venv.

SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	if $$p -c '$(SUPPORTED)' 2>/dev/null; then echo $$p; break; fi; done)
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
DEVICE ?= cpu
$(if $(filter cpu gpu,$(DEVICE)),,$(error DEVICE is cpu or gpu, not $(DEVICE)))

.PHONY: serve test soak check format clean bytecode

serve: .venv/installed-$(DEVICE) bytecode
	@.venv/bin/python quickstart.py $(DEVICE)

# With DEVICE=gpu also the engine of GPUs; it runs on the CPU where there is none.
test: .venv/installed-dev .venv/installed-$(DEVICE:cpu=dev) check bytecode
	.venv/bin/python -m pytest

# SOAK="--quick", SOAK="--only O1 M1", SOAK=--help
soak: .venv/installed-soak
	PYTHONPATH=benchmark:tests .venv/bin/python -m soak $(SOAK)

check: .venv/installed-dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv/installed-dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# Each process would else compile the sources at its start, where PYTHONDONTWRITEBYTECODE is set. Only speed is lost
# where it cannot be written.
bytecode: .venv/bin/python
	@.venv/bin/python -m compileall -qq src || true

clean:
	rm -rf .venv ocr_det_model ocr_det_client ocr_det.tar.gz ocr_rec_model ocr_rec_client ocr_rec.tar.gz

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.13 is needed, and none was found; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Making the environment .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 2; }

.venv/installed-cpu: .venv/bin/python pyproject.toml
	@echo "Installing into .venv (about 370 MB of packages the first time)"
	@start=$$(date +%s); $(PIP) --editable '.[onnxruntime]' && echo "Installed in $$(($$(date +%s) - start)) s"
	@touch $@

.venv/installed-gpu: .venv/bin/python pyproject.toml
	@echo "Installing into .venv, with PyTorch and CUDA (6.6 GB in all)"
	@$(PIP) --editable '.[gpu]'
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	@echo "Installing with the development tools into .venv"
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/installed-soak: .venv/bin/python pyproject.toml
	@echo "Installing with what the soak needs into .venv"
	@$(PIP) --editable '.[dev,soak]'
	@touch $@
