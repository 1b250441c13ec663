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


def test_a_version_is_compared_with_itself_in_pytorch():
    variants = [
        dataclasses.replace(variant, name=f"{variant.framework} {version}", version=version)
        for variant in VARIANTS[:2]
        for version in ("new", "v2")
    ]
    times = {"torch new": [1.0], "torch v2": [2.0], "medsegdiff new": [0.5], "medsegdiff v2": [0.5]}
    lines = table({"work": dataclasses.asdict(WORK), "seconds": times}, variants).splitlines()
    ratios = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in lines[4:] if line}
    assert ratios == {"torch new": "1.00", "torch v2": "1.00", "medsegdiff new": "0.50", "medsegdiff v2": "0.25"}
