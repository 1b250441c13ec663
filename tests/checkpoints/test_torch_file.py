"""Files written by PyTorch 2.13 and Jittor 1.3.11 (see files/make.py), and files that are not what they seem."""

import io
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.checkpoints import pickled
from medsegdiff.checkpoints.torch_file import read_weights

FILES = Path(__file__).parent / "files"
VALUES = (np.arange(-6, 6).reshape(3, 4) / 8).astype(np.float32)
WRITTEN = {
    "float32": VALUES,
    "float64": VALUES.astype(np.float64),
    "float16": VALUES.astype(np.float16),
    "bfloat16": VALUES,  # all of which bfloat16 can hold
    "int64": VALUES.astype(np.int64),
    "turned": VALUES.T,
    "part": VALUES[1:, 2],
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": VALUES,
}


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert found[name].tobytes() == np.ascontiguousarray(value).tobytes(), name
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt"])
def test_both_formats_of_pytorch(name):
    assert_same(read_weights(FILES / name), WRITTEN)


@pytest.mark.parametrize("name", ["jittor.pkl", "jittor.pt"])
def test_both_formats_of_jittor(name):
    assert_same(read_weights(FILES / name), {name: WRITTEN[name] for name in ("float32", "float16")})


def test_of_a_file_with_more_the_weights_asked_for_are_taken_without_the_prefix():
    assert_same(read_weights(FILES / "everything.pt", "model"), WRITTEN)
    averaged = {name: (value + 1).astype(value.dtype) for name, value in WRITTEN.items()}
    assert_same(read_weights(FILES / "everything.pt", "ema"), averaged)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_what_the_installed_pytorch_writes_now(tmp_path, legacy, kind):
    torch = pytest.importorskip("torch", reason="PyTorch, which writes the files, is not installed")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).to(getattr(torch, kind))
    torch.save(layers.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = read_weights(tmp_path / "a.pt")
    for name, value in layers.state_dict().items():
        value = value.float() if kind == "bfloat16" and value.is_floating_point() else value
        assert found[name].tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda torch: torch.ones(2, dtype=torch.complex64), "numbers of the kind ComplexFloatStorage"),
        (
            lambda torch: torch.ones(2, dtype=torch.complex64).conj().imag,
            "a tensor whose signs are still to be changed",
        ),
        (lambda torch: torch.ones(2, dtype=torch.float8_e4m3fn), "torch._utils._rebuild_tensor_v3"),
        (lambda torch: torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (lambda torch: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_other_tensors_that_pytorch_writes_are_named(tmp_path, legacy, make, said):
    torch = pytest.importorskip("torch", reason="PyTorch, which writes the files, is not installed")
    torch.save({"a": make(torch)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert f"refused, it holds {said}" in refusal(tmp_path / "a.pt")


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def packed(content, **others):
    """A `.pt` file with this `data.pkl`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", content)
        for name, value in others.items():
            archive.writestr(name, value)
    return buffer.getvalue()


def in_legacy(content):
    state = {"little_endian": True}
    return b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, state)) + content


PLACES = {
    "zip": packed,
    "pickle": lambda content: content,
    "legacy": in_legacy,
    "legacy header": lambda content: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + content,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "code", "name"),
    [
        (os.system, "touch {}", f"{os.name}.system"),
        (eval, "open({!r}, 'w')", ".eval"),
        (exec, "open({!r}, 'w')", ".exec"),
        (open, "{}", "open"),
        (__import__, "os", ".__import__"),
        (getattr, "os", ".getattr"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_executed(tmp_path, place, protocol, function, code, name, nested):
    canary = tmp_path / "executed"
    arguments = (str(canary), "w") if function is open else (code.format(str(canary)),)
    bad = Calls(function, *arguments)
    tree = OrderedDict(a={"b": [(1, Calls(OrderedDict, [("x", bad)]))]}) if nested else bad
    path = tmp_path / "a.pt"
    path.write_bytes(PLACES[place](pickle.dumps(tree, protocol)))
    said = refusal(path)
    assert name in said
    assert "nothing of it was executed" in said
    assert not canary.exists()


def dumped(*parts):
    """A pickle of protocol 2 from its instructions."""
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(size, stride, offset=0, count=4, key="0", kind="FloatStorage"):
    """The instructions for a tensor of two axes."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    shape = b"".join(b"(" + b"".join(map(number, axes)) + b"t" for axes in (size, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + shape + b"\x89}tR"


def doubled(kind, depth=24):
    """Leaves in the memo's place 24 a value that holds another twice, which holds a third twice, and so on."""
    first, pair = (b"]q\x00", b"](h%ch%ceq%c") if kind == "list" else (b")q\x00", b"h%ch%c\x86q%c")
    return b"](" + first + b"".join(pair % (level, level, level + 1) for level in range(depth)) + b"e"


DEEPEST = b"h\x18"


def weights(*tensors):
    return dumped(b"}", *(text(f"w{index}") + value + b"s" for index, value in enumerate(tensors)))


def test_the_instructions_above_make_a_tensor(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(packed(weights(tensor((2, 2), (2, 1))), **{"a/data/0": np.arange(4, dtype="f4").tobytes()}))
    np.testing.assert_array_equal(read_weights(path)["w0"], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (weights(tensor((10**6, 10**6), (0, 0))), "more numbers than bytes"),
        (weights(tensor((2**40, 2**40), (0, 0))), "more numbers than bytes"),
        (weights(*[tensor((20, 20), (0, 0))] * 20), "more numbers than bytes"),
        (weights(tensor((2, 2), (2, 1), offset=1)), "damaged"),
        (weights(tensor((2, 2), (-2, 1), offset=2)), "damaged"),
        (weights(tensor((-2, 2), (2, 1))), "more numbers than bytes"),
        (weights(tensor((2, 2), (2, 1), offset=-1)), "damaged"),
        (weights(tensor((2, 2), (2,))), "damaged"),
        (weights(tensor((2, 2), (2, 1), key="../../../../etc/passwd")), "damaged"),
        (weights(tensor((2, 2), (2, 1), kind="QInt8Storage")), "numbers of the kind QInt8Storage"),
        (dumped(b"}", b"(" * 100000, b"t" * 100000, text("a"), b"s"), "a tuple for a key"),
        (dumped(b"}r\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f"), "damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "damaged"),
        (dumped(b"]q\x00h\x00a"), "a list, not weights by name"),
        (dumped(b"cos\nsystem\n)R"), "os.system"),
        (dumped(b"ctorch\nFloatStorage\n)R"), "a call of torch.FloatStorage"),
        (dumped(b"(icollections\nOrderedDict\n"), "instruction INST"),
        (dumped(b"\x82\x01"), "instruction EXT1"),
        (dumped(b"I1" + b"0" * 100000 + b"\n"), "instruction INT"),
        (dumped(b"}", text("a"), number(1), b"s"), "no weights by name"),
        (dumped(doubled("list"), b"c_codecs\nencode\n(", text("a"), DEEPEST, b"tR"), "a list where a str belongs"),
        (
            dumped(
                *(doubled("list"), b"(", text("storage"), b"ctorch\nFloatStorage\n", DEEPEST, text("cpu")),
                *(number(4), b"tQ"),
            ),
            "a list where a str belongs",
        ),
        (weights(tensor([2] * 33, [0] * 33)), "a tensor of more axes or longer ones than there are"),
        (weights(tensor((2**62, 0), (0, 0))), "a tensor of more axes or longer ones than there are"),
    ],
)
def test_odd_instructions_are_refused_in_one_line_at_no_cost(tmp_path, content, said):
    path = tmp_path / "a.pt"
    path.write_bytes(packed(content, **{"a/data/0": bytes(16)}))
    assert said in refusal(path)


def test_in_a_legacy_file_nothing_but_text_names_numbers(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(in_legacy(dumped(b"}")) + dumped(doubled("tuple"), b"]", DEEPEST, b"a"))
    assert "a tuple where a str belongs" in refusal(path)


def test_a_pickle_of_endless_instructions_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "_MOST_STEPS", 1000)
    path = tmp_path / "a.pt"
    path.write_bytes(packed(dumped(b"}" * 1000)))
    assert "a pickle of more than 1000 instructions" in refusal(path)


def test_a_zip_bomb_stays_folded(tmp_path):
    for bomb in ("a/data.pkl", "a/data/0", "a/byteorder"):
        path = tmp_path / "a.pt"
        parts = {"a/data.pkl": weights(tensor((2, 2), (2, 1))), "a/data/0": bytes(16)}
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in {**parts, bomb: bytes(1 << 24)}.items():
                archive.writestr(name, value, zipfile.ZIP_DEFLATED if name == bomb else zipfile.ZIP_STORED)
        assert "a compressed part" in refusal(path)


def test_parts_of_an_archive_never_reach_the_disk(tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = folder / "a.pt"
    others = {"../../evil": b"x", "/tmp/evil-of-a-test": b"x", "a/data/../../../evil": bytes(16)}
    path.write_bytes(packed(weights(tensor((2, 2), (2, 1), key="../../../evil")), **others))
    assert (read_weights(path)["w0"] == 0).all()  # it is a name in the archive, and nothing else
    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] == ["a.pt"]
    assert not Path("/tmp/evil-of-a-test").exists()


@pytest.mark.parametrize("seed", range(200 * int(os.environ.get("MEDSEGDIFF_FUZZ", "1"))))
def test_damage_is_one_line_or_does_not_matter(tmp_path, seed):
    rng = random.Random(seed)
    source = FILES / rng.choice(("zip.pt", "legacy.pt", "everything.pt", "jittor.pkl", "jittor.pt"))
    content = bytearray(source.read_bytes())
    for _ in range(rng.choice((1, 1, 5, 50))):
        kind, at = rng.randrange(4), rng.randrange(len(content))
        if kind == 0:
            content[at] = rng.randrange(256)
        elif kind == 1:
            content[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        elif kind == 2:
            content[at:at] = content[rng.randrange(len(content)) :][: rng.randrange(40)]
        else:
            del content[at : at + rng.randrange(1, 40)]
    path = tmp_path / source.name
    path.write_bytes(content)
    try:
        found = read_weights(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, np.ndarray) for value in found.values())


def test_what_is_no_such_file_is_named(tmp_path):
    path = tmp_path / "a.pt"
    for content in (b"hello", b"PK\x03\x04", pickle.dumps([1]), packed(pickle.dumps({"lr": 1})), b"\x80"):
        path.write_bytes(content)
        refusal(path)
    path.write_bytes(packed(pickle.dumps({"state": {}, "param_groups": []}, 2)))
    assert "it holds the state of an optimiser, not weights" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    assert "no such file" in refusal(tmp_path / "b.pt")
