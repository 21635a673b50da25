"""Tasks around Keras models that people bring: as Python objects, as files, or by the name of a function."""
