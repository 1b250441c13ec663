"""What a browser shows: the report of runs. Needs no Jittor."""
