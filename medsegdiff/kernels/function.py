"""What the kernels have in common."""

from __future__ import annotations

from medsegdiff.runtime.backend import Var, jt


class Function(jt.Function):
    """A function that keeps what its gradient needs until that is computed.

    Jittor lets a function live as long as its graph; what it keeps would live as long, and no activation would be freed
    in the backward pass. So the gradients of one graph can be taken once.
    """

    def save(self, *values: Var) -> None:
        """Keep `values` for the gradient."""
        self._saved = values

    def saved(self) -> tuple[Var, ...]:
        """What was kept, and is not any more.

        Raises:
            RuntimeError: the gradient is taken for the second time.
        """
        values, self._saved = self._saved, None
        if values is None:
            raise RuntimeError("the gradients of one graph can be taken once: compute it again")
        return values
