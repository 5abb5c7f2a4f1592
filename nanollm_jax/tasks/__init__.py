"""Tasks: examples drawn or read, a grader of visible text, an oracle; plain Python, no jax."""

from nanollm_jax.tasks.countdown import countdown
from nanollm_jax.tasks.letters import dots, letter_count, spelling
from nanollm_jax.tasks.rows import choice, gsm8k, knowledge, read_rows, refuses
from nanollm_jax.tasks.styles import STYLES
from nanollm_jax.tasks.sums import affine, apples, chain, decimals, multiply
from nanollm_jax.tasks.task import Example, Grade, Task, split_of

__all__ = ['STYLES', 'Example', 'Grade', 'Task', 'affine', 'apples', 'chain', 'choice', 'countdown',
           'decimals', 'dots', 'gsm8k', 'knowledge', 'letter_count', 'multiply', 'read_rows',
           'refuses', 'spelling', 'split_of']
