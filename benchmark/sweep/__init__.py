"""Missing chunks, computed here, on several GPUs or on Ray. Imports data, suites, store and evaluation."""
