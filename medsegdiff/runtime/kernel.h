// What nearly every kernel includes, as it is for kernels: parsed once for all of them.
#define JIT 1
#define JIT_cpu 1
#include "core.h"
#include "op.h"
#include "ops/op_register.h"
#include "var.h"
