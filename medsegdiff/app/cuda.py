"""What `medsegdiff doctor` does for GPUs: prepare Jittor for CUDA, undo that, check what the GPU computes."""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.app.options import Parser
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell


def configure(parser: Parser) -> None:
    """Add the options."""
    group = parser.add_argument_group("GPUs (docs/gpu.md)")
    texts = {
        "prepare-cuda": "make and compile a copy of Jittor for CUDA 12 or 13 with cuDNN 9, to be used from now on",
        "remove-cuda": "remove that copy",
        "check-gpu": "compare the network's operations on the GPU, and their gradients, with NumPy",
    }
    for name, text in texts.items():
        parser.option(f"--{name}", False, text, group=group)
    text = "with --prepare-cuda on a machine without a GPU: compute capability, times ten, of those to compile for"
    parser.option("--cuda-arch", None, text, Optional[int], group)


def is_asked_for(options: Any) -> bool:
    """Whether there is anything to do here."""
    if options.cuda_arch is not None and not options.prepare_cuda:
        raise InputError("--cuda-arch: says for which GPUs to prepare; give it with --prepare-cuda")
    if options.cuda_arch is not None and not 50 <= options.cuda_arch <= 121:
        raise InputError(f"--cuda-arch {options.cuda_arch}: must be a compute capability times ten, 50 to 121")
    return options.prepare_cuda or options.remove_cuda or options.check_gpu


def run(options: Any) -> int:
    """Run the options; returns the exit code: 1 if the GPU computes wrong numbers."""
    from medsegdiff.runtime import toolchain
    from medsegdiff.runtime.cuda import prepare

    if options.remove_cuda:
        removed = prepare.remove(toolchain.jittor_home())
        tell("removed" if removed else "nothing to remove", removed=removed)
    if options.prepare_cuda:
        version = toolchain.package_version("jittor") or "(not installed)"
        home = toolchain.jittor_home()
        copy = prepare.prepare(home, version, options.cuda_arch, lambda line: print(line, flush=True))
        tell(f"ready: {copy} is used where there is a GPU; nothing was computed on one yet", copy=copy)
    usable, reason = toolchain.find_cuda()
    if options.check_gpu and usable is None:
        raise InputError(f"--check-gpu: no usable GPU: {reason} (see medsegdiff doctor)")
    return check() if usable and (options.check_gpu or options.prepare_cuda) else 0


def check() -> int:
    """Compare the operations with NumPy and print the errors; returns the exit code."""
    from medsegdiff.doctor import device_check

    print(f"on the {device_check.device()}, errors relative to float64; {device_check.LIMIT:.0e} passes")
    failed = []
    for outcome in device_check.check_device():
        mark = "ok" if outcome.passed else "WRONG"
        print(f"{mark:6}{outcome.name:28}value {outcome.value:.1e}   gradient {outcome.gradient:.1e}", flush=True)
        if not outcome.passed:
            failed.append(outcome.name)
    tell(f"wrong: {', '.join(failed)}" if failed else "all right", wrong=failed)
    return 1 if failed else 0
