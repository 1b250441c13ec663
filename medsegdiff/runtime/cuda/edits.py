"""What is changed in the copy of Jittor, text by text, each with its reason.

The texts are exact: where one is not found exactly once, Jittor is not the release that they were made for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from medsegdiff.base.errors import InputError

JITTOR_VERSION = "1.3.11.0"
"""The one release of Jittor that the edits fit."""


class Edit(NamedTuple):
    """One change of one file."""

    file: str
    """The file, below Jittor's package."""
    before: str
    """What is there, exactly once."""
    after: str
    """What it becomes."""
    reason: str
    """Why, in a sentence."""


_CUDNN_8 = (
    '                libs = ["libcudnn_ops_infer.so", "libcudnn_ops_train.so", '
    '"libcudnn_cnn_infer.so", "libcudnn_cnn_train.so"]\n'
)

EDITS: tuple[Edit, ...] = (
    Edit(
        "compiler.py",
        """            nvcc_flags += " -G "
        return nvcc_flags
""",
        """            nvcc_flags += " -G "
        if nvcc_version >= [13]:
            nvcc_flags = nvcc_flags.replace("-std=c++14", "-std=c++17")
        return nvcc_flags
""",
        "The C++ libraries of CUDA 13 (CCCL 3: CUB, Thrust) refuse anything older than C++17.",
    ),
    Edit(
        "compiler.py",
        """    elif nvcc_version < [11,8]:
        max_arch = 86
""",
        """    elif nvcc_version < [11,8]:
        max_arch = 86
    elif nvcc_version >= [12,9]:
        max_arch = 121
""",
        "Machine code for compute capability 9.0, the highest that Jittor asks for, does not run on newer GPUs.",
    ),
    Edit(
        "compiler.py",
        """        r, s = sp.getstatusoutput(f"log_v=0 {sys.executable} -m jittor_utils.query_cuda_cc")
""",
        """        r, s = 0, os.environ.get("cuda_archs")
        if not s:
            r, s = sp.getstatusoutput(f"log_v=0 {sys.executable} -m jittor_utils.query_cuda_cc")
""",
        "The cache of a GPU bears its compute capability; with it given, one can compile where there is no GPU.",
    ),
    Edit(
        "compile_extern.py",
        _CUDNN_8,
        _CUDNN_8
        + """                if os.path.isfile(os.path.join(os.path.dirname(culib_path), "libcudnn_graph.so")):
                    libs = []
""",
        "cuDNN 9 has no separate libraries for inference and training, and loads its parts, of which "
        "libcudnn_graph is a new one, by itself.",
    ),
    Edit(
        "compile_extern.py",
        """    culib_src_files = []
    for r, _, f in os.walk(culib_src_dir):
        for fname in f:
            culib_src_files.append(os.path.join(r, fname))
    if len(culib_src_files) == 0:
        return

    # compile and get operators
    culib = compile_custom_ops(culib_src_files, return_module=True,
        extra_flags=f" -I\\"{jt_cuda_include}\\" -I\\"{jt_culib_include}\\" {link_flags} {extra_flags} ")
""",
        """    culib_src_files = []
    for r, _, f in os.walk(culib_src_dir):
        for fname in f:
            if lib_name == "cudnn" and not libs and "rnn" in fname:
                continue
            culib_src_files.append(os.path.join(r, fname))
    if len(culib_src_files) == 0:
        return

    # compile and get operators
    culib = compile_custom_ops(culib_src_files, return_module=True,
        extra_flags=f" -I\\"{jt_cuda_include}\\" -I\\"{jt_culib_include}\\" {link_flags} {extra_flags} ")
""",
        "cuDNN 9 no longer has the functions that Jittor's recurrent layers call; nothing here uses these layers.",
    ),
    Edit(
        "extern/cuda/cub/ops/cub_where_op.cc",
        """#include <thrust/transform.h>
""",
        """#include <thrust/transform.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
""",
        "For the next change.",
    ),
    Edit(
        "extern/cuda/cub/ops/cub_where_op.cc",
        """    cub::CountingInputIterator<To> counting_itr(0);
    cub::TransformInputIterator<bool, NonZeroOp<Ti>, Ti*> itr(cond->ptr<Ti>(), NonZeroOp<Ti>());
""",
        """    auto counting_itr = thrust::make_counting_iterator(To(0));
    auto itr = thrust::make_transform_iterator(cond->ptr<Ti>(), NonZeroOp<Ti>());
""",
        "CUDA 13 removed these iterators of CUB, which Thrust has too.",
    ),
    Edit(
        "extern/cuda/inc/helper_cuda.h",
        "#ifdef __CUDA_RUNTIME_H__\n// General GPU",
        "#if defined(__CUDA_RUNTIME_H__) && CUDART_VERSION < 13000\n// General GPU",
        "These functions, which nothing calls, read properties that CUDA 13 removed.",
    ),
    Edit(
        "other/code_softmax.py",
        ".Reduce(v1, cub::Max());",
        ".Reduce(v1, [](float a, float b) {{ return a < b ? b : a; }});",
        "CUDA 13 removed cub::Max.",
    ),
    Edit(
        "src/misc/cuda_flags.cc",
        """    if (count==-1)
        cudaGetDeviceCount(&count);
""",
        """    if (count==-1 && cudaGetDeviceCount(&count)!=cudaSuccess)
        count = 0;
""",
        "Without a driver the count may stay at -1, which is taken for a GPU.",
    ),
    Edit(
        "src/misc/cuda_limits.h",
        """#include <npp.h>
#include <math_constants.h>
#else
#include <limits>
""",
        """#include <math_constants.h>
#else
#include <limits>
#define     CUDART_INF_F  std::numeric_limits<float>::infinity()
#define     CUDART_INF    std::numeric_limits<double>::infinity()
#endif
""",
        "The limits are all that is used of NPP, a library that need not be installed; here they become those that "
        "the file has for other platforms.",
    ),
    Edit(
        "src/misc/cuda_limits.h",
        """#define 	NPP_MAX_64S   ( 9223372036854775807LL )
#define     CUDART_INF_F  std::numeric_limits<float>::infinity()
#define     CUDART_INF    std::numeric_limits<double>::infinity()
#endif
""",
        """#define 	NPP_MAX_64S   ( 9223372036854775807LL )
""",
        "The other half of the change before.",
    ),
    Edit(
        "src/ops/transpose_op.cc",
        """        if (!cutt_transpose && has_op("cutt_transpose")) {
            cutt_transpose = get_op_info("cutt_transpose")
                .get_constructor<VarPtr, Var*, NanoVector>();
        }
""",
        """        if (!cutt_transpose) {
            cutt_transpose = get_op_info(has_op("cutt_transpose") ? "cutt_transpose" : "fuse_transpose")
                .get_constructor<VarPtr, Var*, NanoVector>();
        }
""",
        "Without the library cuTT, which does not compile with CUDA 13 and must be downloaded, a transposition on a "
        "GPU did nothing at all; Jittor's own kernel does it.",
    ),
)


def digest() -> str:
    """A short name for the set of edits, another one for each set."""
    content = "\0".join([JITTOR_VERSION, *(part for edit in EDITS for part in edit[:3])])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def refuse_other(version: str) -> None:
    """Refuse any release of Jittor but the one that the edits were made for.

    Raises:
        InputError: `version` is another.
    """
    if version != JITTOR_VERSION:
        raise InputError(
            f"Jittor {version}: what it lacks for CUDA 12 and 13 is known of {JITTOR_VERSION} only; "
            f"install that: pip install jittor=={JITTOR_VERSION}"
        )


def apply(package: Path, version: str) -> None:
    """Make all edits in the copy of Jittor of this `version`, whose folder `jittor` is `package`, or none.

    Raises:
        InputError: it is another release than the edits were made for, or was changed by somebody else.
    """
    refuse_other(version)
    texts: dict[Path, str] = {}
    for edit in EDITS:
        path = package / edit.file
        text = texts[path] if path in texts else path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(edit.before) != 1:
            raise InputError(
                f"{path}: is not as Jittor {JITTOR_VERSION} has it; "
                f"install it anew: pip install --force-reinstall --no-deps jittor=={JITTOR_VERSION}"
            )
        texts[path] = text.replace(edit.before, edit.after)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
