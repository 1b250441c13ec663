"""The options of a run, as dataclasses that check themselves. Needs no Jittor."""
