"""Images: rows are pictures of one shape, read from files or generated."""

from collections.abc import Sequence

from distvae.config import BarsData, IdxData, ImageData, SpritesData
from distvae.data.dataset import Array, Combinations, Dataset, Factors, Labels
from distvae.data.family import DataFamily, Values, register
from distvae.data.images.media import ReadsImages
from distvae.data.survey import Survey

UNIT_INTERVAL = Values(low=0.0, high=1.0)
RECIPES = {"CIFAR-10": "cifar10-vae", "CelebA": "celeba-vsc"}
"""Recipes for data sets that a survey recognises by name."""


@register(IdxData)
class IdxFamily(ReadsImages, DataFamily[IdxData]):
    """Images in idx files."""

    values = UNIT_INTERVAL
    dividing = ("split", "holdout")

    def open(self, quiet: bool = False) -> Dataset:
        """Return the images by split."""
        from distvae.data.images.idx import open_images

        return open_images(self.config)

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every image by split; None if there are no files of labels."""
        from distvae.data.images.idx import read_labels

        return read_labels(self.config)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what is at a path if it is a folder of idx files."""
        from distvae.data.images.survey import survey_idx

        return survey_idx(path)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the images."""
        return f"distvae train mnist-vae --data {survey.quoted_path}"


@register(ImageData)
class ImageFamily(ReadsImages, DataFamily[ImageData]):
    """Images from CIFAR-10's files, an archive, or a folder of pictures."""

    values = UNIT_INTERVAL
    dividing = ("split", "sizes", "holdout", "test", "split_seed")

    def open(self, quiet: bool = False) -> Dataset:
        """Return the images by split."""
        from distvae.data.images.collection import open_images

        return open_images(self.config, quiet)

    def labels(self) -> dict[str, Labels] | None:
        """Return the class of every image by split; None if the source has no classes."""
        from distvae.data.images.collection import read_labels

        return read_labels(self.config)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what is at a path if it holds images in any of these forms."""
        from distvae.data.images.survey import survey_images

        return survey_images(path, decoded=False)

    @classmethod
    def examine(cls, path: str, settings: Sequence[str] = ()) -> Survey | None:
        """Return the same under some settings, with every picture of a folder decoded."""
        from distvae.data.images.survey import survey_images

        return survey_images(path, decoded=True, settings=settings)

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return the command that trains on the images, with the recipe of a known data set."""
        recipe = "mnist-vae data.kind=images"
        for name, own_recipe in RECIPES.items():
            if survey.layout.startswith(name):
                recipe = own_recipe
        return f"distvae train {recipe} --data {survey.quoted_path}"


@register(SpritesData)
class SpritesFamily(ReadsImages, DataFamily[SpritesData]):
    """Generated pictures of one shape each."""

    values = UNIT_INTERVAL

    def open(self, quiet: bool = False) -> Dataset:
        """Return the pictures by split."""
        from distvae.data.images.sprites import open_sprites

        return open_sprites(self.config)

    def labels(self) -> dict[str, Labels] | None:
        """Return the shape in every picture by split."""
        return {name: levels[:, 0] for name, levels in self.factors().levels.items()}

    def factors(self) -> Factors:
        """Return the level of every factor for every picture."""
        from distvae.data.images.sprites import factors

        return factors(self.config)


@register(BarsData)
class BarsFamily(DataFamily[BarsData]):
    """Generated pictures of bars under noise."""

    @property
    def probability(self) -> float:
        """Probability that a bar is active."""
        return self.config.active / (2 * self.config.size)

    @property
    def variance(self) -> float:
        """Variance of the noise."""
        return self.config.variance

    def open(self, quiet: bool = False) -> Dataset:
        """Return the pictures, the same ones for every split."""
        from distvae.data.images.bars import open_bars

        return open_bars(self.config)

    def causes(self) -> Array:
        """Return (2 * size, size^2): every bar alone."""
        from distvae.data.images.bars import all_bars

        return all_bars(self.config.size)

    def visible(self, active: Array) -> Array:
        """Return (N, 2 * size): the bars that can be seen when some are active."""
        from distvae.data.images.bars import visible_bars

        return visible_bars(active, self.config.correlated)

    def combinations(self) -> Combinations | None:
        """Return combinations of correlated bars; None for independent or too few bars."""
        from distvae.data.images.bars import COMBINATIONS

        largest = max(max(bars) for bars in (*COMBINATIONS.impossible, *COMBINATIONS.possible))
        if not self.config.correlated or self.config.size <= largest / 2:
            return None
        return COMBINATIONS
