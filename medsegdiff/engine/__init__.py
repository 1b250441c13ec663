"""Training, sampling, evaluating and comparing: what the commands run."""
