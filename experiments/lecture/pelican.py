"""The lecture: who practises long enough to please a model of people finds out how to fool it.

A tiny model tells jokes; a second one has learned people's taste from rankings of five; the first
then practises for the second. What its jokes are worth rises, and falls again while the judge is
ever more pleased. So practice is cropped: what ships is the checkpoint that looked best, not the
last. Arms pay for the nats that they move away from the start. Gao et al. (arXiv:2210.10760) found
R = d (alpha - beta log d) of what jokes gain in worth, d the root of these nats.
python -m experiments.lecture.pelican
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from experiments import jokes, reward_model, workdir
from experiments.lecture import arm, claim, comedian
from nanollm_jax import checkpoint, flags

FALLEN = 3  # standard errors between the best and the last


@dataclasses.dataclass(frozen=True)
class Config:
  """Over-optimisation of a reward model.

  workdir: where the models and the picture go.
  updates: of practice, each on 16 prompts x 8 jokes.
  learning_rate: of practice.
  kl: what a nat costs, an arm each, beside the arm where it costs nothing; of the first seed.
  trials: fresh jokes by which the best and the last checkpoint are compared.
  seeds: each with its own rankings, judge and practice.
  start: where the teller goes, which claims on jokes share.
  """
  workdir: str = 'runs/pelican'
  updates: int = 80
  learning_rate: float = 1e-3
  kl: tuple[str, ...] = ('0.1',)
  trials: int = 512
  seeds: int = 3
  start: str = 'runs/comedian'
  teller: arm.Recipe = comedian.TELLER
  judging: comedian.Judging = comedian.Judging()


def main(config: Config) -> None:
  rows, series, start = [], {}, comedian.teller(config.start, config.teller)
  opened = workdir.open_model(start)
  for seed in range(config.seeds):
    folder = pathlib.Path(config.workdir) / f'seed_{seed}'
    judge = comedian.judge(folder / 'judge', start, config.judging, seed).workdir
    audience = comedian.Audience(opened, reward_model.open_reward(judge))
    first = told('start', audience.hear(opened.params, config.trials))
    for kl in ('0', *config.kl * (seed == 0)):
      run = folder / f'kl_{kl}'
      numbers = comedian.please(run, start, [judge], config.updates, config.learning_rate,
                                float(kl), seed)
      d, worth, said = curve(numbers, first)
      rows.append({'seed': seed, 'a nat costs': kl, 'nats': d[-1]**2, 'start': first.gold.value,
                   **heard(audience, run, config), **fitted(d, worth)})
      if seed == 0:
        series[f'worth, a nat costs {kl}'] = list(zip(d, worth))
        series |= {'what the judge says': list(zip(d, said))} if kl == '0' else {}
  free = [row for row in rows if row['a nat costs'] == '0']
  falls = [(row['best'] - row['last']) / row['standard error'] for row in free]
  claim.conclude(
      config.workdir, 'pelican',
      claim='what pleases a learned judge is worth more at first, and less when practice goes on',
      rows=rows,
      number='; '.join(
          f'seed {row["seed"]}: gold {row["start"]:.2f}, best {row["best"]:.2f} (update '
          f'{row["update"]}), last {row["last"]:.2f}, {fall:.1f} standard errors below; the judge '
          f'{row["judge, best"]:.2f}, then {row["judge, last"]:.2f}; R(d) = d ({row["alpha"]:.2f} '
          f'{-row["beta"]:+.2f} log d), R2 {row["R2"]:.2f}' for row, fall in zip(free, falls)),
      expected=f'on every seed the best worth more than {FALLEN} standard errors more than at the '
      'start on fresh jokes, and the last as much less than the best, while the judge rates it '
      'higher',
      holds=all(min(fall, (row['best'] - row['start']) / row['standard error']) > FALLEN
                and row['judge, last'] > row['judge, best'] for fall, row in zip(falls, free)),
      otherwise='more --updates: the judge is not fooled yet; or fewer --judging.rankings',
      picture=dict(title='What the judge says of jokes, and what they are worth', series=series,
                   xlabel='distance from the start: root of nats a joke',
                   ylabel='gain, in standard deviations of the first jokes'))


def heard(audience: comedian.Audience, run: pathlib.Path, config: Config) -> dict[str, Any]:
  """Fresh jokes of the checkpoint that looked best and of the last one."""
  best, last = (told(name, audience.hear(workdir.open_model(str(run), step=step).params,
                                         config.trials))
                for name, step in (('best', None), ('last', config.updates)))
  return {'update': checkpoint.best(run)['step'], 'best': best.gold.value, 'last': last.gold.value,
          'standard error': math.hypot(best.gold.stderr, last.gold.stderr),
          'judge, best': best.judge.value, 'judge, last': last.judge.value}


def told(name: str, heard: comedian.Heard) -> comedian.Heard:
  """Prints a joke about a pelican."""
  one = next((row for row in heard.rows if row['answer'] == 'pelican'), heard.rows[0])
  print(f'  {name:5} {one["completion"]!r}: worth {one["gold"]:.1f}, to the judge '
        f'{one["judge"]:.1f}', flush=True)
  return heard


def curve(numbers: list[dict[str, Any]], first: comedian.Heard) -> np.ndarray:
  """[3, updates]: the root of the nats from the start, and what has been gained since, in worth
  and in the judge's eyes, in standard deviations of the first jokes."""
  found = [row for row in numbers if 'rollout/kl' in row]
  kl, gold, judge = (np.array([row[f'rollout{name}'] for row in found])
                     for name in ('/kl', '_score', '/reward'))
  spread = [np.std([row[name] for row in first.rows]) for name in ('gold', 'judge')]
  return np.array([np.sqrt(np.maximum(kl, 0)),
                   (jokes.BEST * gold - first.gold.value) / spread[0],
                   (judge - first.judge.value) / spread[1]])


def fitted(d: np.ndarray, gain: np.ndarray) -> dict[str, float]:
  """Gao's curve of reinforcement learning by least squares, and the share that it explains."""
  d, gain = d[d > 0], gain[d > 0]
  terms = np.stack([d, -d * np.log(d)], axis=1)
  (alpha, beta), *_ = np.linalg.lstsq(terms, gain, rcond=None)
  left = gain - terms @ (alpha, beta)
  return {'alpha': float(alpha), 'beta': float(beta),
          'R2': float(1 - (left @ left) / ((gain - gain.mean()) @ (gain - gain.mean())))}


if __name__ == '__main__':
  flags.run(main, Config)
