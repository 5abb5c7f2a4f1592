"""The miniature internet: a small synthetic world, fully known, and all that is written in it."""

from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.corpus import Document, documents
from nanollm_jax.world.facts import World, truth

__all__ = ['Document', 'World', 'WorldConfig', 'documents', 'truth']
