"""The data workers of a job, and their dispatcher: processes that make batches for trainers, by tf.data service."""
