"""The files under a root, which is a folder, a zip archive or a tar archive; archives are not unpacked.

Nothing outside the root is ever read: names that lead out of it, absolute names, links and devices are refused. Links
of a folder of one's own are followed on request. Names that are not UTF-8 are shown with escapes.
"""

import hashlib
import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

MAX_ENTRIES = 10_000_000
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Tree:
    """The regular files under a root.

    names: relative, with forward slashes, sorted. folders: those that a folder holds or an archive lists, empty ones
    too. read_many: name and content of each of some files, in the order that is fastest to read; a content is cut
    off after the given number of bytes.
    """

    root: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]
    read_many: Callable[[Iterable[str], int], Iterator[tuple[str, bytes]]]

    def read(self, name: str, limit: int) -> bytes:
        """One file's content, at most `limit` bytes of it."""
        return next(self.read_many([name], limit))[1]


def existing_path(root: str, source: str, what: str) -> Path:
    """The root as a path.

    Args:
        source: name of the option of conf/data. what: the files that it reads, for the message.

    Raises:
        ValueError: there is nothing at that path.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise ValueError(
            f"data={source} looks for {what} and finds nothing at {path.absolute()}; "
            f"say where it is with data.root=<folder or archive>"
        )
    return path


def stamp(root: Path, *, follow_links: bool = False) -> str:
    """A text that changes when a file under the root is added, removed or changed (by size and time of change)."""
    if root.is_file():
        about = root.stat()
        return f"{root.resolve()} {about.st_size} {about.st_mtime_ns}"
    sha = hashlib.sha256()
    for name, entry in _walk(root, follow_links)[0].items():
        about = entry.stat()
        sha.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return f"{root.resolve()} {sha.hexdigest()}"


@contextmanager
def open_tree(root: Path, *, follow_links: bool = False) -> Iterator[Tree]:
    """The files of a folder, a .zip or a .tar archive (plain or compressed). Any other file is a tree of one file.

    follow_links: read what links in a folder lead to, wherever that is; archives hold no links in any case.

    Raises:
        ValueError: for a damaged archive, and for entries that would leave the root.
    """
    name = root.name.casefold()
    try:
        if root.is_dir():
            yield _folder(root, follow_links)
        elif name.endswith(".zip"):
            with zipfile.ZipFile(root) as archive:
                yield _zip(root, archive)
        elif name.endswith(_TAR_SUFFIXES):
            with tarfile.open(root) as archive:
                yield _tar(root, archive)
        else:
            yield Tree(root, (root.name,), (), _reader({root.name: root}))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{root} is not an archive that can be read: {error}") from error


def _folder(root: Path, follow_links: bool) -> Tree:
    files, folders = _walk(root, follow_links)
    return Tree(root, tuple(files), folders, _reader({name: entry.path for name, entry in files.items()}))


def _reader(files: Mapping[str, str | Path]) -> Callable[[Iterable[str], int], Iterator[tuple[str, bytes]]]:
    def read_many(names: Iterable[str], limit: int) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with open(files[name], "rb") as file:  # noqa: PTH123 - a Path's own takes as long as decoding a small image
                size = os.fstat(file.fileno()).st_size  # else Python allocates a buffer of `limit` bytes first
                yield name, file.read(min(limit, size + 1))

    return read_many


def _walk(root: Path, follow_links: bool) -> tuple[dict[str, os.DirEntry[str]], tuple[str, ...]]:
    """The regular files below a folder, by sorted names, and its folders. A link may point to a file below it;
    follow_links: it may lead anywhere, but not to a folder that it lies in, which would have no end."""
    resolved_root = root.resolve()
    files: dict[str, os.DirEntry[str]] = {}
    folders, links = [], []
    pending: list[tuple[str, str, tuple[Path, ...]]] = [("", os.fspath(root), (resolved_root,))]
    while pending:
        prefix, folder, above = pending.pop()
        for entry in _entries(folder):
            name, is_link = prefix + printable(entry.name), entry.is_symlink()
            target = Path(entry.path).resolve() if is_link else None
            if _is_system(entry.name):
                continue
            if target is not None and not follow_links and (entry.is_dir() or not target.is_relative_to(resolved_root)):
                links.append(name)
            elif entry.is_dir(follow_symlinks=follow_links):
                if target is not None and target in above:
                    raise ValueError(f"{root}: the link {name} leads to a folder that it lies in; remove it")
                folders.append(name)
                pending.append((name + "/", entry.path, (*above, target or Path(entry.path).resolve())))
            elif entry.is_file():
                files[name] = entry
    if links:
        raise ValueError(
            f"{root} holds links to folders, or links that lead out of it: {_shorten(sorted(links))}. They "
            "are followed with data=folder data.follow_links=true (predict: follow_links=true)"
        )
    return dict(sorted(files.items())), tuple(sorted(folders))


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _zip(root: Path, archive: zipfile.ZipFile) -> Tree:
    name_of = _with_slashes(entry.filename for entry in archive.infolist())
    entries = [(name, entry) for entry, name in zip(archive.infolist(), name_of, strict=True) if name[-1:] != "/"]
    irregular_names = [
        name for name, entry in entries if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG)
    ]
    _check_names(root, [name for name, _ in entries], irregular_names)
    entry_of = {name: entry for name, entry in entries if not _is_system(name)}

    def read_many(names: Iterable[str], limit: int) -> Iterator[tuple[str, bytes]]:
        for name in sorted(names, key=lambda name: entry_of[name].header_offset):
            try:
                with archive.open(entry_of[name]) as file:
                    yield name, file.read(limit)
            except RuntimeError as error:  # what zipfile raises for an encrypted entry
                raise ValueError(f"{root}: {error}") from error

    folders = tuple(name.rstrip("/") for name in name_of if name[-1:] == "/")
    return Tree(root, tuple(sorted(entry_of)), folders, read_many)


def _tar(root: Path, archive: tarfile.TarFile) -> Tree:
    all_members = archive.getmembers()
    name_of = [printable(name).removeprefix("./") for name in _with_slashes(member.name for member in all_members)]
    files = [(name, member) for name, member in zip(name_of, all_members, strict=True) if not member.isdir()]
    _check_names(root, [name for name, _ in files], [name for name, member in files if not member.isreg()])
    member_of = {name: member for name, member in files if not _is_system(name)}

    def read_many(names: Iterable[str], limit: int) -> Iterator[tuple[str, bytes]]:
        for name in sorted(names, key=lambda name: member_of[name].offset_data):
            file = archive.extractfile(member_of[name])
            assert file is not None, "only regular files are listed"
            yield name, file.read(limit)

    folders = tuple(name for name, member in zip(name_of, all_members, strict=True) if member.isdir())
    return Tree(root, tuple(sorted(member_of)), folders, read_many)


def _with_slashes(names: Iterable[str]) -> list[str]:
    """The names of an archive's entries; those of an archive made on Windows, with slashes for backslashes.

    Such an archive has backslashes alone. Where both occur, a backslash is a letter of a name.
    """
    found = list(names)
    is_from_windows = any("\\" in name for name in found) and not any("/" in name for name in found)
    return [name.replace("\\", "/") for name in found] if is_from_windows else found


def _check_names(root: Path, names: list[str], irregular_names: list[str]) -> None:
    if len(names) > MAX_ENTRIES:
        raise ValueError(f"{root} holds {len(names)} files, more than the {MAX_ENTRIES} that are allowed")
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise ValueError(f"{root} holds several files of one name: {_shorten(repeated)}")
    outside_names = [name for name in names if leads_outside(name)]
    if outside_names:
        raise ValueError(f"{root} holds names that lead out of it, and is not read: {_shorten(outside_names)}")
    if irregular_names:
        raise ValueError(f"{root} holds links or devices, which are not read: {_shorten(irregular_names)}")


def leads_outside(name: str) -> bool:
    """Whether a name that a file gives (an archive, a table) leads out of the folder to which it is relative."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or PurePosixPath(name).is_absolute() or ".." in windows.parts)


def _is_system(name: str) -> bool:
    parts = name.split("/")
    return any((part.startswith(".") and part != ".") or part.casefold() in _SYSTEM for part in parts)


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
