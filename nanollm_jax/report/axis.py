"""An axis of a figure: its limits, its round ticks and what they are called."""

import math
from typing import Callable, Sequence


def clipped(values: Sequence[float]) -> tuple[float, float]:
  """Limits without a far tail: what lies a third of the inner 95% beyond it, if 12 or more."""
  ordered = sorted(values)
  cut = int(.95 * (len(ordered) - 1))
  low, high = ordered[-1 - cut], ordered[cut]
  slack = (high - low) / 3 if len(ordered) >= 12 else 0
  return ((max(ordered[0], low - slack), min(ordered[-1], high + slack)) if slack
          else (ordered[0], ordered[-1]))


def padded(low: float, high: float) -> tuple[float, float]:
  """Limits with some air around; they begin at 0 where the data come near it."""
  if 0 <= low < .15 * high:
    low = 0
  pad = .06 * (high - low) or .5 * abs(high) or 1
  return low - pad * (low != 0), high + pad


def ticks(low: float, high: float, count: float) -> list[float]:
  """About `count` round numbers from low to high."""
  rough = ((high - low) or 1) / max(count, 1)
  unit = 10 ** math.floor(math.log10(rough))
  step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * .999)
  return [step * i for i in range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)]


def log_place(xs: Sequence[float]) -> Callable[[float], float]:
  """Where an x stands on a log axis: log2(x), and 0 one octave below the smallest."""
  origin = math.log2(min([x for x in xs if x > 0], default=1)) - 1
  return lambda x: math.log2(x) if x > 0 else origin


def log_ticks(xs: Sequence[float]) -> list[float]:
  """The xs themselves where they are few, else powers of ten (of two in a short range)."""
  if len(xs) <= 10:
    return list(xs)
  low, high = min([x for x in xs if x > 0], default=1), max(xs[-1], 1)
  base = 10 if high / low > 1000 else 2
  powers = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
  return [0] * (xs[0] <= 0) + [float(base) ** k for k in powers if low <= float(base) ** k <= high]


def tick_texts(values: Sequence[float]) -> list[str]:
  """Numbers with as many decimals as the one that needs most; thousands as k, M, B."""
  top = max(map(abs, values), default=0)
  for size, suffix in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if top >= 10 * size:
      return [f'{value / size:.10g}{suffix}' if value else '0' for value in values]
  texts = [f'{value:.10g}' for value in values]
  if any('e' in one for one in texts):
    return [one.replace('e-0', 'e-') for one in texts]
  decimals = max([len(one.partition('.')[2]) for one in texts] + [0])
  return [f'{value:,.{decimals}f}' for value in values]
