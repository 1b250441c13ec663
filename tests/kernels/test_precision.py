import subprocess
import sys

import numpy as np
import pytest

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.config import choices
from medsegdiff.kernels import precision, reference
from medsegdiff.runtime.backend import jt, nn
from tests import numeric
from tests.kernels.compare import assert_close, run

OLD = machine.Cpu("Old CPU", frozenset({"avx2", "avx512f"}))
NEW = machine.Cpu("New CPU", frozenset({"avx2", "avx512f", "avx512_bf16"}))


@pytest.fixture
def any_precision(monkeypatch):
    """Lets plain Jittor compute in all of them, as it can, slowly, without a fitting device."""
    monkeypatch.setattr(precision, "unavailable", lambda name: "")


def test_float32_is_everywhere_and_the_default():
    assert precision.current() == choices.PRECISIONS[0] == "fp32"
    assert precision.missing_on_cpu("fp32", OLD) == precision.missing_on_gpu("fp32", 35) == ""
    assert precision.unavailable("fp32") == ""


def test_what_a_processor_offers(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert precision.missing_on_cpu("bf16", NEW) == ""
    assert precision.missing_on_cpu("bf16", OLD) == "the CPU (Old CPU) lacks AVX512-BF16; use fp32"
    for cpu in (OLD, NEW):
        assert "only a CPU; use fp32" in precision.missing_on_cpu("fp16", cpu)


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("held", "forbidden"), [("AVX2", True), ("avx512_core", True), ("AVX512_CORE_BF16", False), ("ALL", False)]
)
def test_the_environment_may_forbid_bfloat16(name, held, forbidden, monkeypatch):
    for other in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, held)
    said = f"the CPU has bfloat16, but {name}={held} in the environment forbids it; unset it, or use fp32"
    assert precision.missing_on_cpu("bf16", NEW) == (said if forbidden else "")
    assert precision.missing_on_cpu("fp32", NEW) == ""


@pytest.mark.parametrize(("capability", "lacking"), [(61, {"bf16", "fp16"}), (75, {"bf16"}), (80, set()), (120, set())])
def test_what_a_gpu_offers(capability, lacking):
    assert {name for name in choices.PRECISIONS if precision.missing_on_gpu(name, capability)} == lacking


def test_the_complaint_tells_both_capabilities():
    said = precision.missing_on_gpu("bf16", 75)
    assert said == "the GPU has compute capability 7.5 and bf16 wants 8.0 or more; use fp32"


@pytest.mark.skipif(jt.flags.use_cuda, reason="is about the CPU")
@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_what_is_missing_is_refused_and_changes_nothing(name, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: OLD)
    with pytest.raises(InputError, match=f"precision {name}: .*use fp32"), precision.using(name):
        raise AssertionError
    assert precision.current() == "fp32"


def test_blocks_nest_and_end_with_an_error(any_precision):
    with precision.using("bf16"):
        with pytest.raises(ZeroDivisionError), precision.using("fp16"):
            assert precision.current() == "fp16"
            _ = 1 / 0
        assert precision.current() == "bf16"
    assert precision.current() == "fp32"


def test_asking_for_float32_does_not_start_jittor():
    code = "import sys, medsegdiff.kernels.precision as p; p.check('fp32'); sys.exit('jittor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def convolution(x, weight):
    return precision.narrowed(lambda x, weight: nn.conv2d(x, weight, padding=1), x, weight)


def product(a, b):
    return precision.narrowed(jt.matmul, a, b)


# On the CPU plain Jittor cuts off digits and adds up in the short format too, so sums are kept short here.
OPERATIONS = {
    "convolution": (convolution, [(2, 2, 5, 4), (3, 2, 3, 3)]),
    "product": (product, [(5, 6), (6, 4)]),
    "attention": (reference.attention, [(2, 4, 6)] * 3),
}


@pytest.mark.parametrize(("name", "tolerance"), [("fp16", 5e-3), ("bf16", 8e-2)])
@pytest.mark.parametrize("kind", OPERATIONS)
def test_values_and_gradients_are_rounded_and_no_worse(kind, name, tolerance, any_precision):
    operation, shapes = OPERATIONS[kind]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    wanted = run(operation, arrays, 1)
    dy = rng.standard_normal(wanted[0].shape)
    wanted = run(operation, arrays, dy)
    with precision.using(name):
        y, grads = run(operation, arrays, dy)
    assert y.dtype == np.float32
    assert (y != wanted[0]).any()
    assert_close(y, wanted[0], tolerance)
    for grad, expected in zip(grads, wanted[1]):
        assert grad.dtype == np.float32
        assert_close(grad, expected, tolerance)


def test_attention_s_scores_do_not_overflow_in_float16(any_precision):
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, 64, 8)) for _ in range(3))
    q, k = np.full_like(q, 40), np.full_like(k, 30)  # their product is 76800, and float16 ends at 65504
    with precision.using("fp16"):
        y, grads = run(reference.attention, [q, k, v], np.ones_like(v))
    assert_close(y, numeric.attention(q, k, v), 5e-3)
    assert all(np.isfinite(grad).all() for grad in grads)


def test_large_maps_are_computed_in_bfloat16(monkeypatch):
    monkeypatch.delenv("MEDSEGDIFF_LARGE_MAPS", raising=False)
    assert precision.of_large_maps() == "bf16"


@pytest.mark.parametrize("chosen", ["bf16", "fp32"])
def test_the_environment_may_choose_otherwise(chosen, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", chosen)
    assert precision.of_large_maps() == chosen
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", "fast")
    with pytest.raises(InputError, match="MEDSEGDIFF_LARGE_MAPS=fast: is neither bf16 nor fp32"):
        precision.of_large_maps()
