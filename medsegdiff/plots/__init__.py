"""Pictures of predictions and of results. Needs no Jittor."""
