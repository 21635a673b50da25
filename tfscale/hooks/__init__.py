"""What TensorFlow and Keras don't promise and we use all the same, each as one small function with its reason.

Owns every private name, private module and patch of theirs in tfscale/, so that a new version is judged in one place:
each hook has a test of its name in tests/hooks, and `make test-versions` runs them with the lowest and the newest
versions that may be installed. Refuses to know anything of ours.

It stands on the first floor, beneath what touches TensorFlow's global state (runtime/), since the state of a training,
which stands on the second, needs it.
"""
