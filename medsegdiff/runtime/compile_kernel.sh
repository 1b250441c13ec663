#!/bin/sh
# Compiles one of Jittor's kernels: compile_kernel.sh --python=PYTHON ASM_TUNER --cc_path=COMPILER SOURCE FLAGS...
#
# Jittor calls PYTHON ASM_TUNER ..., which compiles with debugging information to assembly, edits that between
# "@begin" and "@end" comments of the source, and compiles the assembly. Few kernels have such comments; for the
# others, this calls the compiler at once.
python=${1#--python=}
shift
case $1 in
*/asm_tuner.py)
    if ! grep -q '@begin' "$3"; then
        compiler=${2#--cc_path=}
        shift 2
        exec "$compiler" "$@"
    fi
    ;;
esac
# The script imports Jittor's helpers, which would note a JITTOR_HOME in the user's home for ever.
if [ -n "$JITTOR_HOME" ]; then
    export HOME="$JITTOR_HOME"
fi
exec "$python" "$@"
