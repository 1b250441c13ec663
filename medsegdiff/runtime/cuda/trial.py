"""Compile the copy of Jittor in the folder that is named, and try its parts: `python -m medsegdiff.runtime.cuda.trial`.

No GPU is needed: kernels are compiled but not run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medsegdiff.runtime import compilation, compilers, requirements, toolchain

_LIBRARIES = ("cub", "cublas", "cudnn", "curand", "cufft", "cusparse")
_MATMUL = {"T": "float32", "Trans_a": "N", "Trans_b": "N", "op": "S"}
KERNELS: Mapping[str, Mapping[str, str]] = {
    "cublas/ops/cublas_batched_matmul_op.cc": _MATMUL,
    "cub/ops/cub_where_op.cc": {"Ti": "float32", "To": "int32", "NDIM": "2"},
}
"""Sources of kernels below Jittor's folder of CUDA, with what Jittor defines when it compiles them."""


def main(copy: Path) -> None:
    """Compile and try; prints a line for each part."""
    begun = time.perf_counter()
    requirements.check()
    toolchain.prepare(copy)
    with compilation.arranged():
        _announce_compilations()
        import jittor
        from jittor import compile_extern

    if not jittor.compiler.is_cuda:
        raise SystemExit("Jittor did not take the CUDA compiler")
    if Path(jittor.__file__).parent.parent != copy:
        raise SystemExit(f"{jittor.__file__} was imported instead of the copy")
    lacking = [name for name in _LIBRARIES if not getattr(compile_extern, f"{name}_ops")]
    if lacking:
        raise SystemExit(f"not compiled: {', '.join(lacking)}")
    archs = ", ".join(f"sm_{arch}" for arch in jittor.flags.cuda_archs) or "no GPU's"
    print(f"core and {', '.join(_LIBRARIES)}, for {archs}: {time.perf_counter() - begun:.0f} s", flush=True)
    begun = time.perf_counter()
    with ThreadPoolExecutor(compilers.count()) as pool:
        for _ in pool.map(lambda kernel: compile_kernel(jittor, *kernel), KERNELS.items()):
            pass
    print(f"{', '.join(Path(source).stem for source in KERNELS)}: {time.perf_counter() - begun:.0f} s", flush=True)


def _announce_compilations() -> None:
    import jittor_utils

    run = jittor_utils.run_cmds

    def announced(commands: Sequence[str], cache_path: str, jittor_path: str, msg: str = "") -> None:
        print(f"{msg}, {len(commands)} files", flush=True)
        run(commands, cache_path, jittor_path, msg)

    jittor_utils.run_cmds = announced


def compile_kernel(jittor: Any, source: str, definitions: Mapping[str, str]) -> Path:
    """Compile one kernel with the words of Jittor's own compilation; returns the library."""
    path = Path(jittor.flags.jittor_path, "extern", "cuda", source)
    definitions = {"JIT": "1", "JIT_cuda": "1", "index_t": "int32", **definitions}
    text = jittor.core.op_compiler.precompile(definitions, path.read_text(encoding="utf-8"))
    body = text.index("\n", text.rindex("#include")) + 1
    defined = [f"#define {name} {value}\n" for name, value in definitions.items()]
    generated = Path(jittor.flags.cache_path, "jit", f"trial_{path.name}")
    generated.write_text("".join([*defined[:2], text[:body], *defined[2:], text[body:]]), encoding="utf-8")
    include = [f"-I{path.parents[1] / 'inc'}", f"-I{path.parent}"]
    library = generated.with_suffix(".so")
    command = f'"{jittor.flags.nvcc_path}" "{generated}" {jittor.compiler.fix_cl_flags(jittor.flags.nvcc_flags)}'
    command = command.replace("-Wl,-rpath,", "-Xlinker -rpath=")
    done = subprocess.run(
        f"{command} {' '.join(include)} -o '{library}'", shell=True, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"{source}: nvcc failed with exit code {done.returncode}")
    return library


if __name__ == "__main__":
    main(Path(sys.argv[1]))
