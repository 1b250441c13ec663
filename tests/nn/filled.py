import numpy as np

from medsegdiff.base.randomness import generator
from medsegdiff.nn import weights


def fill(module, seed=0):
    """Give every parameter values, those too that start at zero, and put the module into evaluation mode."""
    arrays = {}
    for name, value in weights.state(module).items():
        shape, rng = tuple(value.shape), generator(seed, "fill", name)
        if name.endswith("running_var"):
            arrays[name] = rng.uniform(0.5, 2, shape)
        elif len(shape) == 1:
            arrays[name] = 0.1 * rng.standard_normal(shape) + (1 if "norm" in name and name.endswith("weight") else 0)
        else:
            arrays[name] = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    weights.load(module, arrays)
    module.eval()
    return module


def arrays_of(module):
    return weights.to_arrays(weights.state(module))
