"""What a model costs and what a device can do: FLOPs, bytes and the peak that MFU is measured against."""
