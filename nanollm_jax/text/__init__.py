"""Text to token ids and back: training a tokenizer, using it, and the ones others published."""
