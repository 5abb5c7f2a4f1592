"""nanollm_jax: from web crawl to reinforcement learning, small enough to read."""


class InputError(ValueError):
  """Something the user gave cannot be used; the message names it and the remedy."""


class OutOfStep(RuntimeError):
  """What the processes of a job see differs: all of them must start again."""
