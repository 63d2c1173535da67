"""Errors of the operating system in one line: what was refused, of which file, and what helps."""

import errno
import traceback
from pathlib import Path

REMEDIES = {
    errno.ENOSPC: "free some space there, or give a folder on another disk with outputs=... or cache=...",
    errno.EDQUOT: "free some space there, or give a folder on another disk with outputs=... or cache=...",
    errno.EFBIG: "a limit of the process (ulimit -f) or of the file system; give another folder with outputs=...",
    errno.EROFS: "give a folder that can be written, with outputs=... or cache=...",
    errno.EACCES: "change its permissions, or give a folder that you may use with outputs=... or cache=...",
    errno.EPERM: "change its permissions, or give a folder that you may use with outputs=... or cache=...",
    errno.EMFILE: "raise the number of open files (ulimit -n), or use fewer workers",
    errno.ENFILE: "raise the number of open files of the system, or use fewer workers",
    errno.ENAMETOOLONG: "give a shorter path",
}
OUT_OF_MEMORY = "memory is exhausted: lower batch_size, image_size or the network's widths, or free some memory"
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "Unable to allocate")


def explained(error: BaseException) -> str | None:
    """What the system refused and what helps; None for an error that is not the system's."""
    number = getattr(error, "errno", None) or getattr(error.__cause__, "errno", None)
    exhausted = isinstance(error, MemoryError) or number == errno.ENOMEM
    if exhausted or (isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)):
        detail = str(error).strip().partition("\n")[0]
        return f"{OUT_OF_MEMORY} ({detail})" if detail else OUT_OF_MEMORY
    if not isinstance(error, OSError):
        return None
    remedy = REMEDIES.get(number or 0)
    return f"{_what_was_refused(error)}: {remedy}" if remedy else _what_was_refused(error)


def _what_was_refused(error: OSError) -> str:
    """The file and the system's words; where it names no file, the function that met the error."""
    if not error.strerror:
        return str(error)
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "emoexp" in Path(frame.filename).parts] or list(frames)
    return f"{error.strerror} in {ours[-1].name} of {Path(ours[-1].filename).name}" if ours else error.strerror
