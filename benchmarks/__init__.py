"""Side-by-side measurements and their dated results; never part of `dvc repro`."""
