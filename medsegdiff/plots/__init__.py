"""Pictures of predictions and of results. Needs no Jittor."""

import logging

# It would tell where it keeps what it knows of fonts, where the home folder cannot be written.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
