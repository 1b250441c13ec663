import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import baseline


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What is run: nothing is computed, the files of each command appear, and training takes 120 seconds."""
    asked, spent = [], {"seconds": 0.0}

    def value(words, name):
        return Path(words[words.index(name) + 1])

    def run(words, check):
        words = words[2:] if words[2] == "benchmarks.plain_unet" else words[3:]
        asked.append(words)
        if words[0] == "train":
            out = value(words, "--out-dir")
            (out / "step-000008").mkdir(parents=True)
            (out / "log.csv").write_text("step\n")
            (out / "config.yaml").write_text("steps: 8\n")
            spent["seconds"] += 120
        elif words[0] == "evaluate":
            out = value(words, "--pred-path")
            found = {f"dice_class{c}": {"mean": 0.8 + c / 100, "low": 0.7, "high": 0.9} for c in (1, 2)}
            (out / "metrics.json").write_text(json.dumps({"metrics": {"dice": {"mean": 0.8}, **found}}))
            (out / "metrics.csv").write_text("id,dice\na,0.9\nb,0.8\n")
        else:
            out = value(words, "--out-dir")
            out = out if words[0] == "sample" else out / "predictions"
            out.mkdir(parents=True)
            (out.parent / "log.csv").write_text("step\n")
            for name in "ab":
                Image.new("RGB", (40, 30)).save(out / f"{name}_overlay.png")

    def usage(who):
        return SimpleNamespace(ru_utime=spent["seconds"], ru_stime=0.0)

    monkeypatch.setattr(baseline.subprocess, "run", run)
    monkeypatch.setattr(baseline.resource, "getrusage", usage)
    return asked


def test_both_have_the_same_processor_time_and_what_is_done_is_not_done_again(commands, tmp_path):
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({"steps": 8}))
    where = ["--data-dir", str(tmp_path), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    baseline.main(["--config", str(tmp_path / "options.yaml"), *where])
    assert [words[0] for words in commands] == ["train", "sample", "evaluate", "benchmarks.plain_unet", "evaluate"]
    unet = commands[3]
    assert float(unet[unet.index("--minutes") + 1]) == 2
    lines = (tmp_path / "out/table.md").read_text().splitlines()
    assert lines[0] == "| network | Dice, class 1 | Dice, class 2 | trained for |"
    assert lines[2].split(" | ")[1:3] == ["0.810 (0.700 to 0.900)", "0.820 (0.700 to 0.900)"]
    assert "2 minutes" in lines[2]
    assert np.asarray(Image.open(tmp_path / "out/cases.png")).shape == (480, 640, 3)
    baseline.main(["--config", str(tmp_path / "options.yaml"), *where])
    assert len(commands) == 5
