"""What a masked model does without extra training: fill in a part of an image or of a sentence.

Notable choices
- Nothing new is learned. What is shown stands in the answer from the beginning, and the sampler
  fills in the masked rest (`answer` in `sampler.generate`). So what is shown stays, to the token.
- The borders of blocks are moved (`gather`): if the answer fits into one block, the masked part
  sees all that is shown. A row of which nothing is shown keeps the borders of drawing.
- The images are encoded before a part is hidden, and each code depends on the whole image. So the
  codes that are shown know something of what was in the hole.
- Nobody knows how many tokens a blank of a sentence has. Every number is tried. The sentence that
  the model finds likeliest wins: log p(x_1) + log p(x_2 | x_1) + …, its end included.
"""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor

from . import asking, layout
from .asking import Images
from .batching import padded_length
from .commit import Tokens, row_generators
from .config import SamplingConfig
from .guidance import open_branches, padding_of
from .painting import BATCH_SIZE
from .settings import changed
from .vocab import Vocabulary
from .writer import DESCRIBE, DRAW, Prompts, Traced, Writer

LONGEST = 4  # tokens that a blank may have; most words of captions have one
MOST_BLANKS = 3  # in a sentence: their lengths are tried in all combinations


class Filler(Writer):
    """A writer that fills in what is masked."""

    answer_length = 16  # tokens; the longest caption has 10 with its end

    def inpaint(
        self,
        images: Images,
        mask: Tensor,  # bool, True where to fill in: of pixels or of codes (`asking.read_mask`)
        caption: str | list[str] | None = None,
        *,
        seed: int = 0,
        **sampling,
    ) -> Tensor:
        """Images `[B, C, H, W]` with the masked part drawn anew; the codes of the rest are kept.

        Without a caption, the masked part is whatever suits the rest.
        """
        codes = self.encode(images)
        return self.inpaint_traced(codes, mask, caption, seed=seed, **sampling).images

    def inpaint_traced(
        self,
        codes: Tensor,  # [B, h, w]
        mask: Tensor,
        caption: str | list[str] | None = None,
        *,
        seed: int = 0,
        **sampling,
    ) -> Traced:
        """`inpaint` of images that are codes already; returns the new codes and all steps, too."""
        codes = asking.read_codes(codes, self.tokenizer).cpu()
        hidden = asking.read_mask(mask, len(codes), self.tokenizer).cpu()  # [B, h, w]
        base, grid = self.own(DRAW, "drawing"), self.tokenizer.grid
        # 1. prompts as for drawing; without a caption there is nothing that guidance strengthens
        if caption is None:
            if sampling.get("guidance") not in (None, 1):
                raise ValueError("guidance strengthens a caption; give one, or leave guidance out")
            base = changed(base, guidance=1.0)
            rows: list[Prompts] = [(layout.draw_prompt(self.vocab, None, grid),)] * len(codes)
        else:
            texts = asking.read_each(caption, len(codes), self.vocab)
            rows = [layout.draw_branches(self.vocab, text, grid) for text in texts]
        # 2. the shown codes as ids, and masks between them
        given = (codes + self.vocab.image_token_offset).masked_fill(hidden, self.vocab.mask_id)
        # 3. Rows of which something is shown gather: their borders are not those of rows that are
        # drawn whole. So there are two groups, that of row 0 first; without rows, an empty one.
        generators = row_generators(seed, len(rows))
        gathers = ~hidden.flatten(1).all(1)  # [B], True where something is shown
        filled, records = torch.zeros_like(codes, device=self.device), []
        groups = dict.fromkeys(gathers.tolist()) or [False]  # as keys, each value once, in order
        for gather in groups:
            places = (gathers == gather).nonzero().flatten().tolist()
            config = self.sampling(changed(base, gather=gather), **sampling)
            theirs = [rows[i] for i in places]
            streams = [generators[i] for i in places]
            part = given[places].flatten(1)
            filled[places], record = self.fill_images(theirs, config, streams, given=part)
            records.append(record._replace(rows=[places[i] for i in record.rows]))
        return Traced(self.decode(filled), filled, records[0])

    def infill(self, texts: str | list[str], images: Images, **sampling) -> list[str]:
        """Each text with its blanks filled in from its image: `a thick ___ leaning right`.

        A blank is `___` and stands for whole words. `ValueError` for a text without a blank, with
        too many of them, or with more tokens than an answer has.
        """
        asking.check_learned(self.info, "describe")
        for text in texts if isinstance(texts, list | tuple) else [texts]:
            if isinstance(text, str):
                between_blanks(text)  # a mistake is told before the images are encoded
        codes = self.encode(images).cpu()
        read = asking.read_each(texts, len(codes), self.vocab)
        config = self.sampling(changed(DESCRIBE, gather=True), **sampling)
        # 1. a row for every image and every length of its blanks
        prompts, masked, owners = [], [], []
        for number, (image, text) in enumerate(zip(codes, read)):
            for ids in candidates(self.vocab, text, self.answer_length):
                prompts.append(layout.describe_prompt(self.vocab, image))
                masked.append(ids)
                owners.append(number)
        if not masked:
            return []
        # 2. The blanks are filled in. Where the text ends is given, so no other end is written.
        allowed = self.vocab.is_text()
        allowed[self.vocab.eos_id] = False
        given = torch.tensor(masked, device="cpu")  # [N, answer_length]
        filled, _ = self.write([(ids,) for ids in prompts], given, config, self.tokens(allowed))
        # 3. of the sentences about one image, the likeliest
        scores: list[float] = []
        for first in range(0, len(filled), BATCH_SIZE):
            part = slice(first, first + BATCH_SIZE)
            prompt = torch.tensor(prompts[part], device=self.device)
            answer = torch.tensor(filled[part], device=self.device)
            scores += log_likelihood(self, prompt, answer, config).tolist()
        best: dict[int, int] = {}  # image -> the row of its best sentence
        for row, owner in enumerate(owners):
            if owner not in best or scores[row] > scores[best[owner]]:
                best[owner] = row
        eos = self.vocab.eos_id
        return [self.vocab.decode(i for i in filled[row] if i != eos) for row in best.values()]


def between_blanks(text: str) -> list[str]:
    """The parts of a text around its blanks; the space before a blank belongs to the blank."""
    parts = re.split(r" ?_+", text.strip())
    if re.search(r"[^\W_]_|_[^\W_]", text):  # a letter or a digit touches a blank
        raise ValueError(f"a blank stands for whole words; put spaces around ___ in {text!r}")
    if len(parts) == 1:
        raise ValueError(f"there is no blank in {text!r}; write ___ where words are missing")
    if not any(parts):
        raise ValueError("the text is only a blank; use `describe` for a whole caption")
    if len(parts) > MOST_BLANKS + 1:
        raise ValueError(f"{len(parts) - 1} blanks are too many; use {MOST_BLANKS} at most")
    return parts


def candidates(vocab: Vocabulary, text: str, length: int) -> list[list[int]]:
    """Ids of a text for every length of its blanks (masks); ends fill them up to `length`."""
    parts = [vocab.encode(part) for part in between_blanks(text)]
    found = []
    for sizes in itertools.product(range(1, LONGEST + 1), repeat=len(parts) - 1):
        ids = list(parts[0])
        for size, part in zip(sizes, parts[1:]):
            ids += [vocab.mask_id] * size + part
        if len(ids) < length:
            found.append(ids + [vocab.eos_id] * (length - len(ids)))
    if not found:
        raise ValueError(f"{text!r} is too long: an answer has {length} tokens; shorten it")
    return found


@torch.no_grad()
def log_likelihood(model: Writer, prompt: Tensor, answer: Tensor, config: SamplingConfig) -> Tensor:
    """log p `[B]` of answers `[B, L]` after prompts `[B, P]`, token by token from left to right.

    Each token is predicted from those before it (chain rule); those behind it are masked.
    """
    size, length = config.block_size, answer.shape[1]
    tokens = Tokens(model.vocab.mask_id, allowed=model.vocab.is_text())
    shift = padding_of(prompt.shape[1], length, config)
    alone = changed(config, guidance=1.0)  # one branch
    branches = open_branches(model.backbone, prompt, alone, tokens.mask, (), True, shift=shift)
    start = branches.start  # what stands before it is read from `branches`, not from the canvas
    total = padded_length(start + length, size)  # whole blocks
    canvas = torch.full((len(prompt), total), tokens.mask, device=prompt.device)
    score = torch.zeros(len(prompt), device=prompt.device)
    for index in range(start, start + length):
        first = index // size * size
        where = torch.zeros(len(prompt), size, dtype=torch.bool, device=prompt.device)
        where[:, index - first] = True  # one position a row
        logits = tokens.restrict(branches.logits(canvas, first, 0, where)[0])  # [B, V]
        token = answer[:, index - start]
        score += logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
        canvas[:, index] = token
    return score
