"""1 to N: a sentence about an image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from ...lang import Definition
from ...topologies import EncoderDecoder, LinearBridge
from ..data.lexicon import Lexicon
from ..data.tables import named
from ..pictures import over_images
from ..sequences.dataset import Batches, Example, Pairs
from ..sequences.job import SequencesJob
from ..sequences.net import Net, decoder
from .captions import is_captions, read
from .config import CaptionConfig
from .encoder import ImageEncoder, grid
from .images import Images, is_images


class CaptionNet(Net):
    """The net, and the shape of an image."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, C] or [S, F]."""
        return tuple(self.layout["shape"])

    def reader(self, data: Pairs) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]:
        """Images [B, H, W, C] or features [B, S, F]; all of one size, and so without lengths."""
        sources, shape = data.sources, self.shape
        assert sources is not None

        def batch(indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
            rows = sources.pad(indices, 0).swapaxes(0, 1)
            return torch.from_numpy(np.ascontiguousarray(rows).reshape(len(indices), *shape)), None

        return batch


class CaptionJob(SequencesJob):
    """A text for an image."""

    config = CaptionConfig
    scores = ("BLEU", "CIDEr-D")
    source, column = "image", "caption"

    def examples(
        self, config: Any, paths: Sequence[str], layout: dict[str, Any], labelled: bool, data: Pairs | None
    ) -> Iterator[Example]:
        """Every image with its captions."""
        files = [Path(path) for path in paths]
        pictures = [path for path in files if is_images(path)]
        tables = [path for path in files if not is_images(path)]
        for path in tables:
            if not is_captions(path):
                raise DataError(
                    f"{path} is neither captions nor images; captions are .csv, .tsv, .txt, .json or .jsonl files, "
                    f"images are .npz files, folders, or .png and .jpg files"
                    + ("" if path.exists() else "; and it does not exist")
                )
        own = bool(pictures)
        if not own and data is not None:  # captions for validation or test, of the images of the training
            pictures = [Path(path) for path in config.data if is_images(Path(path))]
        if not pictures or (labelled and not tables):
            got, lacks = ("captions", "images") if not pictures else ("images", "captions")
            raise DataError(
                f"{', '.join(map(str, paths))}: there are {got}, but no {lacks}; name both, as in `captions.csv "
                f"images.npz` or `captions.csv folder`"
            )
        digest = None if data is None else data.hash
        captions = read(tables if labelled else (), config, digest)
        shape = tuple(layout["shape"]) if "shape" in layout else None
        images = Images(pictures, shape, config.width_and_height, digest)
        bare, called = [], list[str]()
        for picture in images:
            layout.setdefault("shape", list(picture.values.shape))
            if len(called) < 5:
                called.append(picture.keys[0])
            texts = [text for key in picture.keys for text in captions.take(key)]
            if labelled and not texts:
                bare.append(picture.keys)
                continue
            flat = picture.values if picture.values.ndim == 2 else picture.values.reshape(1, -1)
            yield Example(picture.place, flat, texts, picture.keys[0])
        if not config.partial and (lost := captions.left()):
            mend = f"the images are called {named(called)} and so on: add the image(s)"
            _leave_out(config, lost, "caption(s) name an image that is not there", mend)
        if own and data is not None and bare:
            others = [p for p in map(Path, config.validation_data + config.test_data) if not is_images(p)]
            known = read(others, config, None)
            unnamed = [keys[0] for keys in bare if not any(known.take(key) for key in keys)]
            if unnamed:
                _leave_out(config, unnamed, "image(s) have no caption", "write one for each")

    def encoder(self, config: Any, data: Pairs, layout: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Nothing but the shape of an image, which is in the layout."""
        return {}, config.hidden

    def model(self, config: Any, known: Mapping[str, Any], symbols: int) -> EncoderDecoder:
        """The encoder of images, and a decoder that begins with their mean."""
        encoder = ImageEncoder(tuple(known["layout"]["shape"]), config.hidden, config.dropout)
        cells = [Definition.from_json(one) for one in known["decoder"]]
        writes = decoder(config, cells, symbols, config.hidden)
        bridge = LinearBridge(config.hidden, writes.recurrent)
        return EncoderDecoder(encoder, writes, bridge=bridge, start=symbols - 2, end=symbols - 1)

    def net(self, config: Any, model: EncoderDecoder, known: Mapping[str, Any], lexicon: Lexicon) -> Net:
        """With the shape of an image."""
        return CaptionNet(config, model, known, lexicon)

    def described(self, config: Any, net: Any) -> str:
        """What it reads, and the places that attention looks over."""
        if len(net.shape) == 2:
            return "features {} x {}".format(*net.shape)
        H, W, C = net.shape
        sizes = grid(net.shape)
        return f"images {W} x {H} x {C}, {len(sizes)} convolutions to {sizes[-1][1]} x {sizes[-1][0]} places"

    def line(self, record: dict[str, Any]) -> str:
        """Name and caption."""
        return f"{record['image']}\t{record['caption']}"

    def draw(self, net: Net, batches: Batches, sources: Sequence[int], file: Path) -> Path:
        """Each image with its caption, and where each word looked."""
        assert isinstance(net, CaptionNet)
        found = []
        for k in sources:
            written, weights = net.looked(batches, k)
            image = batches.sources(np.array([k]))[0][0].numpy()
            places = (len(weights), *grid(net.shape)[-1]) if weights is not None and image.ndim == 3 else None
            seen = weights.reshape(places) if weights is not None and places is not None else weights
            found.append((image, written, seen))
        return over_images(found, file)


def _leave_out(config: Any, names: Sequence[str], what: str, mend: str) -> None:
    if not config.partial:
        raise DataError(f"{len(names)} {what}: {named(names, 5)}; {mend}, or leave them out with --partial")


JOB = CaptionJob()
