"""The options of `data`, `split` and `augmentation`."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from emoexp.config import options
from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, ContentHash, Count, InsideShare, Length, Name, Node, Range, Seed, Share
from emoexp.config.option import Option, Own, Values, read_values

if TYPE_CHECKING:
    from emoexp.data.dataset import Dataset, Source
    from emoexp.training.augment import Policy

OnCorrupt = Literal["refuse", "drop"]
Leaks = Literal["warn", "drop", "refuse"]


@dataclass(frozen=True, kw_only=True)
class LongTail(Values):
    """The long tail that is made in the training part."""

    profile: Literal["none", "exponential", "step"]
    factor: Annotated[float, Range(least=1)]
    seed: Seed

    @staticmethod
    def kept(data: Node) -> "LongTail":
        """The long tail of the data that a run folder names; runs of early versions know none."""
        return read_values(LongTail, NO_TAIL.plain() | (data.get("long_tail") or {}), "data.long_tail")


NO_TAIL = LongTail(profile="none", factor=1.0, seed=0)


@dataclass(frozen=True, kw_only=True)
class DataSource(Option):
    """An option of conf/data. long_tail and leaks are of the split data, not of the reader."""

    folder: ClassVar[str] = "data"

    long_tail: LongTail
    leaks: Leaks

    def check(self, path: str) -> None:
        """Values of a long tail that is not made."""
        usual = options.option("data", self.name).get("long_tail", {})
        for key, value in self.long_tail.plain().items() if self.long_tail.profile == "none" else ():
            if value != usual.get(key, value):
                raise ValueError(
                    f"{path}.long_tail.{key}={value} does nothing where {path}.long_tail.profile is none; choose "
                    f"{path}.long_tail.profile=exponential or step as well"
                )

    def check_image(self, image_size: int) -> None:
        """Refuse images of a size that the source cannot give."""

    def lenient(self) -> "DataSource":
        """The same source, with unreadable images dropped where it can do so."""
        return self.having(on_corrupt="drop") if "on_corrupt" in self.plain() else self

    @property
    def label(self) -> str:
        """What the data are called in names of runs and in tables."""
        return self.name

    @abstractmethod
    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """The images, read. image_size: pixels a side. cache: the folder of packed images, None for none."""


@dataclass(frozen=True, kw_only=True)
class Brought(DataSource):
    """Images that somebody brings, which may change under one path: they are told apart by their content.

    dataset: their name. content: the hash of their pixels and labels (`Source.images_hash`); where it is None, training
    fills it in, except for the one copy that runs were named by before content belonged to a name (usual_contents).
    """

    usual_contents: ClassVar[tuple[str, ...]] = ()

    dataset: Name | None
    content: ContentHash | None

    @property
    def label(self) -> str:
        """See DataSource."""
        return self.dataset or self.name

    def identified(self, content: str) -> Self:
        """The same source with the hash of its content, as a run's identity holds it."""
        return self.having(content=None if content in self.usual_contents else content)


@dataclass(frozen=True, kw_only=True)
class Faces(DataSource):
    """conf/data/faces.yaml"""

    size: Count
    test_per_class: Count
    val: InsideShare
    imbalance_ratio: Annotated[float, Range(least=1)] | None
    label_noise: BelowOne
    intensity: Annotated[list[Share], Length(2, 2)]
    images_per_person: Annotated[float, Range(least=1)]
    nuisance: Annotated[float, Range(least=0, most=2)]
    seed: Seed

    def check(self, path: str) -> None:
        """The weakest expression comes first."""
        super().check(path)
        if self.intensity[0] > self.intensity[1]:
            raise ValueError(f"{path}.intensity is the weakest, then the strongest; it is {self.intensity}")

    def check_image(self, image_size: int) -> None:
        """A face cannot be drawn with fewer pixels."""
        if image_size < 16:
            raise ValueError(f"data=faces needs image_size of at least 16 to draw a face; it is {image_size}")

    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """See DataSource."""
        from emoexp.data.readers import faces

        return faces.load(
            image_size=image_size,
            channels=channels,
            cache=cache,
            size=self.size,
            test_per_class=self.test_per_class,
            val=self.val,
            imbalance_ratio=self.imbalance_ratio,
            label_noise=self.label_noise,
            intensity=self.intensity,
            images_per_person=self.images_per_person,
            nuisance=self.nuisance,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class FacialExpressions(Brought):
    """conf/data/facial_expressions.yaml"""

    usual_contents: ClassVar[tuple[str, ...]] = ("e00d8a41c171",)  # of benchmarks/results, 48×48

    root: str
    on_corrupt: OnCorrupt

    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """See DataSource."""
        from emoexp.data.readers import facial_expressions

        return facial_expressions.load(
            image_size=image_size, channels=channels, cache=cache, root=self.root, on_corrupt=self.on_corrupt
        )


@dataclass(frozen=True, kw_only=True)
class Fer2013(Brought):
    """conf/data/fer2013.yaml"""

    usual_contents: ClassVar[tuple[str, ...]] = (
        "bbbcf4bc4250",
        "746aa18f4dfc",
    )  # of benchmarks/results, 48 and 24 px

    root: str
    strict: bool
    on_corrupt: OnCorrupt

    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """See DataSource."""
        from emoexp.data.readers import fer2013

        return fer2013.load(
            image_size=image_size,
            channels=channels,
            cache=cache,
            root=self.root,
            strict=self.strict,
            on_corrupt=self.on_corrupt,
        )


@dataclass(frozen=True, kw_only=True)
class Folder(Brought):
    """conf/data/folder.yaml"""

    root: str
    layout: Literal["auto", "classes", "parts", "parts_inside"]
    follow_links: bool
    identity: str | None
    on_corrupt: OnCorrupt

    def check(self, path: str) -> None:
        """A pattern with one group."""
        super().check(path)
        if self.identity is None:
            return
        try:
            groups = re.compile(self.identity).groups
        except re.error as error:
            raise ValueError(f"{path}.identity={self.identity!r} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"{path}.identity={self.identity!r} has {groups} groups; exactly one must hold the person's name"
            )

    @property
    def label(self) -> str:
        """The name of the folder or archive where no other is given."""
        return self.dataset or _name_at(self.root) or self.name

    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """See DataSource."""
        from emoexp.data.readers import folder

        return folder.load(
            image_size=image_size,
            channels=channels,
            cache=cache,
            root=self.root,
            identity=self.identity,
            on_corrupt=self.on_corrupt,
            layout=self.layout,
            follow_links=self.follow_links,
        )


def _name_at(root: str) -> str:
    """What the data at a path are called: the folder's name, or an archive's without its endings."""
    path = Path(root).expanduser().resolve()
    return (
        path.name if path.is_dir() else re.sub(r"(\.(tar|zip|tgz|tbz2|txz|gz|bz2|xz|csv|tsv|parquet))+$", "", path.name)
    )


READERS = ("faces", "facial_expressions", "fer2013", "folder")  # modules


@dataclass(frozen=True, kw_only=True)
class OwnData(Own, Brought):
    """A source of somebody's own."""

    homes: ClassVar[Homes] = ours(
        "data.readers.faces", "data.readers.facial_expressions", "data.readers.fer2013", "data.readers.folder"
    )
    taken: ClassVar[tuple[str, ...]] = ("long_tail", "leaks", "dataset", "content")

    long_tail: LongTail = NO_TAIL
    leaks: Leaks = "warn"
    dataset: Name | None = None
    content: ContentHash | None = None

    def build(self, *, image_size: int, channels: int, cache: str | None) -> "Source":
        """See DataSource."""
        source: Source = self.made(image_size=image_size, channels=channels, cache=cache)
        return source


DataSource.own = OwnData
DataSource.known = {
    "faces": Faces,
    "facial_expressions": FacialExpressions,
    "fer2013": Fer2013,
    "folder": Folder,
}


@dataclass(frozen=True, kw_only=True)
class Split(Option):
    """An option of conf/split."""

    folder: ClassVar[str] = "split"

    seed: Seed

    @abstractmethod
    def build(self, source: "Source") -> "Dataset":
        """The images of a source in parts."""

    def keeps_parts(self, source: "Source") -> bool:
        """Whether a part that the source came with is exactly that part after the split."""
        return False


@dataclass(frozen=True, kw_only=True)
class Parts(Split):
    """conf/split/stratified.yaml and identity.yaml"""

    mode: Literal["official", "stratified", "identity"]
    val: InsideShare
    test: InsideShare

    def check(self, path: str) -> None:
        """Something is left for training."""
        if self.val + self.test >= 1:
            raise ValueError(
                f"{path}.val={self.val} and {path}.test={self.test} leave nothing for training: their sum is below 1"
            )

    def build(self, source: "Source") -> "Dataset":
        """See Split."""
        from emoexp.data import splits

        return splits.split(source, mode=self.mode, val=self.val, test=self.test, seed=self.seed)

    def keeps_parts(self, source: "Source") -> bool:
        """See Split."""
        return self.mode == "official"


@dataclass(frozen=True, kw_only=True)
class Official(Parts):
    """conf/split/official.yaml"""

    val_from: Literal["train", "test"]

    def check(self, path: str) -> None:
        """A test part is kept where validation is taken out of it."""
        super().check(path)
        if self.val_from == "test" and self.mode != "official":
            raise ValueError(
                f"{path}.val_from=test is for {path}.mode=official, which keeps a test part; it is {self.mode}"
            )

    def build(self, source: "Source") -> "Dataset":
        """See Split."""
        from emoexp.data import splits

        return splits.split(
            source, mode=self.mode, val=self.val, test=self.test, seed=self.seed, val_from=self.val_from
        )

    def keeps_parts(self, source: "Source") -> bool:
        """Not where a missing validation part is drawn from the test part."""
        has_train, has_val = bool((source.part == 0).any()), bool((source.part == 1).any())
        return super().keeps_parts(source) and not (self.val_from == "test" and has_train and not has_val)


@dataclass(frozen=True, kw_only=True)
class KFold(Split):
    """conf/split/kfold.yaml"""

    folds: Annotated[int, Range(least=3)]
    fold: Annotated[int, Range(least=0)]

    def check(self, path: str) -> None:
        """A fold that there is."""
        if self.fold >= self.folds:
            raise ValueError(
                f"{path}.fold is from 0 to {self.folds - 1}, one less than {path}.folds; it is {self.fold}"
            )

    def build(self, source: "Source") -> "Dataset":
        """See Split."""
        from emoexp.data import splits

        return splits.kfold(source, folds=self.folds, fold=self.fold, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class OwnSplit(Own, Split):
    """A split of somebody's own."""

    homes: ClassVar[Homes] = ours("data.splits")
    seed: Seed = 0

    def build(self, source: "Source") -> "Dataset":
        """See Split."""
        dataset: Dataset = self.made(source=source)
        return dataset


Split.own = OwnSplit
Split.known = {"identity": Parts, "kfold": KFold, "official": Official, "stratified": Parts}


@dataclass(frozen=True, kw_only=True)
class Augmentation(Option):
    """An option of conf/augmentation."""

    folder: ClassVar[str] = "augmentation"

    @abstractmethod
    def build(self) -> "Policy":
        """The ranges that transformations are drawn from."""


@dataclass(frozen=True, kw_only=True)
class Transformations(Augmentation):
    """conf/augmentation/light.yaml and its neighbours"""

    flip: Share
    rotate: Annotated[float, Range(least=0, most=180)]
    translate: Share
    translate_step: Share
    scale: Annotated[float, Range(least=0, most=0.9)]
    shear: Annotated[float, Range(least=0, most=60)]
    brightness: Share
    contrast: Share
    erase: Share
    erase_area: Share
    pad: Literal["edge", "black"]

    def check(self, path: str) -> None:
        """A step that something moves by."""
        if 0 < self.translate < self.translate_step:
            raise ValueError(
                f"{path}.translate_step={self.translate_step} is larger than {path}.translate={self.translate}, so "
                "that nothing would move; take a smaller translate_step, 0 for shifts of any size"
            )

    def build(self) -> "Policy":
        """See Augmentation."""
        from emoexp.training.augment import Policy

        return Policy(
            flip=self.flip,
            rotate=self.rotate,
            translate=self.translate,
            translate_step=self.translate_step,
            scale=self.scale,
            shear=self.shear,
            brightness=self.brightness,
            contrast=self.contrast,
            erase=self.erase,
            erase_area=self.erase_area,
            pad=self.pad,
        )


@dataclass(frozen=True, kw_only=True)
class OwnAugmentation(Own, Augmentation):
    """Transformations of somebody's own."""

    homes: ClassVar[Homes] = ours("training.augment")

    def build(self) -> "Policy":
        """See Augmentation."""
        policy: Policy = self.made()
        return policy


Augmentation.own = OwnAugmentation
Augmentation.known = dict.fromkeys(("cifar", "light", "none", "standard", "strong"), Transformations)
