<<<<<<< HEAD
"""Side-by-side measurements; each folder has a script and its dated results."""
=======
"""Side-by-side measurements and their dated results; never part of the pipeline."""
>>>>>>> predict
