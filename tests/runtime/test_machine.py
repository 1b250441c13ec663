import pytest

from medsegdiff.runtime import machine


def test_a_processor_is_described():
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_bf16\n\nmodel name\t: Other\n"
    assert machine.describe(text) == ("Some CPU @ 2 GHz", {"fpu", "avx2", "avx512_bf16"})


def test_an_arm_processor_has_features_and_no_name():
    found = machine.describe("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert found.model
    assert found.flags == {"fp", "asimd", "bf16"}


@pytest.mark.parametrize("there", [True, False])
def test_it_is_read_where_the_system_tells(tmp_path, monkeypatch, there):
    file = tmp_path / "cpuinfo"
    if there:
        file.write_text("model name\t: X\nflags\t\t: fpu\n")
    monkeypatch.setattr(machine, "_CPUINFO", file)
    machine.cpu.cache_clear()
    found = machine.cpu()
    machine.cpu.cache_clear()
    assert found.flags == ({"fpu"} if there else set())
    assert found.model == "X" if there else found.model
