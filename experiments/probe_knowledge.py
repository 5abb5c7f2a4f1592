"""Probes what a chat model knows, and makes conversations that refuse what it does not.

Llama 3's recipe, which the lecture quotes: a question from a fact, several samples, correctness
and informativeness judged apart, a refusal only where the answers were informative and wrong.
python -m experiments.probe_knowledge --init_from=runs/sft --questions=runs/world/questions.jsonl
"""

import collections
import dataclasses
import itertools
import json
import pathlib
import random
from typing import Any, Iterable, NamedTuple, Sequence

from experiments import facts as facts_lib, judge as judge_lib, workdir
from experiments.facts import Fact
from experiments.judge import Verdict
from nanollm_jax import InputError, flags, tasks
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text.chat import Chat
from nanollm_jax.world import question as world_question

LABELS = ('known', 'unknown', 'unsure', 'unjudged')
_EXAMPLES = 4  # of each label on the card


@dataclasses.dataclass(frozen=True)
class Config:
  """Knowledge probing.

  init_from: the workdir of a chat model; the refusals suit this model alone.
  workdir: where refusals.jsonl, known.jsonl and the card go.
  questions: a JSONL file of question and answer (a world's questions.jsonl), or of text, from
    which questions are made.
  limit: questions at most, from the file's beginning.
  samples: answers to each.
  known: a question whose answers are right in at least this share is known.
  wrong: one whose answers are right in at most this share,
  informative: and tell something in at least this share, is unknown; all others are unsure.
  judge: exact (by the words), self (the model itself), or the URL of an OpenAI-compatible API.
  judge_model: the model's name there; its key, if it needs one, is read from $JUDGE_API_KEY.
  wordings: a file with a refusal a line; empty takes those of the world.
  """
  init_from: str = 'runs/sft'
  workdir: str = 'runs/probe'
  questions: str = 'runs/world/questions.jsonl'
  limit: int = 600
  samples: int = 8
  known: float = 0.75
  wrong: float = 0.0
  informative: float = 0.75
  judge: str = 'exact'
  judge_model: str = ''
  wordings: str = ''
  sample: Sampling = Sampling(max_tokens=48)

  def __post_init__(self):
    if not 0 <= self.wrong < self.known <= 1 or not 0 <= self.informative <= 1:
      raise InputError(f'--wrong={self.wrong}, --known={self.known} and --informative='
                       f'{self.informative} are shares, and --wrong must be below --known.')
    if self.limit < 1 or self.samples < 1 or not self.sample.temperature:
      raise InputError(f'--limit={self.limit}, --samples={self.samples}, --sample.temperature='
                       f'{self.sample.temperature}: all must be above 0, for it is the spread of '
                       'the answers that tells what is known.')
    if self.judge not in ('exact', 'self') and not self.judge.startswith(('http://', 'https://')):
      raise InputError(f'--judge={self.judge}: give exact, self or a URL.')


class Probe(NamedTuple):
  """A fact, the model's answers, what the judge says of each, and the label that follows."""
  fact: Fact
  texts: list[str]
  verdicts: list[Verdict | None]
  label: str


def main(config: Config) -> None:
  flags.spare_model(config.workdir)
  opened = workdir.open_model(config.init_from)
  chat = Chat(opened.tokenizer)
  wordings = wordings_of(config.wordings)
  rows = list(tasks.read_rows(config.questions))
  exact = judge_lib.Exact(facts_lib.facts_of(rows, held_out=True))
  if config.judge in ('exact', 'self'):
    judge = exact if config.judge == 'exact' else judge_lib.Itself(opened, chat)
  else:
    judge = judge_lib.Endpoint(config.judge, config.judge_model, 'JUDGE_API_KEY')
  facts = list(itertools.islice(facts_lib.facts_of(rows), config.limit))
  facts += facts_lib.written(rows[:config.limit], judge.write if isinstance(
      judge, judge_lib.Endpoint) else lambda texts: map(facts_lib.gap, texts))
  asked = Asked(opened, chat)
  if over := [fact for fact in facts if not asked.fits(fact)]:
    print(f'left out: {len(over)} questions that are longer than the context of the model.')
    facts = [fact for fact in facts if asked.fits(fact)]
  if not facts:
    raise InputError(f'--questions={config.questions} has no question to ask: give rows with '
                     'question and answer, or with a text of several words.')
  probes = probe(config, facts, asked.ask(opened.params, facts, config.sample, config.samples),
                 judge)
  folder = pathlib.Path(config.workdir)
  flags.save(config, folder)
  refused, kept = conversations(probes, wordings)
  for name, messages in (('refusals', refused), ('known', kept)):
    (folder / f'{name}.jsonl').write_text(
        ''.join(json.dumps({'messages': one}) + '\n' for one in messages))
  card = card_of(config, probes, exact)
  (folder / 'card.json').write_text(json.dumps(card, indent=1))
  (folder / 'card.md').write_text(written_card(card))
  print(written_card(card))
  made = [f'{folder}/{name}.jsonl' for name, rows in (('refusals', refused), ('known', kept))
          if rows]
  print(f'wrote {len(refused)} refusals and {len(kept)} known answers in {folder}'
        + (f': finetune on them with --data.conversations={",".join(made)}, and conversations of '
           'all other kinds.' if made else ': there is nothing to finetune on.'))


def wordings_of(path: str) -> Sequence[str]:
  """The refusals of a file, or those of the world."""
  if not path:
    return world_question.DONT_KNOW
  try:
    lines = [line for line in pathlib.Path(path).read_text().splitlines() if line.strip()]
  except OSError as error:
    raise InputError(f'--wordings={path} cannot be read ({error.strerror}): give '
                     'a file with a refusal a line.') from error
  if not lines:
    raise InputError(f'--wordings={path} is empty: give a refusal a line.')
  return lines


class Asked:
  """Asks models of one shape; a call of a tool ends an answer, for it is not from memory."""

  def __init__(self, opened: workdir.Opened, chat: Chat, slots: int = 64):
    special = opened.tokenizer.special
    tools = [special[name] for name in ('<|python_start|>', '<|search_start|>') if name in special]
    self._chat = chat
    self._engine = Engine(opened.model, [chat.end_of_turn, opened.tokenizer.end, *tools],
                          slots=slots)

  def fits(self, fact: Fact) -> bool:
    """Whether there is room for an answer."""
    return len(self._prompt(fact)) < self._engine.length

  def _prompt(self, fact: Fact) -> list[int]:
    return self._chat.prompt([{'role': 'user', 'content': fact.question}])

  def ask(self, params: Any, facts: Sequence[Fact], sampling: Sampling,
          samples: int = 1) -> list[list[str]]:
    """What a user sees of several answers to each question; sample s draws with seed + s."""
    each = [dataclasses.replace(sampling, seed=sampling.seed + s) for s in range(samples)]
    prompts = list(map(self._prompt, facts))
    made = self._engine.generate(params, [prompt for prompt in prompts for _ in each],
                                 each * len(facts))
    texts = [self._chat.visible(one.ids) for one in made]
    return [texts[at:at + len(each)] for at in range(0, len(texts), len(each))]


def probe(config: Config, facts: Sequence[Fact], texts: Sequence[list[str]],
          judge: judge_lib.Judge) -> list[Probe]:
  """Judges the answers to each question, all at once, and labels the questions."""
  verdicts = iter(judge([(fact, text) for fact, group in zip(facts, texts) for text in group]))
  found = []
  for fact, group in zip(facts, texts):
    each = list(itertools.islice(verdicts, len(group)))
    found.append(Probe(fact, group, each, label(config, each)))
  return found


def label(config: Config, verdicts: Sequence[Verdict | None]) -> str:
  """One of LABELS; unjudged where the judge failed on any of the answers."""
  if None in verdicts:
    return 'unjudged'
  correct, informative = (sum(column) / len(verdicts) for column in zip(*verdicts))
  if correct >= config.known:
    return 'known'
  if correct <= config.wrong and informative >= config.informative:
    return 'unknown'
  return 'unsure'


def conversations(probes: Iterable[Probe], wordings: Sequence[str]) -> tuple[list, list]:
  """Refusals of what is unknown, and what is known in the first right words of the model."""
  refused, kept = [], []
  for fact, texts, verdicts, name in probes:
    if name == 'unknown':
      rng = random.Random(f'nanollm refusal {fact.question}')
      refused.append(told(fact, rng.choice(wordings)))
    elif name == 'known':
      kept.append(told(fact, next(text for text, one in zip(texts, verdicts) if one.correct)))
  return refused, kept


def told(fact: Fact, text: str) -> list[dict]:
  """The messages of a question and its answer."""
  return [{'role': 'user', 'content': fact.question}, {'role': 'assistant', 'content': text}]


def card_of(config: Config, probes: Sequence[Probe], exact: judge_lib.Exact) -> dict[str, Any]:
  """What was done and found: thresholds, counts by label and group, examples.

  agreement: of another judge with the words of the answers, for correct and informative.
  """
  counts = {name: collections.Counter(one.fact.group for one in probes if one.label == name)
            for name in LABELS}
  card = dict(flags={name: value for name, _, value, _ in flags.leaves(config)},
              counts={name: dict(groups) for name, groups in counts.items()},
              examples={name: [dict(question=one.fact.question, answer=one.fact.answer,
                                    samples=one.texts) for one in probes
                               if one.label == name][:_EXAMPLES] for name in LABELS})
  judged = [(one.fact, text, verdict) for one in probes
            for text, verdict in zip(one.texts, one.verdicts) if verdict]
  if config.judge != 'exact' and judged:
    by_words = exact([(fact, text) for fact, text, _ in judged])
    card['agreement'] = {name: sum(a == b for a, b in zip(ours, theirs)) / len(judged)
                         for name, ours, theirs in zip(
                             Verdict._fields, zip(*by_words), zip(*[one[2] for one in judged]))}
  return card


def written_card(card: dict[str, Any]) -> str:
  """The card as Markdown."""
  groups = sorted({group for counts in card['counts'].values() for group in counts})
  lines = ['# What the model knows', '',
           ', '.join(f'`--{name}={value}`' for name, value in card['flags'].items()), '',
           '| label | all | ' + ' | '.join(group or 'questions' for group in groups) + ' |',
           '| --- |' + ' ---: |' * (len(groups) + 1)]
  for name, counts in card['counts'].items():
    cells = [sum(counts.values()), *(counts.get(group, 0) for group in groups)]
    lines.append(f'| {name} | ' + ' | '.join(map(str, cells)) + ' |')
  if 'agreement' in card:
    lines += ['', 'The judge agrees with the words of the answers: ' + ', '.join(
        f'{name} {share:.1%}' for name, share in card['agreement'].items()) + '.']
  for name, examples in card['examples'].items():
    lines += ['', f'## {name}']
    for one in examples:
      lines += ['', f'{one["question"]} ({one["answer"] or "nobody knows"})']
      lines += [f'- {times} x {text}' for text, times in
                collections.Counter(one['samples']).most_common(3)]
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  flags.run(main, Config)
