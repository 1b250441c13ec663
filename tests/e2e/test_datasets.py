"""Every layout from its folder to scores: train 10 steps, sample a test case, evaluate."""

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.io.dicom.segmentation import read_segmentation, write_segmentation
from medsegdiff.io.volumes import read_volume
from tests.dicom_series import SHAPE, maker

DATA = Path(__file__).parents[3] / "shared/data"
NETWORK = "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30".split()
TRAINING = "--steps 10 --batch-size 2 --lr 1e-3 --ema-rate 0.9 --predict-xstart --tensorboard False".split()

pytestmark = pytest.mark.e2e


def decathlon(out):
    """Twelve cases of hippocampus as the Decathlon has them."""
    _copy(out, lambda name: f"{name}.nii.gz")
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    (out / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": labels}))


def nnunet(out):
    """The same as nnU-Net has them, and a test split."""
    _copy(out, lambda name: f"{name}_0000.nii.gz")
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    (out / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "labels": labels}))
    for kind in ("images", "labels"):
        (out / f"{kind}Ts").mkdir()
        for path in sorted((out / f"{kind}Tr").iterdir())[:2]:
            path.rename(out / f"{kind}Ts" / path.name)


def _copy(out, name):
    for kind in ("images", "labels"):
        (out / f"{kind}Tr").mkdir(parents=True)
    for path in sorted((DATA / "hippocampus/images").iterdir())[:12]:
        case = path.name[: -len(".nii.gz")]
        shutil.copy(path, out / "imagesTr" / name(case))
        shutil.copy(DATA / "hippocampus/labels" / path.name, out / "labelsTr" / f"{case}.nii.gz")


def renamed(out):
    """Thirty pairs of ISIC 2016 with masks named otherwise, in another format."""
    for name in ("images", "Masks"):
        (out / name).mkdir(parents=True)
    source = DATA / "isic2016/Train"
    for path in sorted((source / "ISBI2016_ISIC_Part1_Training_Data").iterdir())[:30]:
        shutil.copy(path, out / "images")
        mask = source / "ISBI2016_ISIC_Part1_Training_GroundTruth" / f"{path.stem}_Segmentation.png"
        Image.open(mask).save(out / "Masks" / f"{path.stem}-label.tif")


def dicom(out):
    """Five oblique series, of uneven sides and slices in no order, with a DICOM SEG each."""
    out.mkdir()
    make, labels = maker(out), np.zeros(SHAPE, np.uint8)
    labels[3:12, 2:9, 1:8], labels[6:10, 4:7, 3:6] = 1, 2
    for number in range(5):

        def change(_, slice_, number=number):
            slice_.PatientID = f"P{number}"

        folder, _, _ = make(f"series{number}", change=change, seed=number, shear=(0.2, 0.1))
        write_segmentation(out / f"mask{number}.dcm", labels, read_volume(folder).geometry)


MADE = {"decathlon": decathlon, "nnunet": nnunet, "renamed": renamed, "dicom": dicom}
EXPECTED = {  # layout, channels, classes, whether predictions are volumes
    "isic2016": ("isic", 3, 2, False),
    "isic2017-extra": ("isic", 3, 2, False),
    "isic-original": ("folder", 3, 2, False),
    "brats2021": ("brats", 4, 4, True),
    "hippocampus": ("volume", 1, 3, True),
    "decathlon": ("volume", 1, 3, True),
    "nnunet": ("nnunet", 1, 3, True),
    "renamed": ("folder", 3, 2, False),
    "dicom": ("dicom", 1, 3, True),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dataset_is_trained_on_sampled_and_scored(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))
    layout, channels, classes, volumes = EXPECTED[name]
    data = DATA / name
    if name != "dicom" and not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    if name in MADE:
        data = tmp_path / name
        MADE[name](data)
    run, out = tmp_path / "run", tmp_path / "predictions"
    axis = ["--axis", "coronal", "--skip-blank"] if volumes else []
    assert main(["train", "--data-dir", str(data), "--out-dir", str(run), *NETWORK, *TRAINING, *axis]) == 0
    state = json.loads((run / "step-000010/state.json").read_text())
    config, kept = state["config"], state["training"]["data"]["split"]["test"]
    assert [config[key] for key in ("data_name", "image_channels", "num_classes")] == [layout, channels, classes]
    words = ["--model-path", str(run), "--data-dir", str(data), "--out-dir", str(out), "--limit", "1"]
    assert main(["sample", *words, "--members", "1", "--steps", "2", "--maps"]) == 0
    assert main(["evaluate", "--pred-path", str(out), "--data-dir", str(data)]) == 0
    report = json.loads((out / "metrics.json").read_text())
    assert 0 <= report["metrics"]["dice"]["mean"] <= 1
    assert report["images"]["with ground truth"] == (len(kept) or report["images"]["with ground truth"])
    if not volumes:
        return
    (prediction,) = (path for path in out.glob("*.nii.gz") if not re.search(r"_(prob|std|entropy)", path.name))
    found = nibabel.load(prediction)
    assert set(np.unique(np.asanyarray(found.dataobj))) <= {0, 1, 2, 4}
    if name == "dicom":
        geometry = read_volume(data / prediction.name[:-7]).geometry
        assert found.shape == geometry.shape
        np.testing.assert_allclose(found.affine, geometry.affine, atol=1e-4)  # NIfTI has float32
        again = read_segmentation(out / f"{prediction.name[:-7]}.dcm", geometry)
        np.testing.assert_array_equal(again, np.asanyarray(found.dataobj))
        return
    images = [path for path in data.rglob("*.nii.gz") if path.name.startswith(prediction.name[:-7])]
    image = nibabel.load(images[0])
    assert found.shape == image.shape
    np.testing.assert_array_equal(found.affine, image.affine)
