import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from medsegdiff.app.cli import main
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.weights import load_weights
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.parity.cases import parameter

NETWORK = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
CONFIG = RunConfig(network=NETWORK, diffusion=DiffusionConfig(diffusion_steps=30, predict_xstart=True))
ARRAYS = {name: parameter(name, shape) for name, shape in shapes(NETWORK).items()}
OPTIONS = "--image-size 32 --num-heads 1 --diffusion-steps 30 --predict-xstart".split()


@pytest.fixture
def run(tmp_path):
    """A run of ours, trained from a folder that is nobody else's business."""
    config = replace(CONFIG, data=replace(CONFIG.data, data_dir="/mine"))
    raw = {name: array + 1 for name, array in ARRAYS.items()}
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoints.save(folder, checkpoints.Checkpoint(5, config, {"model": raw, "ema-0.9999": ARRAYS}, {}))
    return folder


@pytest.fixture
def pickled(tmp_path):
    path = tmp_path / "jittor.pkl"
    path.write_bytes(pickle.dumps(ARRAYS, 4))
    return path


def convert(*words):
    return main(["convert", *map(str, words)])


def same(found, wanted=ARRAYS):
    assert found.keys() == wanted.keys()
    return all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())


def complaint(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_file_of_others_becomes_ours_with_its_card(pickled, tmp_path, capsys):
    out = tmp_path / "new" / "ours.safetensors"
    assert convert(pickled, out, *OPTIONS) == 0
    card = out.with_name("ours.safetensors.card.json")
    text = out.with_name("ours.safetensors.card.md")
    assert capsys.readouterr().out.split() == [str(out), str(card), str(text)]
    assert convert(pickled, out, *OPTIONS, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"files": [str(out), str(card), str(text)]}
    config, arrays, *_ = load_weights(out)
    assert same(arrays)
    assert (config.network.level_widths, config.diffusion) == ((32, 32), CONFIG.diffusion)
    told = json.loads(card.read_text())
    assert told["source"]["file"] == "jittor.pkl"
    assert told["parameters"] == sum(array.size for array in ARRAYS.values())
    assert RunConfig.from_flat(told["config"]) == config
    assert "| Image size, pixels | 32 |" in text.read_text()
    assert "research only" in text.read_text()
    assert out.stat().st_mode & 0o444 == 0o444 & ~_umask()


def test_names_of_files_do_not_break_the_card_and_tar_is_a_name_of_pytorch_s(tmp_path):
    (tmp_path / "a|b.pth.tar").write_bytes(pickle.dumps(ARRAYS, 4))
    assert convert(tmp_path / "a|b.pth.tar", tmp_path / "c.safetensors", *OPTIONS) == 0
    assert "| Made from | a\\|b.pth.tar |" in (tmp_path / "c.safetensors.card.md").read_text()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_our_weights_go_to_pytorch_and_back_bit_for_bit(run, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, which writes its own format, is not installed")
    assert convert(run, tmp_path / "a.pt") == 0
    assert same({name: value.numpy() for name, value in torch.load(tmp_path / "a.pt").items()})
    assert convert(tmp_path / "a.pt", tmp_path / "b.safetensors") == 0  # its options are in the card
    config, arrays, *_ = load_weights(tmp_path / "b.safetensors")
    assert config == CONFIG
    assert same(arrays)


def test_averaged_or_raw_weights(run, tmp_path):
    assert (
        convert(run, tmp_path / "a.safetensors") == convert(run, tmp_path / "b.safetensors", "--weights", "model") == 0
    )
    assert same(load_file(tmp_path / "a.safetensors"))
    assert same(load_file(tmp_path / "b.safetensors"), {name: array + 1 for name, array in ARRAYS.items()})


def test_half_precision_takes_half_the_room_and_names_no_path_of_the_machine(run, tmp_path):
    assert convert(run, tmp_path / "a.safetensors", "--precision", "fp16") == 0
    assert (tmp_path / "a.safetensors").stat().st_size < 0.6 * sum(array.nbytes for array in ARRAYS.values())
    found = load_weights(tmp_path / "a.safetensors")
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == np.float32
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-3, atol=1e-7)
    assert found.config == CONFIG  # without data_dir


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_files_stand_alone(run, tmp_path, precision):
    pytest.importorskip("onnx", reason="onnx, an extra, is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime, an extra, is not installed")
    out = tmp_path / "onnx"
    for _ in range(2):  # the second time over the first
        assert convert(run, out, "--to", "onnx", "--precision", precision) == 0
    names = {"encode.onnx", "denoise.onnx", "preprocessing.json", "card.json", "card.md"}
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == names
    told = json.loads((out / "preprocessing.json").read_text())
    assert told["image"]["size"] == [32, 32]
    assert told["diffusion"]["target"] == "clean mask"
    np.testing.assert_allclose(told["diffusion"]["alphas_cumprod"], CONFIG.diffusion.schedule.alphas_cumprod)
    assert RunConfig.from_flat(told["config"]) == CONFIG
    session = onnxruntime.InferenceSession(out / "encode.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        stem, cal = session.run(["stem", "cal"], {"image": np.ones((count, 3, 32, 32), np.float32)})
        assert (stem.shape, cal.shape) == ((count, 32, 32, 32), (count, 1, 32, 32))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "{out}"], "out: must end in .safetensors or .pt; for a folder of ONNX files give --to onnx"),
        (
            ["{run}", f"{{out}}{'n' * 250}.safetensors"],
            f"out{'n' * 250}.safetensors: cannot be written: the name is too",
        ),
        (["", "{out}.pt"], 'IN "": is empty'),
        (["{run}", ""], "must end in .safetensors or .pt"),
        (["{run}", "{out}.bin", "--to", "pt"], "out.bin: a file of --to pt must end in .pt"),
        (["{run}", "{out}.pt", "--precision", "fp16"], "--precision fp16: is for .safetensors and ONNX"),
        (["{run}", "{out}.safetensors", "--image-size", "64"], "--image-size: for .pt and .pkl files of others"),
        (["{pickled}", "{out}.safetensors"], "weights do not tell --image-size, --num-heads, --diffusion-steps"),
        (
            ["{pickled}", "{out}.safetensors", "--trained-as", "isic-published"],
            "does not fit the network of its options",
        ),
        (["{pickled}", "{out}.safetensors", "--trained-as", "none"], "none: no such file of options"),
        (["{run}.pt", "{out}.safetensors"], "run.pt: no such file"),
        (["{run}", "{out}.safetensors", "--to", "tf"], "--to tf: must be one of safetensors, pt, onnx"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(run, pickled, tmp_path, capsys, words, said):
    places = {"run": run, "pickled": pickled, "out": tmp_path / "out"}
    assert main(["convert", *(word.format(**places) for word in words)]) == 2
    assert said in complaint(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "jittor.pkl"}


def test_what_convert_did_not_write_stays(run, tmp_path, capsys):
    (tmp_path / "a.safetensors").write_text("mine")
    assert convert(run, tmp_path / "a.safetensors") == 2
    assert "a.safetensors: not written by convert" in complaint(capsys)
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_what_is_converted_is_not_written_over(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert convert(run, "ours.safetensors") == 0
    before = (tmp_path / "ours.safetensors").read_bytes()
    (tmp_path / "link.safetensors").symlink_to("ours.safetensors")
    for name in ("ours.safetensors", "link.safetensors"):
        capsys.readouterr()
        assert convert(name, tmp_path / "ours.safetensors", "--precision", "fp16") == 2
        assert "ours.safetensors: is what is to be converted, and would be lost" in complaint(capsys)
    assert (tmp_path / "ours.safetensors").read_bytes() == before


def test_without_pytorch_its_format_is_refused(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert convert(run, tmp_path / "a.pt") == 2
    assert "a.pt: PyTorch, which writes its own format, refuses (ImportError: none here)" in complaint(capsys)
    assert not (tmp_path / "a.pt").exists()


def test_converting_needs_neither_jittor_nor_pytorch(pickled, tmp_path):
    code = (
        "import sys\n"
        "sys.modules.update({name: None for name in ('jittor', 'jittor_utils', 'torch')})\n"
        "from medsegdiff.app.cli import main\n"
        f"sys.exit(main(['convert', {str(pickled)!r}, {str(tmp_path / 'a.safetensors')!r}, *{OPTIONS!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert same(load_file(tmp_path / "a.safetensors"))
