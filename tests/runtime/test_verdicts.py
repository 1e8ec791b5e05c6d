"""The record of `icnet verify`: what stays in it, and that it is read as it was written."""

from __future__ import annotations

from dataclasses import replace

from icnet_deploy.runtime.verdicts import Verdict, Verdicts, read_verdicts, write_verdicts

A = Verdict(
    "a.onnx",
    "a" * 64,
    "openvino",
    "cpu",
    True,
    "",
    0.01,
    "2 images of scenes val, 64x96",
    "mIoU within 0.3 points",
    "2026-01-01T00:00:00+00:00",
    "a processor",
    {"openvino": "2026.4.1"},
    ("avx2", "avx512_vnni"),
)


def test_the_record_keeps_what_was_found_elsewhere(tmp_path):
    on_gpu = replace(A, device="cuda")
    gone = replace(A, file="b.onnx", sha256="b" * 64)
    everywhere = replace(A, runtime=None, device=None, passed=False)
    old = (on_gpu, replace(A, passed=False), everywhere, gone)
    new = Verdicts(old).renewed([A], [A.sha256])
    assert new.verdicts == (on_gpu, A)
    write_verdicts(tmp_path, new)
    assert read_verdicts(tmp_path) == new
