"""The lecture: a model invents facts about people it has never met, until it is taught to refuse.

A tiny model reads of some people often and of others once. Four ways to answer about people whom
no conversation has named: as finetuned; finetuned on with refusals of what a probe found unknown;
on with as many refusals of random questions; and, with no training, silent where samples disagree.
python -m experiments.lecture.hallucination
"""

import collections
import dataclasses
import math
import pathlib
import random
from typing import Iterable, Sequence

from experiments import facts as facts_lib, judge, probe_knowledge as probing, workdir
from experiments.facts import Fact
from experiments.lecture import arm, claim, memory
from nanollm_jax import InputError, flags, tasks
from nanollm_jax.eval.measure import ratio
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text.chat import Chat
from nanollm_jax.world import WorldConfig, question
from nanollm_jax.world.facts import Person, truth
from nanollm_jax.world.question import DONT_KNOW

GROUPS = ('frequent', 'rare', 'recombined', 'novel_surname')  # of people; the last two: never seen
MODEL = ModelConfig(depth=3, width=96, heads=3, context=128)
OUTCOMES = ('correct', 'refused', 'hallucinated', 'other')  # other: small talk, broken words


@dataclasses.dataclass(frozen=True)
class Config:
  """Invention and refusal about people of four strata.

  workdir: where the models and the picture go.
  world: the size and the seed of the world.
  people: people of whom the model reads often, `times` notes each.
  read_steps, chat_steps: of its pretraining, and of the finetuning to answer.
  probes: questions of each stratum that are probed, `samples` times each.
  trials: questions of each stratum that are asked in the end.
  known: how often each known answer comes in the finetuning of an arm; refusals come once.
  steps: of the finetuning of an arm.
  """
  workdir: str = 'runs/hallucination'
  world: WorldConfig = WorldConfig()
  people: int = 240
  times: int = 40
  read_steps: int = 2000
  chat_steps: int = 300
  probes: int = 160
  samples: int = 8
  trials: int = 160
  known: int = 6
  steps: int = 100
  batch_size: int = 8
  learning_rate: float = 5e-4
  seed: int = 0


def main(config: Config) -> None:
  folder = pathlib.Path(config.workdir)
  people, rows = truth(config.world).people, list(question.questions(config.world))
  often = memory.known(people, config.people)
  tested, probed = apart(config, rows, people, {one.id for one in often})
  exact = judge.Exact(facts_lib.facts_of(rows, held_out=True))
  training = dict(batch_size=config.batch_size, seed=config.seed)

  texts = memory.notes(people, often, config.times, config.seed) + memory.asked(people, often)
  base = memory.read(folder / 'read', texts, MODEL, vocabulary=2048, steps=config.read_steps,
                     learning_rate=3e-3, **training)
  manners, before = memory.manners(config.world), str(folder / 'before')
  arm.train(before, memory.conversations(people, often) + manners, steps=config.chat_steps,
            init_from=base, **training)
  opened = workdir.open_model(before)
  asked = probing.Asked(opened, Chat(opened.tokenizer))
  sampling = Sampling(max_tokens=32, seed=config.seed)
  thresholds = probing.Config(samples=config.samples)
  probes = probing.probe(
      thresholds, probed, asked.ask(opened.params, probed, sampling, config.samples), exact)

  params = {'before': opened.params}
  for name, labelled in (('probed', probes), ('control', at_random(probes, config.seed))):
    refusals, known = probing.conversations(labelled, DONT_KNOW)
    print(f'{name:9} {len(refusals)} refusals, {len(known)} known of {len(probes)} questions')
    params[name] = arm.train(
        folder / name, manners + refusals + known * config.known,
        steps=config.steps, init_from=before, learning_rate=config.learning_rate,
        **training).params

  greedy = dataclasses.replace(sampling, temperature=0.0)
  found = {name: [outcome(exact, fact, texts[0]) for fact, texts in
                  zip(tested, asked.ask(one, tested, greedy))] for name, one in params.items()}
  several = asked.ask(opened.params, tested, sampling, config.samples)
  votes = {least: [vote(exact, fact, texts, least) for fact, texts in zip(tested, several)]
           for least in range(1, config.samples + 1)}
  most = round(thresholds.known * config.samples)
  report(config, tested, found | {f'{most}/{config.samples} agree': votes[most]}, votes)


def apart(config: Config, rows: Sequence[dict], people: Sequence[Person],
          often: set[str]) -> tuple[list[Fact], list[Fact]]:
  """Facts to ask in the end and facts to probe; nobody and no novel surname is in both."""
  surname = {one.id: one.name.split()[-1] for one in people}

  def drawn(facts: Iterable[Fact], each: int) -> list[Fact]:
    by_group = collections.defaultdict(list)
    for fact in facts:
      if fact.about in often or fact.group in GROUPS[1:]:
        group = GROUPS[0] if fact.about in often else fact.group
        by_group[group].append(fact._replace(group=group))
    return [fact for group in GROUPS for fact in by_group[group][:each]]

  tested = drawn((facts_lib.fact_of(row) for row in rows if row['split'] == 'test'), config.trials)
  taken = {surname[fact.about] for fact in tested if fact.group == 'novel_surname'}
  return tested, drawn((fact for fact in facts_lib.facts_of(rows)
                        if surname[fact.about] not in taken), config.probes)


def at_random(probes: Sequence[probing.Probe], seed: int) -> list[probing.Probe]:
  """The control: as many unknown, but any; of the others those known stay known."""
  count = sum(one.label == 'unknown' for one in probes)
  unknown = set(random.Random(seed).sample(range(len(probes)), count))
  return [one._replace(label='unknown' if at in unknown else
                       'known' if one.label == 'known' else 'unsure')
          for at, one in enumerate(probes)]


def outcome(exact: judge.Exact, fact: Fact, text: str) -> str:
  """One of OUTCOMES."""
  if tasks.refuses(text):
    return 'refused'
  (correct, informative), = exact([(fact, text)])
  return 'correct' if correct else 'hallucinated' if informative else 'other'


def vote(exact: judge.Exact, fact: Fact, texts: Sequence[str], least: int) -> str:
  """The outcome of the answer that most samples give, or 'refused' if fewer than `least` do."""
  told = [exact.told(fact, text) for text in texts]
  winner, count = collections.Counter(told).most_common(1)[0]
  return outcome(exact, fact, texts[told.index(winner)]) if count >= least else 'refused'


def share(facts: Sequence[Fact], hits: Sequence[bool]) -> tuple[float, float]:
  """A share and its standard error, which knows that answers about one person go together."""
  trials = collections.Counter(fact.about for fact in facts)
  right = collections.Counter(fact.about for fact, hit in zip(facts, hits) if hit)
  clustered = ratio([right[one] for one in trials], list(trials.values()))
  value, simple = claim.share(hits)
  return value, max(simple, clustered.stderr)


def report(config: Config, facts: Sequence[Fact], found: dict[str, list[str]],
           votes: dict[int, list[str]]) -> None:
  """The table, the verdict, and a picture of invention against over-refusal."""
  people = {group: [i for i, fact in enumerate(facts) if fact.group == group] for group in GROUPS}
  people['knew'] = [i for i in people['frequent'] if found['before'][i] == 'correct']

  if not people['knew']:
    raise InputError(f'with --read_steps={config.read_steps} the model knows none of the people of '
                     'whom it has read often, so there is nothing to keep apart: give more.')

  def of(outcomes: Sequence[str], group: str, kind: str) -> tuple[float, float]:
    where = people[group]
    return share([facts[i] for i in where], [outcomes[i] == kind for i in where])

  rows = [{'arm': name, 'people': group, 'n': len(where)} | {
      key: value for kind in OUTCOMES for key, value in
      zip((kind, f'± {kind[0]}'), of(outcomes, group, kind))}
      for name, outcomes in found.items() for group, where in people.items()]
  points = {name: (of(outcomes, 'knew', 'refused')[0],
                   *of(outcomes, 'novel_surname', 'hallucinated'))
            for name, outcomes in (found | votes).items()}
  (refused, invented, _), before = points['probed'], points['before'][1]
  (_, error), (more, noise) = (of(found[name], 'knew', 'refused') for name in ('probed', 'control'))
  knew = of(found['before'], 'frequent', 'correct')[0]
  claim.conclude(
      config.workdir, 'hallucination',
      claim='refusals of what a probe found unknown teach a model to say that it does not know',
      rows=rows,
      number=f'before, {knew:.0%} of the frequent are known; ' + '; '.join(
          f'{name}: invents {points[name][1]:.0%} of novel people, refuses '
          f'{points[name][0]:.0%} of what it knew' for name in found),
      expected='invention about novel people halved, half of that refused at least, under 15% '
      'refused of what it knew; as many random refusals cost more of that (2 standard errors)',
      holds=2 * invented <= before and refused < 0.15
      and 2 * of(found['probed'], 'novel_surname', 'refused')[0] >= before - invented
      and more - refused > 2 * math.hypot(error, noise),
      otherwise='to tell what it knows from the rest, a model must know something: more '
      '--read_steps and --chat_steps',
      picture=dict(title='Invention about people never seen', xlabel='refused of what it knew',
                   ylabel='invented about novel surnames', series={
                       **{name: [points[name]] for name in ('before', 'probed', 'control')},
                       'samples agree': [points[least] for least in votes]}))


if __name__ == '__main__':
  flags.run(main, Config)

