# make run     execute the notebook top to bottom     DATA= RUN= PROFILE= LABELS=
# make rehearsal   the t4 profile's path with the embedded chat model, on a CPU
# make page    a finished run's notebook as docs/sample.html: make run page PROFILE=chat RUN=chat
# make test    lint, check types and run every test
# make test-colab, make test-floor   the tests on Colab's versions, on the oldest ones: constraints-*.txt     TESTS=
# make look    a finished run's notebook in Chromium, at desktop and phone width, light and dark     RUN=
# make soak    30 kills over all stages, every other fault and every single change, on tiny models; ten minutes or so
# make bench   our way against the reference's way, one line each     MODEL=embedded:chat-lm
# make peers   beside SetFit, TF-IDF, outlines, llama.cpp's grammar and cleanlab     ARGS="--part doubt --splits 3"
# make gpu     the proof on a CUDA machine, with its own PyTorch and no network: benchmarks/gpu_wheels.sh fills wheels/
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
DEV     := $(VENV)/.dev

DATA    ?= data/sample
RUN     ?= sample
PROFILE ?= auto
LABELS  ?=
TESTS   ?=
MODEL   ?=
ARGS    ?=

# The chat model's packages, where it is used.
CHAT := $(if $(filter chat rehearsal embedded:chat-lm,$(PROFILE) $(MODEL)),$(VENV)/.chat)

export TOKENIZERS_PARALLELISM = false

.PHONY: run rehearsal page test test-colab test-floor lint look soak bench peers gpu clean

run: $(READY) $(CHAT)
	@$(BIN)/python -m sirius_helpers --data "$(DATA)" --run "$(RUN)" --profile "$(PROFILE)" --labels "$(LABELS)"

rehearsal:
	@$(MAKE) --no-print-directory run PROFILE=rehearsal RUN=rehearsal

test: lint
	$(BIN)/python -m pytest

test-colab test-floor: test-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest $(TESTS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy

page: $(READY)
	@$(BIN)/jupyter nbconvert --log-level=ERROR --to html --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_cell_tags=remove-cell --output-dir docs --output sample "checkpoints/$(RUN)/notebook.ipynb"

look: $(DEV)
	@$(BIN)/python tests/browser/layout.py "checkpoints/$(RUN)/notebook.ipynb"

soak: $(DEV)
	@cd tests && ../$(BIN)/python -m soak.soak
	@SOAK=1 $(BIN)/python -m pytest tests/test_metamorphic.py tests/test_causes.py

BENCHES := label judge generate train predict
bench: $(addprefix bench-,$(BENCHES))
bench-%: $(DEV) $(CHAT)
	@MODEL="$(MODEL)" $(BIN)/python benchmarks/bench_$*.py

peers: $(VENV)/.peers
	@$(BIN)/python benchmarks/peers.py $(ARGS)

gpu:
	@$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target build/gpu wheels/*.whl
	@PYTHONPATH=.:build/gpu $(PYTHON) benchmarks/gpu.py

# What running needs, and what the rest needs too. A stamp is written last, so that an interrupted install is done again.
$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.version_info < (3, 11) and sys.exit('Error: $(PYTHON) is Python %d.%d; 3.11 or newer is needed. Name one: make PYTHON=python3.12 …' % sys.version_info[:2])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,notebook]"
	@touch $@

$(VENV)/.chat: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,notebook,chat]"
	@touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,notebook,dev]"
	@touch $@

$(VENV)/.peers: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,notebook,peers]"
	@touch $@

# A list of its own goes before constraints.txt, whose other lines stay.
.venv-%/.ready: constraints-%.txt requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	awk '{ name = tolower($$1); sub(/=.*/, "", name); gsub(/_/, "-", name) } NR == FNR { own[name] } NR == FNR || !(name in own)' \
		constraints-$*.txt constraints.txt > .venv-$*/constraints.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-$*/constraints.txt -e ".[cpu,notebook,dev]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-colab .venv-floor
