"""`tfscale data import`: files of many kinds become a TFDS data set that every recipe trains on."""
