"""A short visit to a machine with a GPU: what travels there, what is done there in order of worth, what comes back."""
