"""What a run survives: kills, signals, a full disk, damaged files, lost data, gradients of NaN.

python -m experiments.bench.faults --kills=200
"""

import collections
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import time
from typing import Any, Callable, Iterator

import jax
import jax.numpy as jnp

from experiments import pretrain, training
from nanollm_jax import InputError, flags, metrics
from nanollm_jax.data.pipeline import DataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text import bpe
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig

CONTEXT = multiprocessing.get_context('forkserver')  # imports once, forks a life from there
WORDS = 'red blue green stone river house tree cat dog bird sees finds takes likes a the'.split()


@dataclasses.dataclass(frozen=True)
class Config:
  """Faults.

  workdir: where the runs live and die.
  kills: faults in all; the kinds take turns.
  kinds: start, step and save (SIGKILL while it starts, at a random step, while a checkpoint is
    written), term (SIGTERM), disk (no file may grow), flip and cut (a file of the newest
    checkpoint), tokens (a shard), lost (a file of data), nan (loss and gradients).
  steps: updates of a whole run.
  save_every: steps between checkpoints.
  seed: of the moments.
  """
  workdir: str = 'runs/faults'
  kills: int = 20
  kinds: tuple[str, ...] = ('start', 'step', 'save', 'term', 'disk', 'flip', 'cut', 'tokens', 'lost',
                            'nan')
  steps: int = 60
  save_every: int = 10
  seed: int = 0

  def __post_init__(self):
    if unknown := set(self.kinds) - set(FAULTS):
      raise InputError(f'--kinds={",".join(sorted(unknown))} is not known: choose among '
                       f'{", ".join(FAULTS)}.')


class Life:
  """One process of a run, from its start to its end, in a workdir."""

  def __init__(self, folder: pathlib.Path, **ill: int):
    self.folder = folder
    self._process = CONTEXT.Process(target=live, args=(str(folder), ill))
    self._process.start()

  def until(self, ready: Callable[[], bool]) -> bool:
    """Waits; False where the run ended before."""
    while not ready():
      if not self._process.is_alive():
        return False
      time.sleep(0.001)
    return True

  def send(self, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended a moment before
      os.kill(self._process.pid, number)

  def end(self) -> tuple[int, str]:
    """Its exit code and what it said as an error."""
    self._process.join()
    return self._process.exitcode, self.folder.with_suffix('.err').read_text()


def live(folder: str, ill: dict[str, int]) -> None:
  """A run as a user starts it: disk=most bytes of a file; nan=first of the steps that go bad."""
  for name, stream in (('out', sys.stdout), ('err', sys.stderr)):
    os.dup2(os.open(f'{folder}.{name}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
  training.Run._report = lambda run: None  # takes longer than all else
  if 'disk' in ill:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ill['disk'],) * 2)
  if 'nan' in ill:
    training.step_lib.train_step = poisoned(training.step_lib.train_step, ill['nan'])
  sys.argv = ['pretrain', f'--flagfile={pathlib.Path(folder).parent}/run.flags',
              f'--workdir={folder}', '--jax_platforms=cpu']
  flags.run(pretrain.main, pretrain.Config)


def poisoned(train_step: Callable[..., Any], first: int) -> Callable[..., Any]:
  """The step, whose loss and gradients are NaN from a step on."""
  def step(state, batch, *, objective, **rest):
    def bad(*args):
      terms, ill = objective(*args), jnp.where(state.step >= first, jnp.nan, 1.0)
      return terms._replace(loss=terms.loss * ill,
                            metrics=jax.tree.map(lambda x: x * ill, terms.metrics))
    return train_step(state, batch, objective=bad, **rest)
  return step


def losses(folder: pathlib.Path) -> dict[int, float]:
  return {row['step']: row['loss'] for row in metrics.read_rows(folder / 'metrics.jsonl')
          if 'loss' in row}


def newest(folder: pathlib.Path) -> pathlib.Path | None:
  whole = [path for path in (folder / 'checkpoints').glob('*') if path.name.isdigit()]
  return max(whole, key=lambda path: int(path.name), default=None)


def starts(folder: pathlib.Path) -> list[dict[str, Any]]:
  return metrics.read_rows(folder / 'starts.jsonl')


def hurt(rng: random.Random, path: pathlib.Path, cut: bool) -> None:
  """Cuts a file short, or turns one of its bits."""
  content = bytearray(path.read_bytes())
  at = rng.randrange(len(content))
  content[at] ^= 1 << rng.randrange(8)
  path.write_bytes(content[:at] if cut else content)


# Each fault does its harm and yields the life that meets it; when it goes on, that life is over.
def start(rng, folder, config) -> Iterator[Life]:
  life = Life(folder)
  time.sleep(rng.random() * 2)
  life.send(signal.SIGKILL)
  yield life


def step(rng, folder, config, told: int = signal.SIGKILL) -> Iterator[Life]:
  at = rng.randint(min(max(losses(folder), default=0) + 1, config.steps), config.steps)
  life = Life(folder)
  life.until(lambda: max(losses(folder), default=0) >= at)
  life.send(told)
  yield life


def save(rng, folder, config) -> Iterator[Life]:
  life = Life(folder)
  writing = lambda: any(not path.name.isdigit() for path in (folder / 'checkpoints').glob('[0-9]*'))
  for _ in range(rng.randrange(3)):  # the first, second or third one
    life.until(writing)
    life.until(lambda: not writing())
  life.until(writing)
  time.sleep(rng.random() * 0.05)
  life.send(signal.SIGKILL)
  yield life


def term(rng, folder, config) -> Iterator[Life]:
  yield from step(rng, folder, config, signal.SIGTERM)


def disk(rng, folder, config) -> Iterator[Life]:
  yield Life(folder, disk=rng.choice((1, 4, 16, 64)) * 1024)


def flip(rng, folder, config, cut: bool = False) -> Iterator[Life]:
  yield from step(rng, folder, config)
  if where := newest(folder):
    files = sorted(path for path in where.rglob('*') if path.is_file() and path.stat().st_size)
    hurt(rng, rng.choice(files), cut)


def cut(rng, folder, config) -> Iterator[Life]:
  yield from flip(rng, folder, config, cut=True)


def tokens(rng, folder, config) -> Iterator[Life]:
  path = folder / 'tokens' / 'train-00000.tokens'
  whole = path.read_bytes() if path.exists() else b''
  if whole:
    hurt(rng, path, rng.random() < 0.5)
  yield Life(folder)
  whole and path.write_bytes(whole)


def lost(rng, folder, config) -> Iterator[Life]:
  path = folder.parent / rng.choice(('documents.jsonl', f'{folder.name}/tokens/train-00000.tokens'))
  whole = path.exists()
  whole and path.rename(path.with_suffix('.away'))
  yield Life(folder)
  whole and path.with_suffix('.away').rename(path)


def nan(rng, folder, config) -> Iterator[Life]:
  yield Life(folder, nan=rng.randrange(1, config.steps - 10))


def none(rng, folder, config) -> Iterator[Life]:
  yield Life(folder)


FAULTS = dict(none=none, start=start, step=step, save=save, term=term, disk=disk, flip=flip, cut=cut,
              tokens=tokens, lost=lost, nan=nan)


def prepare(config: Config, folder: pathlib.Path) -> None:
  """A corpus, its tokenizer and the smallest run's flags."""
  rng = random.Random(0)
  texts = [' '.join(rng.choices(WORDS, k=rng.randint(5, 40))) + '.' for _ in range(300)]
  (folder / 'documents.jsonl').write_text(
      ''.join(json.dumps({'text': text}) + '\n' for text in texts))
  bpe.train(texts, bpe.Config(vocabulary=320)).save(folder / 'tokenizer.json')
  (folder / 'run.flags').write_text(flags.to_text(pretrain.Config(
      tokenizer=str(folder), prompts=(), data=DataConfig((str(folder / 'documents.jsonl'),)),
      model=ModelConfig(depth=1, width=32, heads=2, context=32),
      optim=OptimConfig(learning_rate=1e-2),
      fit=FitConfig(steps=config.steps, batch_size=8, log_every=1, eval_every=0, sample_every=0,
                    save_every=config.save_every))))


def verdict(life: Life, sound: dict[int, float]) -> str:
  """How a life ended, and whether what it has left is the uninterrupted run up to there."""
  code, said = life.end()
  if any(sound[step] != loss for step, loss in losses(life.folder).items() if math.isfinite(loss)):
    return 'ANOTHER LOSS'
  lines = [line for line in said.splitlines() if not line.startswith('warning: ')]
  if code in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM) and not lines:
    return 'killed' if code else 'ended'
  one = code == 1 and len(lines) == 1 and lines[0].startswith('error: ')
  return 'sentence' if one else f'NO SENTENCE ({code})'


def main(config: Config) -> None:
  folder, rng = pathlib.Path(config.workdir).absolute(), random.Random(config.seed)
  began = time.time()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  prepare(config, folder)
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'cache'))
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  CONTEXT.set_forkserver_preload(['experiments.pretrain'])
  if (whole := Life(folder / 'whole')).end()[0]:
    raise InputError(f'the uninterrupted run failed: see {whole.folder}.err.')
  sound, run = losses(whole.folder), folder / 'run'
  found = {kind: collections.Counter() for kind in (*config.kinds, 'none')}
  worst, before, runs = collections.Counter(), 'none', 0
  kinds = [config.kinds[number % len(config.kinds)] for number in range(config.kills)]
  rng.shuffle(kinds)
  for number, kind in enumerate([*kinds, 'none'], 1):  # after all of them it may end in peace
    reached, begun = max(losses(run), default=0), len(starts(run))
    for life in FAULTS[kind](rng, run, config):
      outcome = verdict(life, sound)
      if len(starts(run)) > begun:
        worst[before] = max(worst[before], reached - starts(run)[-1]['step'])
      found[kind][outcome] += 1
      print(f'{number:4} {kind:8} step {reached:3} -> {max(losses(run), default=0):3}  {outcome}',
            flush=True)
      if outcome.isupper() or outcome == 'sentence' and before in ('flip', 'cut'):
        for name in ('out', 'err'):
          shutil.copy(f'{run}.{name}', folder / f'{number}.{name}')
    before = kind
    if runs_ended := losses(run) == sound:
      runs += 1
    stuck = outcome == 'sentence' and kind not in ('disk', 'tokens', 'lost')
    if runs_ended or outcome.isupper() or stuck:  # by NaN: an update left out is another run
      shutil.rmtree(run, ignore_errors=True)
      before = 'none'
  bad = sum(count for one in found.values() for outcome, count in one.items() if outcome.isupper())
  for kind, outcomes in found.items():
    print(f'{kind:8} ' + ', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())
          + f'; lost at most {worst[kind]} steps')
  print(f'{config.kills} faults, {runs} runs of {config.steps} steps ended with every loss of the '
        f'uninterrupted one, {bad} failures; checkpoints every {config.save_every} steps; '
        f'{time.time() - began:.0f} s')
  if bad:
    sys.exit(1)


if __name__ == '__main__':
  flags.run(main, Config)
