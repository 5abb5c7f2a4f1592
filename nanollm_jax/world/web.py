"""The world's web: its documents gathered on pages of sites, junk among them, a label for each."""

import ipaddress
import random
from typing import Iterable, Iterator, NamedTuple

from nanollm_jax.world import copies, html, junk, mishap, page as page_lib, warc
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.corpus import Document
from nanollm_jax.world.facts import truth
from nanollm_jax.world.html import Block, Site
from nanollm_jax.world.page import Good
from nanollm_jax.world.prose import forms, lists, pick, say

MISHAPS, INNOCENT, PRIVATE_DATA = 0.04, 0.02, 0.05  # of the pages that hold prose
REMEMBERED = 400  # good pages of which a copy may still be made
DUPLICATE = 0.7  # Jaccard from which a copy is one
_FORMS, _WORDS = forms('page'), lists('web')


class Page(NamedTuple):
  """A response of a server; `label` is what the world knows of it, see `pages`."""
  url: str
  body: bytes
  label: dict
  mime: str | None = 'text/html'
  status: int = 200
  content_type: str | None = 'text/html; charset=utf-8'
  location: str | None = None

  def record(self) -> bytes:
    """The page as a WARC record."""
    return warc.response(self.url, self.body, self.mime, self.status, self.content_type,
                         self.location)


def pages(config: WorldConfig, documents: Iterable[Document]) -> Iterator[Page]:
  """Yields the web: every training document on a page, and config.web times as many junk pages.

  A label has: label (the kind), keep (what the recipe of FineWeb should do), drop (its step that
  is to do it: type, status, url, extraction, language, repetition, quality, letters, c4,
  fineweb, duplicate; or classifier, which only a trained one can), documents (their places among the
  training documents) and their kinds, language, duplicate_of and jaccard (of the word 5-grams of
  the text), emails and ips (public: to be removed), private_ips (to stay). `letters` is Gopher's
  rule that 80% of the words hold a letter, which no page of sums passes.
  """
  towns = [town.name for town in truth(config).towns]
  recent, owed = [], 0.0
  for number, good in enumerate(page_lib.gathered(config, documents)):
    rng = random.Random(f'nanollm web {config.seed} {number}')
    page = _published(rng, good)
    yield page
    if page.label['label'] in ('gazette', 'people', 'stories') and 'canary' not in good.kinds:
      recent.append((good, page))
      if len(recent) > REMEMBERED:
        recent.pop(rng.randrange(REMEMBERED))
    owed += config.web
    for serial in range(int(owed)):
      yield _junk(rng, config.seed, pick(rng, towns), f'{number}-{serial}', recent)
    owed %= 1


def blocklist() -> list[str]:
  """The domains of the malicious and of half the adult hosts, as an own blocklist names them."""
  return [f'{host}{n}.example' for section in ('adult hosts', 'malware hosts')
          for host in _WORDS[section] for n in range(1, 10)
          if section == 'malware hosts' or n % 2]


def _published(rng: random.Random, good: Good) -> Page:
  """A good page as its server gives it, with now and then a mishap or an address in it."""
  label = _label(good.theme, page_lib.fault(good.title, good.blocks), good)
  dice, changes, url, blocks = rng.random(), {}, good.url, good.blocks
  if good.theme == 'school':
    pass  # it is dropped for its sums: what else befell it would not be seen
  elif dice < MISHAPS:
    oops = rng.choices(list(mishap.MISHAPS), mishap.MISHAPS.values())[0]
    changes = oops(rng, html.render(rng, good.site, good.title, blocks))
    label['label'] = oops.__name__
  elif dice < MISHAPS + INNOCENT:
    url = url.replace('.html', f'/{pick(rng, _WORDS["innocent"])}.html')
    label['label'] = 'innocent_url'
  elif dice < MISHAPS + INNOCENT + PRIVATE_DATA:
    blocks = blocks + _private_data(rng, good.site, label)
    label['label'] = 'private_data'
  body = html.render(rng, good.site, good.title, blocks).encode()
  return Page(url, **{'body': body, 'label': label, **changes})


def _label(label: str, drop: str | None, good: Good | None = None, language: str = 'en') -> dict:
  return {'label': label, 'keep': drop is None, 'drop': drop,
          'documents': good.documents if good else [], 'kinds': good.kinds if good else [],
          'language': language, 'duplicate_of': None, 'jaccard': None,
          'emails': [], 'ips': [], 'private_ips': []}


def _private_data(rng: random.Random, site: Site, label: dict) -> list[Block]:
  """Lines that hold addresses, one at least, which the label then names."""
  user = html.Gaps(rng, site.town)['first'].lower()
  told = {'emails': ('email', f'{user}.{rng.randint(2, 99)}@mail.{site.host}'),
          'ips': ('ip', _public_address(rng)),
          'private_ips': ('private ip', f'{pick(rng, ("192.168", "10.20", "172.16"))}.'
                                        f'{rng.randrange(256)}.{rng.randint(1, 254)}')}
  blocks = []
  for field in rng.sample(list(told), rng.randint(1, len(told))):
    section, address = told[field]
    label[field].append(address)
    blocks.append(('p', say(rng, _FORMS[section], html.Gaps(rng, site.town, address=address))))
  return blocks


def _public_address(rng: random.Random) -> str:
  while True:
    address = ipaddress.IPv4Address(rng.getrandbits(32))
    if address.is_global and not address.is_multicast:
      return str(address)


def _junk(rng: random.Random, seed: int, town: str, serial: str, recent: list) -> Page:
  """A page that a filter should drop, or one of the web's other answers."""
  kinds = {**junk.JUNK, **mishap.NO_PAGES, **(copies.COPIES if len(recent) > 1 else {})}
  kind = rng.choices(list(kinds), kinds.values())[0]
  site = page_lib.site(rng, seed, town, 'gazette')
  if kind in copies.COPIES:
    return _copy(rng, site, serial, kind, recent)
  name = path = kind.__name__
  if kind in (junk.adult, junk.malware):
    host = f'{pick(rng, _WORDS[f"{name} hosts"])}{rng.randint(1, 9)}.example'
    site, path = site._replace(host=host, name=host), pick(rng, _WORDS[f'{name} paths'])
  url = f'https://{site.host}/{path}/{serial}'
  if kind in mishap.NO_PAGES:
    return Page(url, label=_label(name, mishap.DROPS.get(kind, 'type')), **kind(rng, url))
  title, blocks, language = kind(rng, town)
  body = html.render(rng, site, title, blocks, language).encode()
  return Page(url, body, _label(name, junk.DROPS[kind], language=language))


def _copy(rng: random.Random, site: Site, serial: str, kind: str, recent: list) -> Page:
  """A good page once more, at another address: as it is, in another design, or partly changed."""
  good, page = recent.pop(rng.randrange(len(recent)))
  blocks = copies.changed(rng, kind, good.blocks, pick(rng, recent)[0].blocks)
  same = copies.jaccard(copies.text_of(good.title, good.blocks),
                        copies.text_of(good.title, blocks))
  label = {**_label(kind, 'duplicate' if same >= DUPLICATE else None, good),
           'duplicate_of': good.url, 'jaccard': round(same, 4)}
  body = html.render(rng, site, good.title, blocks).encode()
  return Page(f'https://mirror.{site.host}/{kind}/{serial}.html',
              page.body if kind == 'exact_copy' else body, label)
