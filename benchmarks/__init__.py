"""Measurements that back the project's claims about speed; each module runs by itself, none is needed to train."""

import os

os.environ.setdefault("TFSCALE_SETTINGS", "none")  # what is measured isn't what somebody's own file changes
