"""Which part of a name somebody registered: the zone, by the public suffix list."""

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList


@lru_cache(maxsize=4096)
def zone_of(name: str) -> str:
    """Return the registrable domain that ``name`` (A-labels, lower case) lies in.

    "mail.example.com" gives "example.com", "example.co.uk" itself. A name that is itself a public suffix, or
    that has but one label, is its own zone.
    """
    return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()  # parses 10 000 lines, so not before somebody asks
