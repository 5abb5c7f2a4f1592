"""nanollm_jax: from web crawl to reinforcement learning, small enough to read."""


class InputError(ValueError):
  """Something the user gave cannot be used; the message names it and the remedy."""
