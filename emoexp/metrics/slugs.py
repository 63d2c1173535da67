"""Class names as parts of metric names: any text in, few plain characters out."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

LENGTH = 60


def slugs(class_names: Sequence[str]) -> dict[str, str]:
    """A short name for each class of only a-z, 0-9, underscore and dash, different for different classes
    even where case does not count. Names that are plain already keep their own; those that lose something
    to another name or to the length limit of 60 get a dash and 8 hex digits of their SHA-256. The order of
    the classes does not matter.
    """
    base_of = {name: _plain(name) for name in class_names}
    bases = list(base_of.values())
    slug_of = {}
    for name, base in base_of.items():
        alone = bases.count(base) == 1 and len(base) <= LENGTH and not re.search("-[0-9a-f]{8}$", base)
        mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        slug_of[name] = base if alone and base else f"{base[:LENGTH] or 'class'}-{mark}"
    assert len(set(slug_of.values())) == len(slug_of), slug_of
    return slug_of


def _plain(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9_-]+", "_", ascii_name).strip("_")
