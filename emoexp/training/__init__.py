"""One run: from a configuration to a trained model and its results. Begin to read in `run`."""
