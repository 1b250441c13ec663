import dataclasses

from benchmarks.sides import Work
from benchmarks.step import VARIANTS, table

WORK = Work("forward", 64, 2, 32)


def test_ratios_are_of_medians_and_to_the_faster_layout_of_the_same_precision():
    times = {
        "PyTorch fp32": [0.4, 9.0, 0.3],
        "ours fp32": [0.1, 0.1, 5.0],
        "PyTorch bf16": [0.2, 0.2, 0.2],
        "ours bf16": [0.3, 0.3, 0.3],
        "PyTorch fp32, channels last": [0.2, 0.2, 0.2],
        "PyTorch bf16, channels last": [0.4, 0.4, 0.4],
    }
    peaks = {name: 2**20 * (index + 1) for index, name in enumerate(times)}
    result = {"work": dataclasses.asdict(WORK), "seconds": times, "peak": peaks}
    rows = {line.split("|")[1].strip(): line for line in table(result, list(VARIANTS)).splitlines()[4:] if line}
    assert rows["ours fp32"] == "| ours fp32 | 100 | 100 to 5000 | 0.50 | 2 | 2.00 |"
    assert rows["ours bf16"] == "| ours bf16 | 300 | 300 to 300 | 1.50 | 4 | 1.33 |"
    assert rows["PyTorch fp32"] == "| PyTorch fp32 | 400 | 300 to 9000 | 2.00 | 1 | 1.00 |"


def test_the_work_is_the_same_for_everyone():
    for one, other in zip(WORK.arrays(), WORK.arrays()):
        assert (one == other).all()
    images, masks, noise, t = WORK.arrays()
    assert images.shape == (2, 3, 64, 64)
    assert masks.shape == noise.shape == (2, 1, 64, 64)
    assert t.shape == (2,)
