"""What a browser shows: the report of runs, and the page that segments. Knows nothing of Jittor."""
