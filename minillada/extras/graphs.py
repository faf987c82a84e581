"""CUDA graphs: a decoding step is recorded once, and then a single call plays it again.

A step of a small model is hundreds of kernels. Each is over within microseconds, which is less than
the host needs to launch the next one. A graph launches all of them at once.

    graphs = Graphs()  # keep it: what it has recorded serves later calls, too
    generate(backbone, prompt, 512, config, tokens, cache=graphs)
    uni.recorder = graphs  # for everything that a `Uni` does

Notable choices
- A graph repeats the same kernels at the same addresses. So every tensor that outlives a step stays
  where it is. The cache has all its room from the start; a mask hides what it does not hold yet.
- Passes have two widths, in tokens: the first one of a block also runs the block before it. Each
  width has a graph. The very first pass runs the whole prompt; if it is wider, it has no graph.
- The first pass of a width is the warm-up that PyTorch asks for. The second is recorded.
- Greedy decisions are part of the graph. Samples need random numbers of the CPU, and edits ask what
  they find, so both are decided outside, from the logits of the graph.
- Tokens are those of the usual loop. Logits differ in the last digits, because attention runs over
  the whole room.
- On a CPU nothing is recorded: the same steps run one call after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..batching import padded_length
from ..guidance import Branches, guided_logits, visible
from ..model import KVCache
from ..moe import MixtureOfExperts
from ..rows import Rows, Step, decide
from ..sampler import Loop

ROOM = 128  # the room of a cache is a multiple of this, so that similar lengths share graphs
KEEP = 8  # so many kinds of steps are kept; a new one replaces the oldest


class FullRoom(KVCache):
    """A cache with all its room from the start; new tokens are stored at `places` `[L]`."""

    places: Tensor

    def __init__(self, layers: int, room: int):
        super().__init__(layers)
        self.room = room

    def extend(self, layer: int, key: Tensor, value: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Store keys and values, and return those of the whole room; `keep` plays no part."""
        if self.keys[layer].shape[2] == 0:
            shape = (*key.shape[:2], self.room, key.shape[3])  # [R, n_kv, room, head_dim]
            # Zeros: what was never written is hidden, but must not be NaN.
            self.keys[layer], self.values[layer] = key.new_zeros(shape), value.new_zeros(shape)
        self.keys[layer].index_copy_(2, self.places, key)
        self.values[layer].index_copy_(2, self.places, value)
        return self.keys[layer], self.values[layer]


class FixedRows(Rows):
    """`Rows` with ids `[B, room]` and tensors that stay where they are."""

    def __init__(self, rows: Rows, room: int):
        self.config, self.tokens = rows.config, rows.tokens
        device = rows.ids.device
        if rows.tokens.allowed is not None:
            allowed = rows.tokens.allowed.to(device, copy=True)
            self.tokens = dataclasses.replace(rows.tokens, allowed=allowed)
        self.ids = torch.zeros(len(rows.ids), room, dtype=torch.long, device=device)
        self.free = torch.zeros_like(self.ids, dtype=torch.bool)
        self.is_said = torch.zeros(room, dtype=torch.bool, device=device)  # the answer's places
        self.done, self.unsettled = torch.zeros_like(rows.done), torch.zeros_like(rows.done)
        self.passes_without_mask = torch.zeros_like(rows.passes_without_mask)
        self.here: Tensor = torch.arange(self.config.block_size, device=device)

    def load(self, rows: Rows) -> None:
        """Begin with what other rows hold."""
        self.start, self.end = rows.start, rows.end
        total = rows.ids.shape[1]
        self.ids[:, :total] = rows.ids
        self.free[:, :total] = rows.free
        self.done.copy_(rows.done)
        self.is_said.zero_()
        self.is_said[self.start : self.end] = True
        if self.tokens.allowed is not None and rows.tokens.allowed is not None:
            self.tokens.allowed.copy_(rows.tokens.allowed)

    def enter(self, first: int) -> None:
        self.first = 0  # only the loop knows it: what is recorded must not depend on a number
        self.here += first - self.here[0]  # moved to the block, in place
        self.unsettled.fill_(self.config.edit_threshold < 1)
        self.passes_without_mask.zero_()

    def said(self) -> Tensor:
        """The answer at its places `[B, room]`, and −1, which is no token, everywhere else."""
        return self.ids.masked_fill(~self.is_said, -1)

    def answers(self) -> Tensor:
        """Ids `[B, length]`, which the next generation does not overwrite."""
        return super().answers()[:, self.start : self.end].clone()


class FixedBranches:
    """Logits of a block like those of `Branches`, at all its positions and at fixed addresses."""

    def __init__(self, branches: Branches, room: int):
        self.backbone, self.padded = branches.backbone, branches.padded
        self.block_size, self.branch_count = branches.block_size, branches.branch_count
        device = branches.prefix.device
        self.index = torch.arange(room, device=device)
        self.padding = branches.padding.clone()  # [R, 1]
        self.prefix = torch.zeros(len(branches.prefix), room, dtype=torch.long, device=device)
        self.in_prefix = torch.zeros(room, dtype=torch.bool, device=device)
        self.cache = FullRoom(self.backbone.config.num_hidden_layers, room)

    def load(self, branches: Branches) -> None:
        """Begin with the prompts of other branches. Nothing of the old cache is visible to them."""
        self.padding.copy_(branches.padding)
        self.prefix[:, : branches.start] = branches.prefix
        self.in_prefix.copy_(self.index < branches.start)

    def logits(self, rows: FixedRows, width: int) -> list[Tensor]:
        """Logits `[B · block, V]` for each branch, from a pass over `width` tokens.

        The block comes last. Those in front of it are final tokens that are not in the cache yet.
        """
        # 1. What each branch reads: its own prompt, and the common answer.
        offsets = torch.arange(self.block_size - width, self.block_size, device=rows.here.device)
        places = rows.here[0] + offsets  # [width], up to the end of the block
        ids = rows.ids[:, places].repeat(self.branch_count, 1)  # [R, width]
        if self.branch_count > 1:
            ids = torch.where(self.in_prefix[places], self.prefix[:, places], ids)

        # 2. Keys of later blocks are hidden, and with them all that was not written yet.
        positions = (places - self.padding).clamp_min(0)  # [R, width]
        padding = self.padding if self.padded else None
        mask = visible(places, self.index, self.block_size, padding)  # [R or 1, width, room]

        # 3. One forward pass, and the logits of the block.
        self.cache.places = places
        hidden = self.backbone.hidden_states(ids, mask, positions, self.cache)
        logits = self.backbone.logits(hidden[:, -self.block_size :])  # [R, block, V]
        return list(logits.flatten(0, 1).chunk(self.branch_count))


class FixedLoop(Loop):
    """A loop whose steps are recorded; `load` begins a generation of the same kind."""

    rows: FixedRows

    def __init__(self, loop: Loop, room: int):
        rows = FixedRows(loop.rows, room)
        super().__init__(rows, loop.branches, loop.generators, loop.steps_per_block)
        config, self.device = self.rows.config, self.rows.ids.device
        self.fixed = FixedBranches(loop.branches, room)
        # Decisions that need neither random numbers nor a look at what was found.
        self.greedy = not self.rows.is_random and config.edit_threshold == 1
        # The pace of a step as a tensor: a graph reads it anew each time.
        self.pace_now = torch.zeros((), dtype=torch.long, device=self.device)
        self.tape = Tape(self.device)

    def load(self, loop: Loop) -> None:
        """Begin with what another loop holds."""
        self.generators, self.steps_per_block = loop.generators, loop.steps_per_block
        self.rows.load(loop.rows)
        self.fixed.load(loop.branches)
        self.known = 0  # tokens that need no forward pass any more

    def enter(self, first: int) -> None:
        super().enter(first)
        self.first = first
        self.busy = bool(self.rows.open_positions()[0].any())

    def next_width(self) -> int:
        """Tokens of the next pass: the block, and the final ones in front of it not known yet."""
        width = self.first + self.fixed.block_size - self.known
        self.known = self.first  # after this pass
        return width

    def step(self, number: int) -> Step | None:
        if not self.greedy:
            step = super().step(number)
            return None if step is None else step._replace(start=self.first)
        if not self.busy:
            return None
        self.pace_now.fill_(self.pace(number))
        step, busy = self.play(self.decided)
        # The next step overwrites these tensors.
        step = Step(self.first, *(part.clone() for part in step[1:]))
        self.busy = bool(busy)
        return step

    def decided(self, width: int) -> tuple[Step, Tensor]:
        """A whole greedy step, and whether the block has masks left."""
        masked, _ = self.rows.open_positions()  # [B, block]
        count = self.count(masked, self.pace_now)
        everywhere = torch.ones_like(masked)
        step = decide(self.rows, self.every_logit(width), count, self.generators, everywhere)
        self.rows.write(step)
        # `decide` looked everywhere; a `Step` holds 0 where it could not change anything.
        step = step._replace(confidence=step.confidence.masked_fill(~masked, 0))
        return step, self.rows.open_positions()[0].any()

    def logits(self, number: int, where: Tensor) -> Tensor:
        every = self.play(self.every_logit)
        return every[where.flatten()]  # [N, V]

    def every_logit(self, width: int) -> Tensor:
        """Logits `[B · block, V]` of the tokens that may be written."""
        branches = self.fixed.logits(self.rows, width)
        return self.rows.tokens.restrict(guided_logits(branches, self.rows.config))

    def play(self, work: Callable[[int], Any]) -> Any:
        """The result of `work(width)`, recorded for the two widths that come again and again."""
        width = self.next_width()
        if self.device.type != "cuda" or width > 2 * self.fixed.block_size:
            return work(width)
        return self.tape.play(width, lambda: work(width))


class Tape:
    """Work that is done once, then recorded, then played again; each width has its recording."""

    def __init__(self, device: torch.device):
        self.device = device
        self.warm: set[int] = set()
        self.recorded: dict[int, tuple[torch.cuda.CUDAGraph, Any]] = {}

    def play(self, width: int, work: Callable[[], Any]) -> Any:
        """What `work` returns; from the second time on always the same tensors, with new values."""
        if width not in self.warm:
            self.warm.add(width)
            return self.warm_up(work)
        if width not in self.recorded:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # nothing is computed yet
                result = work()
            self.recorded[width] = graph, result
        graph, result = self.recorded[width]
        graph.replay()
        return result

    def warm_up(self, work: Callable[[], Any]) -> Any:
        """`work` beside the current stream, as PyTorch asks for before it records."""
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream(self.device)
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            result = work()
        current.wait_stream(beside)
        return result


class Graphs:
    """Steps of all kinds that were recorded; `sampler.generate(..., cache=Graphs())`."""

    def __init__(self) -> None:
        self.loops: dict[tuple, FixedLoop] = {}

    def attach(self, loop: Loop) -> Loop:
        """The same generation with recorded steps. `ValueError` for steps that no graph repeats."""
        rows, branches, backbone = loop.rows, loop.branches, loop.branches.backbone
        if any(isinstance(module, MixtureOfExperts) for module in backbone.modules()):
            raise ValueError(
                "a CUDA graph repeats the same products, but tokens choose their experts anew; "
                "decode a model with experts with cache=True"
            )
        if torch.is_autocast_enabled(rows.ids.device.type):
            raise ValueError(
                "autocast makes new copies of the weights, which a CUDA graph does not find; "
                "convert the model with .bfloat16() instead"
            )
        # Whatever is part of a graph: shapes, settings, and where the weights are.
        room = padded_length(rows.ids.shape[1], ROOM)
        weight, tokens = backbone.lm_head.weight, rows.tokens
        special = tokens.mask, tokens.eos, tokens.stop, tokens.allowed is None
        shapes = len(rows.ids), branches.branch_count, branches.padded, room
        key = (backbone, weight.data_ptr(), weight.dtype, rows.config, special, shapes)
        if key not in self.loops:
            if len(self.loops) == KEEP:
                del self.loops[next(iter(self.loops))]
            self.loops[key] = FixedLoop(loop, room)
        self.loops[key].load(loop)
        return self.loops[key]
