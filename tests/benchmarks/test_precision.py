from benchmarks import precision
from medsegdiff.kernels.precision import unavailable


def test_every_precision_is_compared_with_float32_or_said_to_be_missing(given, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["precision", *given, "--images", "2"])
    precision.main()
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "| +0.000 | +0.000 to +0.000 | 1.0000, 1.0000 |" in lines["fp32"]
    for name in ("bf16", "fp16"):
        assert (f"not measured: {unavailable(name)}" in lines[name]) == bool(unavailable(name))
