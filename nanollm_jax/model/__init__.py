"""The model: a configuration, Linen layers, attention, an explicit cache, one Transformer."""
