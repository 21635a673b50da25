"""Text: tokenizers, texts packed into rows of one length, and the task that learns from them."""
