import os
import platform
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.runtime import compilation, toolchain
from medsegdiff.runtime.backend import jt

LAUNCHER = Path(compilation.__file__).with_name("compile_kernel.sh")
KERNEL = """
#include "var.h"
extern "C" void run(float* x, const float* y, long n) {
    #pragma omp parallel for
    for (long i = 0; i < n; i++) x[i] += std::exp(y[i]) / (1 + x[i] * y[i]);
}
"""


@pytest.fixture
def utils():
    return toolchain.utilities()


def kernel_flags(linking=False):
    """The flags of a kernel, as Jittor writes them before it turns -l"NAME" into a file's name."""
    return [flag for flag in shlex.split(jt.flags.cc_flags) if linking or not flag.startswith(("-l", "-L", "-shared"))]


@pytest.mark.skipif("-include" not in jt.flags.cc_flags, reason="the environment's own cc_flags are in use")
@pytest.mark.parametrize("name", [compilation.CORE_HEADER, compilation.KERNEL_HEADER])
def test_the_precompiled_header_serves(name, tmp_path):
    source = tmp_path / "source.cc"
    source.write_text('#include "ops/array_op.h"\n')
    flags = [f.replace(f"/{compilation.KERNEL_HEADER}", f"/{name}") for f in kernel_flags()]
    if name == compilation.CORE_HEADER:
        flags = [flag for flag in flags if flag not in ("-Ofast", "-fopenmp")]
    command = [jt.flags.cc_path, *flags, "-H", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (used,) = [line for line in done.stderr.splitlines() if line.startswith("! ")]  # x: does not fit
    assert used.endswith(f"/medsegdiff/{name}.gch")
    read = [line for line in done.stderr.splitlines() if line.endswith("/src/op.h")]
    assert (read == []) == (name == compilation.KERNEL_HEADER)  # which is in it


def test_kernels_are_compiled_with_jittors_own_flags_after_ours():
    optimised = [flag for flag in kernel_flags() if flag.startswith("-O")]
    assert optimised[-1] == "-Ofast"  # the last one counts
    assert "-fopenmp" in kernel_flags()
    assert "-Wno-template-body" in kernel_flags()  # else g++ 15 refuses a header of Jittor's


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no approximate reciprocal")
def test_every_kernel_divides_exactly_whoever_chose_the_flags():
    for exact in ("-mno-recip", "-fno-reciprocal-math"):
        assert kernel_flags().index(exact) > kernel_flags().index("-Ofast")
    theirs = " -O3 -Ofast -mrecip "
    assert compilation.exact(theirs, "/usr/bin/g++-12").split() == [
        *theirs.split(),
        "-fno-reciprocal-math",
        "-mno-recip",
    ]
    assert compilation.exact(theirs, "/usr/bin/clang++").split() == [
        *theirs.split(),
        "-fno-reciprocal-math",
        "-mrecip=none",
    ]
    assert compilation.exact(jt.flags.cc_flags, jt.flags.cc_path) == jt.flags.cc_flags


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no approximate reciprocal")
@pytest.mark.parametrize("tuning", ["native", "haswell", "x86-64-v3", "skylake-avx512", "znver3"])
@pytest.mark.parametrize("divisor", ["(std::sqrt(x[i]) + 1e-8f)", "std::sqrt(x[i])", "x[i]"])
@pytest.mark.parametrize("dividend", ["1", "y[i]"])
def test_no_reciprocal_is_approximated_for_any_processor(tuning, dividend, divisor, tmp_path):
    source = tmp_path / "root.cc"
    source.write_text(
        "#include <cmath>\n"
        "void f(float* x, const float* y, long n) {\n"
        f"    for (long i = 0; i < n; i++) x[i] = {dividend} / {divisor};\n}}\n"
    )
    flags = [flag for flag in kernel_flags() if flag != "-include" and not flag.endswith(compilation.KERNEL_HEADER)]
    command = [jt.flags.cc_path, *flags, f"-march={tuning}", "-S", "-o", "-", str(source)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "divps" in code
    assert not re.search(r"rsqrt|rcp[ps0-9]", code)


def machine_code(library):
    """The instructions, without the file's name above them."""
    done = subprocess.run(["objdump", "-d", str(library)], capture_output=True, text=True, check=True)
    return done.stdout.split("\n", 3)[3]


def test_the_launcher_compiles_the_same_machine_code_as_jittors_own_way(tmp_path):
    tuner = Path(jt.flags.jittor_path) / "utils" / "asm_tuner.py"
    codes = []
    for start in ([sys.executable], ["/bin/sh", str(LAUNCHER), f"--python={sys.executable}"]):
        folder = tmp_path / str(len(codes))
        folder.mkdir()
        source, library = folder / "some_op.cc", folder / "some_op.so"
        source.write_text(KERNEL)
        flags = [flag for flag in kernel_flags(linking=True) if not flag.startswith("-l") or flag == "-lstdc++"]
        call = [*start, str(tuner), f"--cc_path={jt.flags.cc_path}", str(source), *flags, "-o", str(library)]
        subprocess.run(call, check=True, timeout=120)
        codes.append(machine_code(library))
        assert (folder / "some_op.post.s").exists() == (len(codes) == 1)
    assert codes[0] == codes[1]
    assert "<run>:" in codes[0]


@pytest.fixture
def call(tmp_path):
    """Call the launcher with programs that write down their arguments; returns who was called with what."""
    log = tmp_path / "log"
    for name in ("python", "compiler"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" > "{log}"\n')
        program.chmod(0o755)

    def run(script, source):
        path = tmp_path / "a kernel_op.cc"
        path.write_text(source)
        words = [script, f"--cc_path={tmp_path}/compiler", str(path), "-I/a b", "-o", "x.so"]
        subprocess.run(["/bin/sh", str(LAUNCHER), f"--python={tmp_path}/python", *words], check=True)
        return log.read_text().splitlines(), words

    return run


def test_a_kernel_goes_to_the_compiler_at_once(call):
    called, words = call("/jittor/utils/asm_tuner.py", "int x;\n")
    assert called == ["compiler", *words[2:]]


@pytest.mark.parametrize(
    ("script", "source"),
    [
        ("/jittor/utils/asm_tuner.py", '//@begin replace "vmova" "vmovnt"\nint x;\n//@end\n'),
        ("/jittor/utils/dlink_compiler.py", "int x;\n"),
    ],
)
def test_what_needs_jittors_script_gets_it(call, script, source):
    called, words = call(script, source)
    assert called == ["python", *words]


def test_jittors_script_notes_nothing_in_the_users_home(call, tmp_path, monkeypatch):
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path / "jittor"))
    (tmp_path / "python").write_text(f'#!/bin/sh\necho "${{HOME-none}}" > "{tmp_path}/log"\n')
    assert call("/jittor/utils/asm_tuner.py", "//@begin\n")[0] == [str(tmp_path / "jittor")]
    monkeypatch.delenv("JITTOR_HOME")
    assert call("/jittor/utils/asm_tuner.py", "//@begin\n")[0] == [os.environ["HOME"]]
    monkeypatch.delenv("HOME")  # an empty one would be the working directory
    assert call("/jittor/utils/asm_tuner.py", "//@begin\n")[0] == ["none"]


def test_commands_of_jittor_are_out_of_reach_of_ctrl_c(utils, monkeypatch):
    """Which a terminal sends to its session; Jittor ends the process where a command of its import is killed."""
    session = f"{sys.executable} -c 'import os; print(os.getsid(0))'"
    monkeypatch.setattr(utils, "sp", subprocess)
    monkeypatch.setattr(utils, "run_cmds", utils.run_cmds)
    assert utils.run_cmd(session) == str(os.getsid(0))
    before = signal.signal(signal.SIGCHLD, lambda *_: None)  # as Jittor has one that ends the process
    try:
        with compilation.arranged():
            assert utils.run_cmd(session) != str(os.getsid(0))
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("error", [AssertionError(), ImportError("libx.so: version `GLIBCXX_3.4.30' not found")])
def test_what_cannot_be_loaded_is_told(error):
    expected = pytest.raises(InputError, match=rf"cannot be loaded \({type(error).__name__}.*conda install")
    with expected, compilation.arranged():
        raise error


@pytest.mark.parametrize(
    "own",
    [
        {"cc_flags": "-g"},
        {"kernel_flags": "-O3"},
        {"debug": "1"},
        {"nvcc_path": "/cuda/bin/nvcc"},
        {"cc_path": "/usr/bin/clang++-19"},
    ],
)
def test_settings_of_the_user_and_of_cuda_are_left_alone(own, monkeypatch):
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with compilation.arranged():
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_child_processes_do_not_inherit_the_settings(monkeypatch):
    for name in ("cc_flags", "kernel_flags", "debug", "nvcc_path"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ZeroDivisionError), compilation.arranged():
        assert "-O1" in os.environ["cc_flags"]
        assert "-Ofast" in os.environ["kernel_flags"]
        raise ZeroDivisionError
    assert not {"cc_flags", "kernel_flags"} & os.environ.keys()


def cache_path(tmp_path, **environment):
    """The cache's folder in a process of its own, below a home of its own."""
    code = "from medsegdiff.runtime.toolchain import utilities; print(utilities().cache_path)"
    kept = {name: value for name, value in os.environ.items() if name not in ("cache_name", compilation.CACHE_KEY)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(tmp_path), "JITTOR_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return Path(done.stdout.strip())


def test_the_home_of_another_cache_is_left_alone(tmp_path):
    """It may be read-only, and what Jittor would note there would hold for ever."""
    home = tmp_path / "home"
    home.mkdir()
    assert cache_path(tmp_path, HOME=str(home)).is_relative_to(tmp_path / ".cache")
    assert list(home.iterdir()) == []


def test_the_process_stays_as_it_was(tmp_path):
    code = "import os, ssl, sys; print(sys.getrecursionlimit(), ssl._create_default_https_context, os.environ['HOME'])"
    both = f"{code}; from medsegdiff.runtime.toolchain import utilities; utilities(); {code}"
    environment = {**os.environ, "HOME": str(tmp_path), "JITTOR_HOME": str(tmp_path / "a")}
    done = subprocess.run([sys.executable, "-c", both], env=environment, capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert before.split(" at ")[0] == after.split(" at ")[0]
    assert after.endswith(f" {tmp_path}")


def test_the_cache_is_ours(tmp_path):
    assert cache_path(tmp_path).name.startswith("medsegdiff-")
    assert cache_path(tmp_path, cache_name="mine").name == "mine"


def test_the_cache_bears_what_its_code_depends_on(monkeypatch):
    for name in ("cc_flags", "kernel_flags", "debug", "nvcc_path"):
        monkeypatch.delenv(name, raising=False)
    names = [compilation.cache_name()]
    assert names == [compilation.cache_name()]
    for name, value in (("nvcc_path", "/cuda/bin/nvcc"), ("cc_flags", "-g"), ("cc_path", "/opt/g++")):
        monkeypatch.setenv(name, value)
        names.append(compilation.cache_name())
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("CPU", frozenset({"avx2"})))
    names.append(compilation.cache_name())
    monkeypatch.undo()
    monkeypatch.setattr(compilation, "_PRECOMPILED", {compilation.CORE_HEADER: "-O3"})
    names.append(compilation.cache_name())
    assert len(set(names)) == len(names)


def test_jittors_wish_to_be_started_again_is_told():
    with pytest.raises(InputError, match="run this again"), compilation.arranged():
        raise SystemExit(0)


def test_like_machines_share_by_a_key(tmp_path):
    """Host name and kernel are in the cache's path, unless a key stands for them."""
    own, keyed = cache_path(tmp_path), cache_path(tmp_path, **{compilation.CACHE_KEY: "cluster"})
    differing = [(a, b) for a, b in zip(own.parts, keyed.parts) if a != b]
    assert len(own.parts) == len(keyed.parts)
    assert [b for _, b in differing] == ["Linuxcluster"]
    assert platform.platform() != "Linux"


def test_an_interpreter_has_one_name_whichever_it_was_called_by(tmp_path):
    """What kernels are called by is in their keys."""
    usual = tmp_path / f"python{sys.version_info.major}.{sys.version_info.minor}"
    usual.symlink_to(sys.executable)
    names = [usual, tmp_path / "python3", tmp_path / "python"]
    for name in names[1:]:
        name.symlink_to(usual.name)
    assert {compilation.kernel_compiler(str(name)) for name in names} == {compilation.kernel_compiler(str(usual))}
    other = tmp_path / "another"
    other.write_text("")
    assert compilation.kernel_compiler(str(other)).endswith(f'--python="{other}"')
