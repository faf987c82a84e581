"""One id space for text and images: pieces of text and special tokens first, then image codes.

Notable choices
- Image code k is id `image_token_offset + k`, as in the official model (offset 157,184 there).
- Text is cut into pieces by byte-level BPE (byte pair encoding: frequent neighbours are merged).
  Bytes are the alphabet, so every string has ids, and they give the string back exactly.
- What a user types is always plain text: the characters `<|image|>` in a caption become ordinary
  pieces. Only `markup` makes special tokens of such strings. It may return several ids for one
  string, because the BPE of the official model (the released LLaDA2.0-Uni) splits some of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer as TextTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from .files import Name, checksum, find, is_shipped, need_data
from .vq import check_image_codes

# The end of a text is the padding token, too, as in the official model.
EOS, MASK = "<|endoftext|>", "<|mask|>"
# Around the codes of an image (`layout.image_block`); BOI, "begin of image", directly before them.
IMAGE, END_IMAGE, BOI = "<|image|>", "<|/image|>", "<boi>"
UNCONDITION = "<uncondition>"  # in the place of words that are left out
# Who speaks: the system prompt, the user, the model.
ROLES = {role: f"<role>{role}</role>" for role in ("SYSTEM", "HUMAN", "ASSISTANT")}


def size_token(n: int) -> str:
    """The token for an image height or width of `n` codes."""
    return f"<|reserved_token_{n}|>"


def special_tokens(max_grid: int = 16) -> list[str]:
    """All special tokens in id order, with sizes for images of up to `max_grid` codes a side."""
    sizes = [size_token(n) for n in range(1, max_grid + 1)]
    return [EOS, MASK, IMAGE, END_IMAGE, BOI, UNCONDITION, *ROLES.values(), *sizes]


SPECIAL_TOKENS = special_tokens()  # those of the shipped pieces


def train_bpe(texts: Iterable[str], vocab_size: int, max_grid: int = 16) -> TextTokenizer:
    """Byte-level BPE with the special tokens of images up to `max_grid` codes a side.

    `ValueError` if the texts do not yield exactly `vocab_size` entries.
    """
    # 1. A space before a word belongs to its piece; none is put before the first word.
    bpe = TextTokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    # 2. Ids in this order: special tokens, the 256 bytes, then merges until `vocab_size` is full.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens(max_grid),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # 3. Few texts hold few pairs to merge, and then there are fewer entries.
    size = bpe.get_vocab_size()
    if size != vocab_size:
        raise ValueError(f"these texts yield {size} entries; set vocab_size to {size}")
    return bpe


class Vocabulary:
    """Text and image codes as integers: the pieces of a BPE, then `codebook_size` image codes."""

    # For `asking`, about the model that reads these ids:
    small_letters = True  # whether it knows small letters only
    numerals = False  # whether it was trained on numbers as numerals; `uni.load` sets it

    def __init__(self, bpe: TextTokenizer, codebook_size: int):
        # Two copies of the BPE: one reads special tokens as such, the other as plain text.
        self._markup = bpe
        self._plain = TextTokenizer.from_str(bpe.to_str())
        self._plain.encode_special_tokens = True  # the library's name for "as plain text"
        self.image_token_offset = bpe.get_vocab_size()
        self.codebook_size = codebook_size
        self.size = self.image_token_offset + codebook_size
        # In our pieces each of these two is one id. The official vocabulary sets its own mask id.
        self.eos_id, self.mask_id = self.markup(EOS)[0], self.markup(MASK)[0]
        # No UTF-8 text contains the bytes 0xFE and 0xFF, so these two pieces are free. They serve
        # as the operations "delete" and "insert" of `extras/levenshtein.py`, which corrects a
        # draft. (BPE writes every byte as a letter; these two as chr(0xFE) and chr(0xFF).)
        self.delete_id = bpe.token_to_id(chr(0xFE))
        self.insert_id = bpe.token_to_id(chr(0xFF))

    # --- text ---

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a special token."""
        return self._plain.encode(text).ids

    def markup(self, text: str) -> list[int]:
        """Ids of trusted text in which special tokens count as such."""
        return self._markup.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; a code is `<code k>`, an operation U+FFFD. `ValueError` if one is no id."""
        text = ""
        # Text pieces in a row are decoded together, because one letter may need several.
        pieces: list[int] = []
        for i in map(int, ids):
            if not 0 <= i < self.size:
                raise ValueError(f"token id {i} is outside the vocabulary of {self.size}")
            if i < self.image_token_offset:
                pieces.append(i)
                continue
            # An image code ends the row of pieces.
            text += self._markup.decode(pieces, skip_special_tokens=False)
            text += f"<code {i - self.image_token_offset}>"
            pieces = []
        return text + self._markup.decode(pieces, skip_special_tokens=False)

    def token(self, i: int) -> str:
        """The piece behind an id, as the BPE writes it; an empty string for an image code."""
        return self._markup.id_to_token(i) or ""

    def token_id(self, token: str) -> int | None:
        """The inverse of `token`; None if there is no such piece."""
        return self._markup.token_to_id(token)

    def size_ids(self, n: int) -> list[int]:
        """Ids that say an image side of `n` codes; `ValueError` if these pieces have none."""
        if self.token_id(size_token(n)) is None:
            # The message says which sizes there are; `TextConfig.max_grid` is at most 1024.
            known = [m for m in range(1, 1025) if self.token_id(size_token(m)) is not None]
            raise ValueError(
                f"an image side of {n} tokens has no size token here: this vocabulary has sizes "
                f"{min(known, default=0)} to {max(known, default=0)}; train text pieces with more "
                f"(`minillada train mnist-text --set max_grid={max(n, 1)}` and a larger vocab_size)"
            )
        return self.markup(size_token(n))

    # --- images ---

    def image_ids(self, codes: Tensor) -> list[int]:
        """Ids of codes `[h, w]`, or of any shape, row by row; `ValueError` for what is no code."""
        row = codes.flatten()
        check_image_codes(row[None, None], 1, len(row), self.codebook_size)  # as [1, 1, n]
        return (row + self.image_token_offset).tolist()

    def codes(self, ids: Tensor) -> Tensor:
        """The inverse of `image_ids`, for a tensor of any shape."""
        codes = ids - self.image_token_offset
        if not ((codes >= 0) & (codes < self.codebook_size)).all():
            raise ValueError(
                "some ids are not image codes; only positions between <boi> and <|/image|> "
                "can be decoded to pixels"
            )
        return codes

    def is_image(self) -> Tensor:
        """Boolean `[V]`: True for the ids that are image codes."""
        return torch.arange(self.size, device="cpu") >= self.image_token_offset

    def is_text(self) -> Tensor:
        """Boolean `[V]`: every id but image codes and operations; special tokens count as text."""
        text = ~self.is_image()
        text[[self.delete_id, self.insert_id]] = False
        return text


# --- files ---------------------------------------------------------------------------------------


def text_path(text: Name = "mnist-text") -> Path:
    """Where text pieces are: a shipped name, a .json file, or a run's folder (`files.find`)."""
    return find(text, ".json", "text.json") or Path(text)


def text_info(text: str) -> dict[str, str]:
    """The two fields of a backbone's JSON that say which text pieces it uses."""
    path = text_path(text)
    # An absolute path is right from every working folder.
    name = text if is_shipped(text, ".json") else str(path.absolute())
    return {"text": name, "text_sha256": checksum(path)}


def load_vocabulary(
    codebook_size: int, text: Name = "mnist-text", sha256: str | None = None
) -> Vocabulary:
    """Text pieces by name or path, with `codebook_size` image codes behind them.

    `FileNotFoundError`, or `ValueError` for no text pieces or a checksum other than `sha256`.
    """
    path = text_path(text)
    if not path.is_file():
        need_data()  # if the whole data folder is missing, this says so
        raise FileNotFoundError(f"no text pieces at {path}; `git checkout -- data` restores ours")
    # Other pieces would load without an error, but every id would mean something else.
    if sha256 is not None and checksum(path) != sha256:
        raise ValueError(f"{path} holds other text pieces than those of the model; restore them")
    try:
        # Python reads the file: the library refuses a path whose bytes are not valid UTF-8.
        bpe = TextTokenizer.from_str(path.read_text(encoding="utf-8"))
        # If EOS is no piece, `markup` cuts it into letters, and `<` would become `eos_id`.
        for token in [*special_tokens(0), chr(0xFE), chr(0xFF)]:
            if bpe.token_to_id(token) is None:
                raise ValueError(f"there is no piece {token}")
        return Vocabulary(bpe, codebook_size)
    except Exception as error:  # the library raises bare Exception on malformed JSON
        restore = "restore it with `git checkout -- data`"
        advice = restore if is_shipped(text, ".json") else "`minillada train mnist-text` makes one"
        raise ValueError(f"{path} is not a file of text pieces ({error}); {advice}") from None
