import pytest

from medsegdiff.runtime import toolchain


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A monkeypatch under which `prepare` leaves no trace in this process."""
    import jittor_utils
    import jittor_utils.install_cuda

    monkeypatch.setenv("nvcc_path", "")
    monkeypatch.setenv("use_mpi", "0")
    monkeypatch.setenv("log_silent", "1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("FIX_TORCH_ERROR", "0")
    monkeypatch.delenv("cc_path", raising=False)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr(jittor_utils.install_cuda, "install_cuda", jittor_utils.install_cuda.install_cuda)
    for name in ("pool_initializer", "_py3_include_path", "_py3_extension_suffix"):
        monkeypatch.setattr(jittor_utils, name, getattr(jittor_utils, name, None), raising=False)
    monkeypatch.setattr(toolchain, "jittor_home", lambda: tmp_path / "home")
    return monkeypatch
