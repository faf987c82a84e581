"""One id space for text and images: byte-level BPE pieces and special tokens first, image codes behind an offset.

Notable choices
- Image code k is id `image_token_offset + k`, as in the official model (where the offset is 157,184).
- Bytes are the alphabet, so any string encodes, and decodes back exactly; nothing is ever "unknown".
- What a user types is always plain text: a caption that contains the characters `<|image|>` becomes ordinary pieces.
  Only `markup` turns such strings into special tokens, and it never assumes one id for a string: the official BPE
  splits some of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from .files import WEIGHTS_DIR

EOS, MASK = "<|endoftext|>", "<|mask|>"  # end of text is the padding token too, as in the official model


IMAGE, END_IMAGE, BOI = "<|image|>", "<|/image|>", "<boi>"


UNCONDITION = "<uncondition>"


ROLES = {role: f"<role>{role}</role>" for role in ("SYSTEM", "HUMAN", "ASSISTANT")}


def size_token(n: int) -> str:
    """The token that says "n grid units" for an image's height or width."""
    return f"<|reserved_token_{n}|>"


def special_tokens(max_grid: int = 16) -> list[str]:
    """Every special token of pieces for images of up to `max_grid` tokens a side, in id order."""
    sizes = [size_token(n) for n in range(1, max_grid + 1)]
    return [EOS, MASK, IMAGE, END_IMAGE, BOI, UNCONDITION, *ROLES.values(), *sizes]


SPECIAL_TOKENS = special_tokens()  # those of the shipped pieces


def train_bpe(texts: Iterable[str], vocab_size: int, max_grid: int = 16) -> Tokenizer:
    """Byte-level BPE with this project's special tokens, size tokens 1 to `max_grid` among them.

    `ValueError` if the texts do not yield exactly `vocab_size` entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special_tokens(max_grid),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"these texts yield {tokenizer.get_vocab_size()} entries, not {vocab_size}; ask for that number or add text")
    return tokenizer


class Vocabulary:
    """Text and image codes as integers. `tokenizer` is a `tokenizers.Tokenizer`; `codebook_size` the number of image codes."""

    def __init__(self, tokenizer: Tokenizer, codebook_size: int):
        self._markup = tokenizer
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.encode_special_tokens = True  # the library's name for: treat special strings as ordinary text
        self.image_token_offset = tokenizer.get_vocab_size()
        self.codebook_size = codebook_size
        self.size = self.image_token_offset + codebook_size
        self.eos_id, self.mask_id = self.markup(EOS)[0], self.markup(MASK)[0]
        # No UTF-8 text contains the bytes 0xFE and 0xFF: as labels of `levenshtein` they mean operations, and no text can be confused.
        self.delete_id, self.insert_id = (tokenizer.token_to_id(chr(byte)) for byte in (0xFE, 0xFF))

    @classmethod
    def from_file(cls, path: Path, codebook_size: int) -> Vocabulary:
        """Read the BPE from a `tokenizers` JSON file."""
        if not Path(path).exists():
            raise FileNotFoundError(f"no text tokenizer at {path}; restore it with `git checkout -- data`")
        try:
            return cls(Tokenizer.from_file(str(path)), codebook_size)
        except Exception as error:  # the library raises bare Exception on malformed JSON
            raise ValueError(f"{path} is not a tokenizer file ({error}); restore it with `git checkout -- data`") from None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a special token."""
        return self._plain.encode(text).ids

    def markup(self, text: str) -> list[int]:
        """Ids of trusted text in which special tokens count as such."""
        return self._markup.encode(text).ids

    def size_ids(self, n: int) -> list[int]:
        """Ids of the token for an image side of `n` tokens; `ValueError` if there is none."""
        if self.token_id(size_token(n)) is None:
            sizes = [size for size in range(1, 1025) if self.token_id(size_token(size)) is not None]
            raise ValueError(
                f"an image side of {n} tokens has no size token here: this vocabulary has sizes "
                f"{min(sizes, default=0)} to {max(sizes, default=0)}; train text pieces with more "
                f"(`minillada train mnist-text --set max_grid={n}`)"
            )
        return self.markup(size_token(n))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens by name and image codes as `<code k>`, so nothing is hidden."""
        parts: list[str] = []
        text: list[int] = []
        for i in [int(i) for i in ids]:
            if not 0 <= i < self.size:
                raise ValueError(f"token id {i} is outside the vocabulary of {self.size}")
            if i < self.image_token_offset:
                text.append(i)
            else:
                parts += [self._markup.decode(text, skip_special_tokens=False), f"<code {i - self.image_token_offset}>"]
                text = []
        return "".join([*parts, self._markup.decode(text, skip_special_tokens=False)])

    def token(self, i: int) -> str:
        """The text piece behind an id, as the BPE writes it."""
        return self._markup.id_to_token(i)

    def token_id(self, token: str) -> int | None:
        """The inverse of `token`; None if there is no such piece."""
        return self._markup.token_to_id(token)

    def image_ids(self, codes: Tensor) -> list[int]:
        """Raster-order ids of a `[h, w]` grid of codes."""
        if codes.numel() and not (codes.min() >= 0 and codes.max() < self.codebook_size):
            raise ValueError(f"image codes must lie in [0, {self.codebook_size}), got {int(codes.min())} to {int(codes.max())}")
        return (codes.flatten() + self.image_token_offset).tolist()

    def codes(self, ids: Tensor) -> Tensor:
        """The inverse of `image_ids`, for a tensor of any shape."""
        codes = ids - self.image_token_offset
        if codes.numel() and not (codes.min() >= 0 and codes.max() < self.codebook_size):
            raise ValueError("some ids are not image codes; only positions between <boi> and <|/image|> can be decoded to pixels")
        return codes

    def is_text(self) -> Tensor:
        """Boolean `[V]`: which ids a text may consist of, neither image codes nor editing operations."""
        text = ~self.is_image()
        text[[self.delete_id, self.insert_id]] = False
        return text

    def is_image(self) -> Tensor:
        """Boolean `[V]`: which ids are image codes."""
        return torch.arange(self.size) >= self.image_token_offset


def text_path(text: str = "mnist-text") -> Path:
    """Where shipped text pieces are."""
    return WEIGHTS_DIR / f"{text}.json"


def load_vocabulary(codebook_size: int, text: str = "mnist-text") -> Vocabulary:
    """The shipped text pieces called `text` with `codebook_size` image codes behind them."""
    return Vocabulary.from_file(text_path(text), codebook_size)
