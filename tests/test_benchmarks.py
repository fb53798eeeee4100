"""The benchmarks run and report every part. The numbers mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY, TINY_RECIPE, write_yaml

TINY = ["--device", "cpu", "--batch", "4", "--steps", "1", "--warmup", "1", "--blocks", "2", "--photos", "8"]
TINY += ["--growth", "64", "--workers", "1"]


@pytest.mark.slow
def test_every_part_of_the_throughput_benchmark_reports_numbers(tmp_path):
    recipe = TINY_RECIPE | {"augmentation": [{"kind": "rotation", "degrees": 5}, {"kind": "random_resized_crop"}]}
    write_yaml(tmp_path / "tiny.yaml", recipe)
    command = [sys.executable, str(REPOSITORY / "benchmarks/throughput.py"), "--recipe", "tiny.yaml", *TINY]
    done = subprocess.run([*command, "--out", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").iterdir())
    results = record["results"]
    assert {"device", "date", "command", "versions"} <= record.keys()
    arms = [results["convolutions"], results["model alone"]["images/s"], results["prediction by five models, images/s"]]
    arms += [results["preparation, images/s on all cores"]]
    arms += [each for part in results if part.endswith("a core") for each in results[part].values()]
    assert all(min(blocks) > 0 and len(blocks) == 2 for each in arms for blocks in each.values())
    assert min(map(len, arms)) >= 2
    for part in results:
        assert f"### {part}" in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_honest_scores_compares_them_with_the_truth():
    command = [sys.executable, str(REPOSITORY / "benchmarks/honest_score.py"), "digits"]
    done = subprocess.run([*command, "--per-class", "10", "--epochs", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for name in ("as chosen", "cross-fitted", "truth"):
        value, low, high = found[name]
        assert low < value < high
    assert found["images"] == 100
    assert found["bytes"] > 2 * 2 * 100 * 10
