"""The version, said once: the wheel, the image, the program and every checkpoint take it from here."""

__version__ = "0.1.0"
