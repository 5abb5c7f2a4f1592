"""Private data in a text: e-mail and public IPv4 addresses are replaced, as in FineWeb."""

import ipaddress
import re

EMAILS = ('email@example.com', 'firstname.lastname@example.org')
IPS = ('192.0.2.1', '192.0.2.2', '198.51.100.1', '198.51.100.2', '203.0.113.1', '203.0.113.2')
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"  # bounds keep hostile texts from taking for ever
_LABEL = r'[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
_EMAIL = re.compile(rf'(?<![\w.]){_ATOM}(?:\.{_ATOM}){{0,8}}@(?:{_LABEL}\.){{1,8}}{_LABEL}')
_IP = re.compile(r'(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)')


def mask(text: str) -> tuple[str, int]:
  """The text with addresses replaced in turn, and how many there were.

  FineWeb puts six public addresses in place of IPs; ours are those reserved for documentation.
  """
  count = 0

  def email(_: re.Match) -> str:
    nonlocal count
    count += 1
    return EMAILS[(count - 1) % len(EMAILS)]

  def ip(found: re.Match) -> str:
    nonlocal count
    try:
      public = ipaddress.IPv4Address(found[0]).is_global
    except ValueError:
      public = False
    count += public
    return IPS[(count - 1) % len(IPS)] if public else found[0]

  if '@' in text:
    text = _EMAIL.sub(email, text)
  return _IP.sub(ip, text), count
