# make demo    install into .venv, then the main job from end to end; IMAGE=photo.jpg adds your own
# make test    the same, then every check and the whole test suite
# make check   lint, format and types
# make long    what takes too long for `make test`; writes its results into benchmarks/results/
# make fuzz    tries a million inputs of every kind; MINUTES=20 for a while, TARGETS="images models"
# make test-gpu  the tests that need TensorRT or a GPU; writes build/test-gpu.xml
# make dist    the sources and the wheel that are published, in dist/
# make clean   remove what the above made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
IMAGE ?=

.PHONY: demo test dist long fuzz test-gpu check site clean
.DELETE_ON_ERROR:

INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# What the demo needs, and no more.
$(VENV)/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --editable ".[cpu,openvino,export,benchmark]"
	touch $@

# At its end Cityscapes' own evaluation, for the test that ours equals it; without its dependencies,
# of which one is a copy of `typing` for Python 3.4.
$(VENV)/installed: $(VENV)/demo
	$(INSTALL) --editable ".[cpu,openvino,export,train,video,sign,benchmark,test]"
	$(INSTALL) --no-deps cityscapesscripts pyquaternion
	touch $@

# Other people's networks, for examples/own_network. They lie apart: where torch is a build for CPUs
# alone, torchvision lacks two of its operators, and Lightning, which imports it where it is
# installed, would stop. A failed installation leaves no folder.
$(VENV)/networks: $(VENV)/installed
	rm -rf $@ $@.part
	$(INSTALL) --no-deps --target $@.part torchvision timm segmentation-models-pytorch \
		transformers huggingface_hub tokenizers regex pyyaml httpx2 httpcore2 hf-xet anyio \
		certifi h11 idna click typer shellingham truststore
	mv $@.part $@
	touch $@

demo: $(VENV)/demo
	$(BIN)/icnet scenes $(DEMO)/scenes --count 10 --size 1024x2048 --seed 7
	$(BIN)/python export/to_onnx.py --size 1024x2048 --head logits -o $(DEMO)/icnet-logits.onnx
	$(BIN)/python export/to_onnx.py --size 1024x2048 --head labels -o $(DEMO)/icnet-labels.onnx
	$(BIN)/icnet predict $(DEMO)/scenes/leftImg8bit/val/scenes $(IMAGE) \
		--model $(DEMO)/icnet-logits.onnx -o $(DEMO)/pictures
	$(BIN)/icnet parity $(DEMO)/icnet-logits.onnx $(DEMO)/icnet-labels.onnx \
		--dataset scenes --data $(DEMO)/scenes \
		--json $(DEMO)/parity.json --report $(DEMO)/parity.html
	@echo
	@echo "The model:    $(DEMO)/icnet-logits.onnx and $(DEMO)/icnet-labels.onnx"
	@echo "The pictures: $(DEMO)/pictures/"
	@echo "The report:   $(DEMO)/parity.html"

# What is published, by `twine upload dist/*`: the sources, and a wheel that is built from them alone
# and has the tag of the oldest systems (glibc) that it runs on.
dist: $(VENV)/installed
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir build/dist . > /dev/null
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/auditwheel repair --wheel-dir dist build/dist/*.whl
	mv build/dist/*.tar.gz dist
	$(BIN)/twine check --strict dist/*

# The pages as a site, in build/site; any link that leads nowhere ends it.
site: $(VENV)/installed
	$(BIN)/python -m sphinx -q -W --keep-going docs build/site

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) dist
	$(BIN)/python -m pip install --quiet --no-deps --target build/types dist/*.whl
	$(MAKE) site
	cd build && MYPYPATH=types ../$(BIN)/mypy --config-file ../pyproject.toml
	cd build && MYPYPATH=types:.. ../$(BIN)/mypy --config-file ../pyproject.toml -p tools

# A process for each of two cores, which begin at either half and end together.
test: demo check $(VENV)/networks
	$(BIN)/python -m pytest -n 2 --dist worksteal

# How often intervals cover the true difference, in 26 cases of 2,000 draws: some 20 minutes. The
# examples as a user runs them: some 15. Each form of an operator in each place in 8 bits: some 15.
# A soak of 100,000 predictions on each of two runtimes.
# Commands that are killed 100 times, and run to their end after each. The tests with the lowest
# versions that are allowed, which are some gigabytes.
long: $(VENV)/networks
	$(BIN)/python -m tools.coverage --draws 2000 -o benchmarks/results/coverage-camvid.json
	PATH=$(CURDIR)/$(BIN):$$PATH sh examples/own_data/run.sh
	PYTHONPATH=$(CURDIR)/$(VENV)/networks $(BIN)/python examples/own_network/run.py --out runs/own_network
	$(BIN)/python -m tools.own_networks runs/own_network \
		--json benchmarks/results/own-networks.json
	failed=0; \
	$(BIN)/python -m tools.int8_networks runs/own_network \
		--json benchmarks/results/int8-networks.json || failed=$$?; \
	$(BIN)/python -m tools.accuracy runs/own_network/quantized/*/verify.result && exit $$failed
	$(BIN)/python examples/foreign_onnx/run.py
	ICNET_EVERY_FORM=1 $(BIN)/python -m pytest tests/calibration/test_between.py
	$(BIN)/python -m tools.pages --where long --json benchmarks/results/pages.json
	$(BIN)/icnet export --dynamic-size -o runs/icnet-any.onnx
	for runtime in onnxruntime openvino; do $(BIN)/python -m tools.soak runs/icnet-any.onnx \
		--runtime $$runtime --json benchmarks/results/soak-$$runtime.json || exit 1; done
	$(BIN)/python -m tools.kills --kills 100 --json benchmarks/results/kills-cpu.json
	$(BIN)/python -m tools.lowest --json benchmarks/results/lowest.json

# What it tried before, it goes on with: the results are added up, and what was found is in
# runs/fuzz. Where atheris cannot be installed, inputs are not guided by the code that they reach.
MINUTES ?=
TARGETS ?=
$(VENV)/fuzz: $(VENV)/installed
	$(INSTALL) "atheris>=3.0" || true
	touch $@

fuzz: $(VENV)/fuzz
	$(BIN)/python -m tools.fuzz $(TARGETS) $(if $(MINUTES),--minutes $(MINUTES)) \
		--json benchmarks/results/fuzz.json

# With -rs it says what was skipped, and why. The file names the GPU and the versions.
test-gpu: $(VENV)/installed
	mkdir -p build
	$(BIN)/python -m pytest -rs -m "tensorrt or gpu" --junitxml=build/test-gpu.xml

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
