from types import SimpleNamespace

import pytest

from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.cuda import edits, prepare, trial


@pytest.fixture
def jittor(tmp_path):
    """What is used of a Jittor with CUDA; its compiler prints its source and its flags into the result."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text('#!/bin/sh\nsource="$1"\nfor last in "$@"; do :; done\n{ echo "$@"; cat "$source"; } > "$last"\n')
    nvcc.chmod(0o755)
    (tmp_path / "jit").mkdir()
    flags = SimpleNamespace(
        jittor_path=jt.flags.jittor_path,
        cache_path=str(tmp_path),
        nvcc_path=str(nvcc),
        nvcc_flags=' -arch=compute_90 -code=sm_90 -L"/lib/cuda" -lcudart ',
    )
    return SimpleNamespace(flags=flags, core=jt.core, compiler=jt.compiler)


@pytest.mark.parametrize("source", trial.KERNELS)
def test_a_kernel_is_written_out_as_jittor_does(jittor, source):
    compiled = trial.compile_kernel(jittor, source, trial.KERNELS[source]).read_text()
    assert "-code=sm_90" in compiled
    assert "-Wl," not in compiled
    assert "#define JIT_cuda 1" in compiled
    assert "::jit_run() {" in compiled.replace("(){", "() {")
    assert "@" not in compiled  # all that Jittor replaces was replaced


def test_a_kernel_that_does_not_compile_ends_the_trial(jittor, tmp_path, capsys):
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho 'error: no' >&2\nexit 2\n")
    source = next(iter(trial.KERNELS))
    with pytest.raises(SystemExit, match="nvcc failed with exit code 2"):
        trial.compile_kernel(jittor, source, trial.KERNELS[source])
    assert "error: no" in capsys.readouterr().err


def test_every_edited_operator_is_among_the_kernels():
    operators = {edit.file for edit in edits.EDITS if edit.file.endswith("_op.cc") and edit.file.startswith("extern")}
    assert operators <= {f"extern/cuda/{source}" for source in trial.KERNELS}
    assert all((prepare._installed() / "extern/cuda" / source).is_file() for source in trial.KERNELS)
