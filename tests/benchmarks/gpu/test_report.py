import json

from benchmarks.gpu.report import report


def row(name, ms):
    return {"name": name, "ms": ms, "from": ms - 1, "to": ms + 1, "first_s": 1.0, "peak_MiB": 10}


def test_ratios_are_to_pytorch_of_the_same_precision(tmp_path):
    work = "64 px, batch 16, width 128"
    rows = [row(f"{work}: ours bf16", 30.0), row(f"{work}: PyTorch bf16", 40.0), row(f"{work}: PyTorch fp32", 90.0)]
    rows += [row(f"{work}: PyTorch bf16, compiled", 20.0), {"name": f"{work}: ours fp32", "error": "out of memory"}]
    (tmp_path / "results.json").write_text(json.dumps({"speed": rows}))
    lines = report(tmp_path).splitlines()
    assert f"| {work} | ours bf16 | 30.0 | 29.0 to 31.0 | 10 | 0.75 | 1.50 |" in lines
    assert f"| {work} | PyTorch fp32 | 90.0 | 89.0 to 91.0 | 10 | 1.00 |  |" in lines
    assert f"| {work} | ours fp32 | out of memory | | | | |" in lines


def test_losses_stand_beside_the_published_ones_of_the_same_steps(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"check": [{"name": "sine", "value": "1e-6"}]}))
    head = "step,loss_diff,loss_cal\n"
    (tmp_path / "isic-log.csv").write_text(f"{head}100,0.5,0.25\n150,0.4,0.2\n")
    (tmp_path / "Pytorch.csv").write_text(f"{head}0,1,1\n100,0.125,0.0625\n")
    (tmp_path / "Jittor.csv").write_text(f"{head}0,1,1\n100,0.25,0.5\n")
    text = report(tmp_path, tmp_path)
    assert "* sine: value 1e-6" in text
    assert text.splitlines()[-1] == "| 100 | 0.5000 | 0.1250 | 0.2500 | 0.2500 | 0.0625 | 0.5000 |"
