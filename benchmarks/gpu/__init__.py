"""A short visit to a machine with a GPU: what to bring, what is done there, what comes back."""
