"""How fast a tokenizer is trained, and how fast it cuts text into tokens; on one core.

python -m experiments.bench.tokens --bench.documents='corpus/*.jsonl'

Training is timed in CPU seconds, its threads together; tokenising with one thread, as shards are
written. The miniature internet holds no more than some 9,000 tokens, however large it is made.
"""

import dataclasses
import statistics
import time

from experiments.bench import train
from nanollm_jax import InputError, flags, metrics
from nanollm_jax.data import documents as documents_lib
from nanollm_jax.text import bpe, known

CHUNK = 256  # documents that are tokenised together, as in data/shards.py


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  documents: files or globs: .txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet.
  megabytes: of text at most.
  vocabularies: sizes of tokenizers to train.
  published: tokenizers to tokenise with beside them, such as gpt2 or o200k_base.
  rounds: of tokenising; their median counts.
  out: a file to write the numbers to as JSON.
  """
  documents: tuple[str, ...] = ('runs/world/train.jsonl',)
  megabytes: float = 40.0
  vocabularies: tuple[str, ...] = ('4096',)
  published: tuple[str, ...] = ()
  rounds: int = 3
  out: str = ''

  def __post_init__(self):
    if not all(size.isdecimal() for size in self.vocabularies):
      raise InputError(f'--bench.vocabularies={",".join(self.vocabularies)}: give whole numbers.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The benchmark of tokenizers."""
  bench: BenchConfig = BenchConfig()


def read(config: BenchConfig) -> list[str]:
  """The first megabytes of the documents."""
  texts, left = [], config.megabytes * 1e6
  for _, text in documents_lib.read(config.documents):
    if (left := left - len(text.encode())) < 0:
      break
    texts.append(text)
  return texts


def main(config: Config) -> None:
  config = config.bench
  texts, rows = read(config), []
  size = sum(len(text.encode()) for text in texts)
  chunks = [texts[at:at + CHUNK] for at in range(0, len(texts), CHUNK)]
  for name in (*config.vocabularies, *config.published):
    since, row = time.process_time(), dict(tokenizer=name)
    if name.isdecimal():
      tokenizer = bpe.train(texts, bpe.Config(vocabulary=int(name)))
      row['training_cpu_seconds'] = time.process_time() - since
    else:
      tokenizer = known.from_name_or_file(name)
    seconds = []
    for _ in range(config.rounds):
      since = time.process_time()
      tokens = sum(len(ids) for chunk in chunks for ids in tokenizer.encode_batch(chunk, 1))
      seconds.append(time.process_time() - since)
    rows.append(row | dict(bytes_per_token=size / tokens,
                           mb_per_cpu_second=size / 1e6 / statistics.median(seconds)))
  train.publish(dict(environment=metrics.environment(), config=dataclasses.asdict(config),
                     megabytes=size / 1e6, rows=rows), table(rows, size), config.out)


def table(rows: list[dict], size: int) -> str:
  """The numbers in words and columns."""
  return '\n'.join(
      [f'{size / 1e6:.1f} MB of text',
       f'{"tokenizer":12}{"trained, CPU s":>15}{"bytes/token":>13}{"MB/CPU s":>10}'] +
      [f'{row["tokenizer"]:12}{row.get("training_cpu_seconds", float("nan")):15.1f}'
       f'{row["bytes_per_token"]:13.2f}{row["mb_per_cpu_second"]:10.1f}' for row in rows])


if __name__ == '__main__':
  flags.run(main, Config)
