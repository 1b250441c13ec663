"""The colours that all pictures share."""

from __future__ import annotations

# A blue and a yellow that stay apart in every common colour blindness (Okabe and Ito 2008).
PREDICTION_COLOUR = (86, 180, 233)
TRUTH_COLOUR = (240, 228, 66)

MAX_STD = 0.5  # the largest standard deviation of values in [0, 1]: pictures share one scale

HEAT = "magma"
