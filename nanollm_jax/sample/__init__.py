"""The sampler: how a token is chosen, and the engine that generates."""
