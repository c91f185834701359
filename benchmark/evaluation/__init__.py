"""One chunk of images to verdicts, and what must hold before. Imports data, suites and store."""
