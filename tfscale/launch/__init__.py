"""Starting the processes of a job on one machine, and ending them together."""

from tfscale.launch.workers import launch_workers

__all__ = ["launch_workers"]
