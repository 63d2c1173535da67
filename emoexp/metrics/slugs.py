"""Slugs: short names of classes in plain ASCII, as parts of the names of metrics."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

MAX_LENGTH = 60


def slugs(class_names: Sequence[str]) -> dict[str, str]:
    """A short name for each class, made of a-z, 0-9, underscore and dash. No two classes get the same one.

    Names become lower-case ASCII, with an underscore for other characters. A dash and 8 hexadecimal digits of the
    class name's SHA-256 are added if two names would become equal, or if a name is empty, longer than MAX_LENGTH, or
    already ends like that. The order of the classes does not matter.
    """
    base_of = {name: _to_plain_ascii(name) for name in class_names}
    bases = list(base_of.values())
    slug_of = {}
    for name, base in base_of.items():
        is_unique = bases.count(base) == 1 and len(base) <= MAX_LENGTH and not re.search("-[0-9a-f]{8}$", base)
        digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        slug_of[name] = base if is_unique and base else f"{base[:MAX_LENGTH] or 'class'}-{digits}"
    assert len(set(slug_of.values())) == len(slug_of), slug_of
    return slug_of


def _to_plain_ascii(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9_-]+", "_", ascii_name).strip("_")
