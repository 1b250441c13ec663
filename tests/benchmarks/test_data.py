from benchmarks.data import measure
from medsegdiff.config.run import RunConfig
from tests.data.volumes import ball, write


def test_an_epoch_from_the_cache_reads_far_less_than_one_from_files(tmp_path):
    for number in range(3):
        image, labels = ball((40, 40, 12), seed=number)
        write(tmp_path / f"data/images/{number}.nii.gz", image)
        write(tmp_path / f"data/labels/{number}.nii.gz", labels)
    flat = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), "image_size": 32, "batch_size": 2}
    found = measure(RunConfig.from_flat({**flat, "out_dir": str(tmp_path / "run")}), 2, 2, [])
    assert (found["cases"], found["slices"]) == (2, 24)
    assert found["bytes an epoch, reading files"] > 5 * found["bytes an epoch, cached"]
    assert all(value > 0 for name, value in found.items() if name != "processor")
    assert found["a batch"] < found["a batch, strongly augmented"]
