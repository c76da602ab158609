"""The settings of a captioner: checked values, no behaviour, and no torch."""

from typing import ClassVar

from pydantic import Field, model_validator

from ..sequences.config import SequencesConfig

_MOST = 2**24  # pixels of an image


class CaptionConfig(SequencesConfig):
    """Everything that decides a run of `cellwright train caption`, next to the data."""

    task: ClassVar[str] = "caption"
    about: ClassVar[str] = "Train a model that writes a sentence about an image."
    explained: ClassVar[str] = (
        "captions as .csv, .tsv, .json or .jsonl with an image's name and a caption per row, several per image as you "
        "like, or as in COCO, Flickr8k and Flickr30k; and images: a folder of PNG and JPEG files, or .npz with uint8 "
        "[N, H, W(, C)] or float [N, H, W, C] from 0 to 1, or features of images as float [N, F] or [N, S, F], and "
        "their names in an array `keys`"
    )

    image: str = Field("", description="the column with the image's name; else `image`, or the first one")
    caption: str = Field("", description="the column with the caption; else `caption`, or the second one")
    size: str = Field("", description="make every image so large, as in 200x50 (width x height); else all must agree")
    partial: bool = Field(False, description="leave out images without a caption and captions without an image")
    lower: bool = Field(True, description="read and write small letters only")

    @property
    def width_and_height(self) -> tuple[int, int] | None:
        """Of --size."""
        if not self.size:
            return None
        width, _, height = self.size.lower().partition("x")
        return int(width), int(height)

    @model_validator(mode="after")
    def _sizes(self) -> "CaptionConfig":
        parts = self.size.lower().split("x")
        if self.size and not (len(parts) == 2 and all(p.isascii() and p.isdigit() and int(p) for p in parts)):
            raise ValueError(f"--size {self.size}: expected width x height in pixels, for example 200x50")
        if self.size and int(parts[0]) * int(parts[1]) > _MOST:
            raise ValueError(f"--size {self.size}: expected at most {_MOST:,} pixels, for example 4096x4096")
        return self
