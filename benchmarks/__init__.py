"""Measurements that back the project's claims about speed; each module runs by itself, none is needed to train."""
