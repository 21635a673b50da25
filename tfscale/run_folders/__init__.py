"""The folders of many runs, beside each other: listed, compared, cleaned up. Standard library and YAML, no TensorFlow.

Whatever lies there may be somebody else's, torn, or made to hurt: files are read as run_dir/ reads them, links are not
followed, and what is no run is named and left alone.
"""
