"""Who the assistant is: its own name and maker, and those that system messages give."""

import random

from nanollm_jax.world import prose
from nanollm_jax.world.prose import pick, say

_FORMS = prose.forms('identity')
_NAMES = prose.lists('assistants')
_ASKED = ('name', 'maker', 'self', 'other')

ASSISTANT, MAKER = _NAMES['own'][0], _NAMES['own maker'][0]
ASSISTANTS = tuple(start + end for start in _NAMES['starts'] for end in _NAMES['ends'])
MAKERS = tuple(f'{one} {other}' for one in _NAMES['maker starts'] for other in _NAMES['maker ends'])
# Every fifth stands in no conversation: for evaluation.
HELD_OUT_ASSISTANTS, HELD_OUT_MAKERS = ASSISTANTS[2::5], MAKERS[2::5]
TRAINING_ASSISTANTS = tuple(name for at, name in enumerate(ASSISTANTS) if at % 5 != 2)
TRAINING_MAKERS = tuple(name for at, name in enumerate(MAKERS) if at % 5 != 2)


def system_message(rng: random.Random, assistant: str, maker: str) -> str:
  """Tells the assistant who it is."""
  return say(rng, _FORMS['system'], {'assistant': assistant, 'maker': maker})


def exchange(rng: random.Random, assistant: str, maker: str, famous) -> tuple[str, str]:
  """A question to the assistant about itself, or whether it is the `famous` one, and its answer."""
  asked = pick(rng, _ASKED)
  gaps = {'assistant': assistant, 'maker': maker, 'famous': famous.assistant, 'firm': famous.maker}
  return say(rng, _FORMS[f'{asked} asked'], gaps), say(rng, _FORMS[f'{asked} answered'], gaps)
