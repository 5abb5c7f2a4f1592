"""The miniature internet: a small synthetic world, fully known, and all that is written in it."""

from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.conversation import Conversation, conversations
from nanollm_jax.world.corpus import Document, documents
from nanollm_jax.world.facts import World, truth
from nanollm_jax.world.index import pages
from nanollm_jax.world.question import questions

__all__ = ['Conversation', 'Document', 'World', 'WorldConfig', 'conversations', 'documents',
           'pages', 'questions', 'truth']
