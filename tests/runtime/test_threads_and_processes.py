"""Many threads, forked children, process pools, and ends at any moment."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from icnet_deploy.errors import BackendError
from icnet_deploy.runtime import Predictor

SIZES = [(64, 96), (64, 128), (96, 96), (160, 96), (128, 224)]

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def any_size(tiny_model):
    return tiny_model(size=None)


def python(program, *arguments, seconds=60):
    """Runs a program; it must end by itself, in time."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_many_predictors_in_many_threads_each_give_the_right_answer(runtime, any_size, blocks):
    images = [blocks(size) for size in SIZES]
    predictors = [Predictor.open(any_size, runtime, "cpu", 1, streams=n) for n in (1, 1, 2)]
    wanted = [predictors[0].predict(image).labels for image in images]

    def ask(turn):
        predictor, which = predictors[turn % 3], turn % len(images)
        return np.array_equal(predictor.predict(images[which]).labels, wanted[which])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
    for predictor in predictors:
        predictor.close()


def test_closed_while_threads_predict_each_gets_an_answer_or_is_told(runtime, any_size, blocks):
    image = blocks(SIZES[-1])
    for _ in range(5):
        predictor = Predictor.open(any_size, runtime, "cpu", 1)
        wanted, said = predictor.predict(image).labels, []

        def ask(predictor=predictor, wanted=wanted, said=said):
            try:
                while True:
                    assert np.array_equal(predictor.predict(image).labels, wanted)
            except BackendError as error:
                said.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        predictor.close()
        for thread in threads:
            thread.join(20)
        assert len(said) == 4
        assert all("closed" in each for each in said)


def test_a_stream_that_is_dropped_halfway_leaves_no_thread(runtime, any_size, blocks):
    image = blocks(SIZES[0])
    with Predictor.open(any_size, runtime, "cpu", 1) as predictor:
        predictor.predict(image)
        before = threading.active_count()
        for _ in range(20):
            frames = predictor.stream(image for _ in range(10))
            next(frames)
            del frames
        patience = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < patience:
            time.sleep(0.01)
        assert threading.active_count() <= before


FORKED = """
import os, sys
import numpy as np
from icnet_deploy.runtime import Predictor
model, runtime, what = sys.argv[1:]
image = np.random.default_rng(1).integers(0, 256, (128, 224, 3), np.uint8)
predictor = Predictor.open(model, runtime, "cpu")
wanted = predictor.predict(image).labels
child = os.fork()
if not child:
    if what == "predict":
        assert np.array_equal(predictor.predict(image).labels, wanted)
    elif what == "close":
        predictor.close()
    elif what == "open":
        with Predictor.open(model, runtime, "cpu") as own:
            assert np.array_equal(own.predict(image).labels, wanted)
    print("child", what)
    sys.exit(7)
status = os.waitpid(child, 0)[1]
assert os.waitstatus_to_exitcode(status) == 7, status
assert np.array_equal(predictor.predict(image).labels, wanted)
print("parent")
"""


@needs_fork
@pytest.mark.parametrize("what", ["nothing", "predict", "close", "open"])
def test_a_forked_child_predicts_and_ends(runtime, any_size, what):
    done = python(FORKED, any_size, runtime, what)
    # OpenVINO's own usage statistics may have a process of `multiprocessing`, of which the child
    # says that it is not its parent.
    assert (done.returncode, done.stdout) == (0, f"child {what}\nparent\n"), done.stderr


POOLED = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from icnet_deploy.runtime import Predictor

def begin(model, runtime):
    global predictor
    predictor = Predictor.open(model, runtime, "cpu", 1)

def ask(seed):
    image = np.random.default_rng(seed).integers(0, 256, (64 + 32 * seed, 96, 3), np.uint8)
    return predictor.predict(image).labels

if __name__ == "__main__":
    model, runtime, method, before = sys.argv[1:]
    begin(model, runtime)
    wanted = [ask(seed) for seed in range(6)] if before == "used" else None
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context, begin, (model, runtime)) as pool:
        found = list(pool.map(ask, range(6)))
    wanted = wanted or [ask(seed) for seed in range(6)]
    print(all(map(np.array_equal, found, wanted)))
"""


@pytest.mark.parametrize(
    ("method", "before"),
    [
        pytest.param("fork", "used", marks=needs_fork),
        pytest.param("fork", "unused", marks=needs_fork),
        ("spawn", "used"),
    ],
)
def test_a_process_pool_predicts(runtime, any_size, method, before, tmp_path):
    program = tmp_path / "pooled.py"  # spawn imports it by its path
    program.write_text(POOLED)
    done = subprocess.run(
        [sys.executable, str(program), str(any_size), runtime, method, before],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


AT_THE_END = """
import sys, threading
import numpy as np
from icnet_deploy.runtime import Predictor
model, runtime = sys.argv[1:]
predictor = Predictor.open(model, runtime, "cpu")
image = np.zeros((64, 96, 3), np.uint8)
frames = predictor.stream(image for _ in range(100))
next(frames)
def work():
    while True:
        predictor.predict(image)
threading.Thread(target=work, daemon=True).start()
predictor.predict(image)
"""


def test_the_interpreter_ends_with_one_open_and_in_use(runtime, any_size):
    done = python(AT_THE_END, any_size, runtime)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
