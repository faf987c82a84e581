"""Exercises of notebook 17, data and sharded parallelism."""

import torch
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


@exercise("correct: 16 bytes a weight, and fsdp divides all of them")
def check_bytes(chance: Chance) -> Cases:
    """`function(weights, processes, sharding) -> int`: bytes that one process keeps.

    Weights, gradient and the two averages of AdamW, in float32. `sharding` is "ddp" or "fsdp", and
    the weights can be divided among the processes without remainder.
    """
    processes = chance.whole(5, 9)
    for share in (1000, 3000 + chance.whole(1, 500)):
        weights = share * processes
        for sharding in ("ddp", "fsdp"):
            right = 16 * weights if sharding == "ddp" else 16 * share
            three = right // 16 * 12
            mistakes = {
                "a weight has four numbers, and float32 four bytes: one of both is left out": (
                    right // 4
                ),
                "one of the four is missing: weights, gradient, and AdamW has two averages": three,
                "either AdamW's two averages are missing, or a float32 has 4 bytes and not 2": (
                    right // 2
                ),
                "ddp keeps everything, fsdp a share; yours is the other way round": (
                    16 * share if sharding == "ddp" else 16 * weights
                ),
            }
            if sharding == "ddp":
                mistakes["ddp: every process keeps all of it"] = 16 * share
            else:
                mistakes["fsdp divides all of it by the processes"] = 16 * weights
                hint = "fsdp divides weights and gradient, too, not the averages alone"
                mistakes[hint] = 8 * weights + 8 * share
                mistakes["fsdp divides the weights, too"] = 4 * weights + 12 * share
            yield Case((weights, processes, sharding), right, mistakes)


@exercise("correct: each token counts alike, whoever computed it")
def check_joined_gradient(chance: Chance) -> Cases:
    """`function(means, counts) -> [D]`: the gradient of the mean loss over all tokens.

    `means` is a list with the gradient `[D]` of the mean loss of each process, and `counts` a list
    of how many tokens each mean was taken over.
    """
    generator = chance.generator(17)
    for processes in (2, 3):
        means = list(torch.randn(processes, 4, generator=generator))
        counts = [chance.whole(1, 4) + 5 * rank for rank in range(processes)]
        table, weight = torch.stack(means), torch.tensor(counts).float()[:, None]
        mean, summed = table.mean(0), (weight * table).sum(0)
        shared = summed / processes
        upside_down = (table / weight).sum(0) / (1 / weight).sum()
        mistakes = {
            "that is the mean of the means: a process with few tokens counts too much": mean,
            "that is the sum of the means; each must be weighed by its tokens": table.sum(0),
            "that is the sum over tokens; divide it by the number of all tokens": summed,
            "divide by the number of all tokens, not by the number of processes": shared,
            "the other way round: a mean over many tokens counts more": upside_down,
        }
        yield Case((means, counts), summed / sum(counts), mistakes)


def cut(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(rows.split(sizes))


def fsdp_sizes(rows: int, processes: int) -> list[int]:
    """Rows of each process: as many as fit, ⌈rows / processes⌉, until none are left."""
    most = -(-rows // processes)
    return [max(0, min(most, rows - most * rank)) for rank in range(processes)]


@exercise("correct: a run saved by some processes can go on with others")
def check_reshard(chance: Chance) -> Cases:
    """`function(shards, processes) -> list`: the same matrix, cut for another number of processes.

    `shards` is a list with the rows `[n, D]` of each old process, in order. Each new process gets
    ⌈rows / processes⌉ rows, as long as there are some; the last ones may get fewer, or none.
    """
    generator = chance.generator(18)
    # Rows, old and new number of processes. A new process may get nothing, an old one have nothing.
    for rows, old, new in ((10 + 4 * chance.whole(0, 3), 2, 4), (6, 3, 4), (9, 4, 2), (8, 2, 4)):
        matrix = torch.randn(rows, 3, generator=generator)
        shards = cut(matrix, fsdp_sizes(rows, old))
        right = cut(matrix, fsdp_sizes(rows, new))
        floor = rows // new
        rounded_down = [floor] * (new - 1) + [rows - floor * (new - 1)]
        even = [len(part) for part in matrix.tensor_split(new)]
        turns = [matrix[rank::new] for rank in range(new)]
        most = -(-len(shards[0]) * old // new)
        by_first = [matrix[most * rank : most * (rank + 1)] for rank in range(new)]
        split = cut(matrix, fsdp_sizes(rows, 4))
        mistakes = {
            "rounded down: then some rows are left over at the end; round up": cut(
                matrix, rounded_down
            ),
            "as even as possible is another rule: each gets ⌈rows / processes⌉ while they last": (
                cut(matrix, even)
            ),
            "rows stay together in order: they are not dealt out in turn": turns,
            "the shards are in the wrong order": right[::-1],
            "the last old shards may have fewer rows than the first, or none": by_first,
            "cut it for `processes`, not always for four": split,
        }
        if not len(right[-1]):
            words = "a process without rows still gets a shard, of no rows"
            mistakes[words] = [shard for shard in right if len(shard)]
        yield Case((shards, new), right, mistakes)
