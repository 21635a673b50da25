"""Hardware: what this process may use, and how to read that from the machine.

Owns the facts: processor, usable cores and memory inside cgroups, GPUs, TPUs, and their form as JSON, so that a plan
can be made for a machine that is absent. Refuses to decide anything, and to know TensorFlow or other hosts.
"""

from tfscale.hardware.accelerators import visible_devices
from tfscale.hardware.facts import Cpu, Gpu, Hardware, Tpu
from tfscale.hardware.limits import memory_bytes, memory_kills
from tfscale.hardware.probing import probe

__all__ = ["Cpu", "Gpu", "Hardware", "Tpu", "memory_bytes", "memory_kills", "probe", "visible_devices"]
