"""The official text tokenizer as a `Vocabulary`: words, special tokens and image codes as ids.

Notable choices
- Every special token is looked up by its string. An id that differs from the released one is fine;
  a string that is missing is an error that names it.
- One exception: where the file has no `<|mask|>` but the released number of text ids, the mask is
  id 156,895. The released code passes that number and never asks the tokenizer.
- A model of text alone (LLaDA2.0-mini and its siblings) has no `image_token_offset`: every id is
  text, and there are no image codes.
- The embedding has more text rows (157,184) than the file has pieces. The image codes begin behind
  these rows, at `image_token_offset` of `config.json`.
- `tokenizer.json` is used as it is; its regular expression is not mended, since the model was
  trained with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from ..vocab import BOI, END_IMAGE, EOS, IMAGE, MASK, Vocabulary, size_token
from .reading import find, read_json, whole

RELEASED_OFFSET = 157_184
RELEASED_MASK = 156_895
DEFAULT_GRID = 32  # codes along a side of the default drawing, 1024 pixels after the painter
OF_IMAGES = (IMAGE, END_IMAGE, BOI, size_token(DEFAULT_GRID))


class OfficialVocabulary(Vocabulary):
    """A `Vocabulary` whose image codes begin at `offset`, which leaves some text ids unused."""

    small_letters = False  # the official model has read all kinds of text

    def __init__(self, tokenizer: Tokenizer, offset: int, codebook_size: int, mask_id: int):
        super().__init__(tokenizer, codebook_size)
        self.image_token_offset = offset
        self.size = offset + codebook_size
        self.mask_id = mask_id

    def size_ids(self, n: int) -> list[int]:
        """As in `Vocabulary`; the advice is another, since nobody trains these pieces."""
        if self.token_id(size_token(n)) is None:
            raise ValueError(
                f"the checkpoint has no token for an image side of {n} codes; crop the photo to a "
                "usual shape, or ask for a smaller picture"
            )
        return super().size_ids(n)

    def is_text(self) -> Tensor:
        """Boolean `[V]`: every id before the codes. The official model has no editing ids."""
        return ~self.is_image()


def load_vocabulary(folder: Path) -> OfficialVocabulary:
    """The vocabulary of a checkpoint's folder, from `tokenizer.json` and `config.json`.

    `ValueError` if the two files contradict each other or a special token is missing.
    """
    folder = Path(folder)
    config_path = find(folder, "config.json")
    config = read_json(config_path)
    offset, codebook_size = code_range(config, config_path)
    path = find(folder, "tokenizer.json")
    tokenizer = read_text_tokenizer(path)
    check_pieces(tokenizer, offset, codebook_size, path)
    for token in (EOS, *OF_IMAGES) if codebook_size else (EOS,):
        special_id(tokenizer, token, offset, path)
    if offset == RELEASED_OFFSET and tokenizer.token_to_id(MASK) is None:
        mask_id = RELEASED_MASK
    else:
        mask_id = special_id(tokenizer, MASK, offset, path)
    vocab = OfficialVocabulary(tokenizer, offset, codebook_size, mask_id)
    # The end of text is the padding, too; another id means that the files are not of one model.
    padding = config.get("pad_token_id", vocab.eos_id)
    if padding != vocab.eos_id:
        raise ValueError(
            f"{config_path} pads with id {padding!r}, but {EOS} is {vocab.eos_id} in {path.name}; "
            "they belong to different models"
        )
    return vocab


def is_text_model(config: dict[str, Any], folder: Path) -> bool:
    """Whether `config.json` of a folder says nothing of images, and the folder has none."""
    return "image_token_offset" not in config and not (folder / "image_tokenizer").exists()


def code_range(config: dict[str, Any], path: Path) -> tuple[int, int]:
    """The first id of the image codes, and how many codes there are: 0 for a model of text."""
    size = whole(config, "vocab_size", path)
    if is_text_model(config, path.parent):
        return size, 0
    offset = whole(config, "image_token_offset", path)
    codebook_size = size - offset
    if codebook_size < 1:
        raise ValueError(f"{path}: vocab_size must be larger than image_token_offset")
    return offset, codebook_size


def check_codebook(name: str, size: int, folder: Path) -> None:
    """`ValueError` unless a part with so many codes fits the ids of a checkpoint's folder."""
    path = find(Path(folder), "config.json")
    _, codes = code_range(read_json(path), path)
    if size != codes:
        raise ValueError(
            f"the {name} has {size} image codes, and {path} has ids for {codes}; they belong to "
            "different models"
        )


def read_text_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizers` file. `ValueError` if it is not one."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception on malformed JSON
        raise ValueError(f"{path} is not a tokenizer file ({error}); download it again") from None


def check_pieces(tokenizer: Tokenizer, offset: int, codebook_size: int, path: Path) -> None:
    """`ValueError` for pieces of text where image codes should be, or beyond all ids."""
    added = tokenizer.get_added_tokens_decoder()
    for piece, i in tokenizer.get_vocab().items():
        named_code = i in added and i < offset + codebook_size  # a name for a code does no harm
        if i >= offset and not named_code:
            raise ValueError(
                f"{path} has the piece {piece!r} at id {i}, and by config.json only ids below "
                f"{offset} are text; they belong to different models"
            )


def special_id(tokenizer: Tokenizer, token: str, offset: int, path: Path) -> int:
    """The id of a special token. `ValueError` if its string does not become just this id."""
    i = tokenizer.token_to_id(token)
    if i is None or i >= offset or tokenizer.encode(token).ids != [i]:
        raise ValueError(f"{path} has no special token {token}; is it the file of another model?")
    return i
