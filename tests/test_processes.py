"""Processes: a child that answers in lines of JSON, and others' tools."""

import sys
from contextlib import closing

import pytest

from icnet_deploy.errors import BackendError, InputError, UnavailableError
from icnet_deploy.processes import Child, run_tool

ECHO = """
import json, sys
job = json.loads(sys.argv[1])
print(json.dumps(job), flush=True)
for line in sys.stdin:
    print(json.dumps({"error": "no", "kind": line.strip()}), flush=True)
"""


@pytest.mark.parametrize("kind", [InputError, UnavailableError, BackendError])
def test_a_child_gets_its_job_and_answers_line_by_line(tmp_path, kind):
    (tmp_path / "echo.py").write_text(ECHO)
    with closing(Child([str(tmp_path / "echo.py")], {"path": tmp_path})) as child:
        assert child.answer() == {"path": str(tmp_path)}
        with pytest.raises(kind, match="no"):
            child.ask(kind.__name__)


def test_a_tool_runs_to_its_end_and_how_it_ended_is_told():
    done = run_tool([sys.executable, "-c", "print('told'); raise SystemExit(3)"])
    assert (done.returncode, done.stdout) == (3, "told\n")
    assert run_tool(["no-such-tool"]).returncode == 127
    assert run_tool([sys.executable, "-c", "import time; time.sleep(60)"], 0.2).returncode == 124
