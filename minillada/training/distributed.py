"""One training on several processes: who computes which rows, and who holds which weights.

    torchrun --nproc-per-node 2 -m minillada train mnist --sharding ddp

Notable choices
- Every process makes the whole batch of a step, with the same random numbers, and computes the loss
  of its own rows. So no token and no mask depends on how many processes there are.
- A loss is divided by numbers of the whole batch (`diffusion.cross_entropy`). So the gradients of
  the processes are added up. Their mean, PyTorch's habit, would weigh each process alike, although
  one may have more masked tokens than another.
- An image tokenizer is shared by ddp, too. Its codebook learns from the features of the whole
  batch, so they are sent (`all_rows`): every process moves its own copy in the same way.
- ddp: each process holds all weights and all averages of the optimiser (DistributedDataParallel).
  fsdp: each process holds 1/N of every parameter, gradient and average. A layer is gathered before
  it is used, and freed afterwards (FSDP2, `fully_shard`; ZeRO stage 3, arXiv 1910.02054).
- A state is the one file that one process would write, so a run goes on with any number of
  processes. Shards become this file by `torch.distributed.checkpoint`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..batching import Portion
from ..config import Preset, TrainingConfig
from ..model import Backbone
from .optim import make_optimizers
from .state import Learner, averages_of, put_averages

Sharding = Literal["none", "ddp", "fsdp"]
SHARDS = ".shards"  # folder beside a state, only while the state is written; then it is removed
Loss = Callable[..., tuple[Tensor, dict]]  # step, or step and portion -> loss and numbers to log


class LossModule(nn.Module):
    """A loss as a module, so that PyTorch sees when a step begins and which weights it uses."""

    def __init__(self, module: nn.Module, loss: Loss):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, step: int, portion: Portion) -> tuple[Tensor, dict]:
        return self.loss(step, portion)


@dataclass(frozen=True)
class Processes:
    """The processes that share a training, seen from one of them. The default is one process."""

    rank: int = 0  # the number of this process
    count: int = 1
    sharding: Sharding = "none"
    device: str = "cpu"  # of this process

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def portions(self, accumulate: int) -> list[Portion]:
        """The portions of a step that this process computes, one pass after the other."""
        of = self.count * accumulate
        return [Portion(number, of) for number in range(self.rank, of, self.count)]

    def alone(self, portion: Portion) -> bool:
        """Whether the loss gets the step alone: nobody shares it, and the portion is all of it."""
        return portion.of == 1 and self.sharding == "none"

    def total(self, numbers: list[float]) -> list[float]:
        """The sums of numbers over all processes. Every process must call it."""
        if self.count == 1:
            return numbers
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.add_up(sums)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Every process must call it."""
        return self.total([float(flag)])[0] > 0

    def agree(self, words: str) -> bool:
        """Whether all processes give the same words. Every process must call it."""
        # 40 bits: a float64 holds the sum over 8,192 processes exactly.
        number = int(hashlib.sha256(words.encode()).hexdigest()[:10], 16)
        is_mean = self.total([number])[0] == self.count * number
        return not self.any(not is_mean)  # if each is the mean of all, all are equal

    def add_up(self, numbers: Tensor) -> None:
        """Replace numbers by their sums over all processes. Every process must call it."""
        if self.count > 1:
            dist.all_reduce(numbers)

    def share(self, learner: Learner, loss: Loss, config: TrainingConfig) -> tuple[Learner, Loss]:
        """The learner as this process holds it, and the loss that takes part in the exchange."""
        if self.sharding == "ddp":
            wrapped = LossModule(learner.module, loss)
            # Buffers change by rules that are the same in every process, so none is sent. The
            # gradients lie in the buckets that are sent, and are not copied there. New versions of
            # PyTorch warn that the first setting has a new name, which old ones do not know.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
                return learner, nn.parallel.DistributedDataParallel(
                    wrapped, broadcast_buffers=False, gradient_as_bucket_view=True
                )
        if self.sharding == "fsdp":
            return sharded(learner, loss, config, self)
        return learner, loss

    def exchange(self, loss: Loss, last: bool) -> AbstractContextManager:
        """Inside, a backward pass adds up gradients over the processes.

        With ddp only in the `last` pass of a step; with fsdp always, because no process has room
        for a whole gradient.
        """
        if isinstance(loss, nn.parallel.DistributedDataParallel) and not last:
            return loss.no_sync()
        return nullcontext()

    def gathered(self, learner: Learner, config: TrainingConfig, folder: Path) -> Learner:
        """In the first process: the learner as one process would hold it. Every one must call it.

        Every process writes its shards into the folder; the first one reads them and removes them.
        """
        if self.sharding != "fsdp":
            return learner
        import torch.distributed.checkpoint as dcp

        shards = folder / SHARDS
        if self.is_first:
            shutil.rmtree(shards, ignore_errors=True)  # of a save that was interrupted
        dist.barrier()
        dcp.save(tensors_of(learner), checkpoint_id=shards)
        if not self.is_first:
            return learner
        whole = read_shards(shards, learner.module, config)
        shutil.rmtree(shards)
        return whole


# --- FSDP ----------------------------------------------------------------------------------------


def sharded(
    learner: Learner, loss: Loss, config: TrainingConfig, processes: Processes
) -> tuple[Learner, Loss]:
    """The learner of which each process keeps 1/N, and its loss."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module = learner.module
    assert isinstance(module, Backbone)
    averages = averages_of(learner.optimizers)
    mesh = init_device_mesh(torch.device(processes.device).type, (processes.count,))
    # 1. Each layer is gathered and freed by itself; embedding, norm and head stay for a whole step.
    for layer in module.model.layers:
        fully_shard(layer, mesh=mesh)
    wrapped = LossModule(module, loss)
    fully_shard(wrapped, mesh=mesh)
    # 2. The parameters are new objects, so the optimisers are made again, with their old averages.
    optimizers = make_optimizers(module, config)
    parameters: list[list[nn.Parameter]] = []  # of each optimiser
    for optimizer in optimizers:
        parameters.append([p for group in optimizer.param_groups for p in group["params"]])
    for key, value in averages.items():  # optimizer.NUMBER.PARAMETER.NAME
        _, number, index, _ = key.split(".")
        averages[key] = as_shard(value, parameters[int(number)][int(index)])
    put_averages(optimizers, averages)
    return Learner(module, optimizers), wrapped


def as_shard(value: Tensor, parameter: Any) -> Tensor:
    """What this process keeps of an average; a single number, such as the step, stays whole."""
    if value.ndim == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    # No `src_data_rank`: nothing is sent. Every process has the whole value and cuts out its part.
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def tensors_of(learner: Learner) -> dict[str, Tensor]:
    """Every tensor of a learner that training changes, by name."""
    tensors: dict[str, Tensor] = dict(learner.module.named_parameters())
    return tensors | dict(learner.module.named_buffers()) | averages_of(learner.optimizers)


def read_shards(folder: Path, module: nn.Module, config: TrainingConfig) -> Learner:
    """The learner whose shards were saved by `torch.distributed.checkpoint`, whole, on the CPU."""
    import torch.distributed.checkpoint as dcp

    # 1. all tensors, put together from the shards
    stored: dict[str, Any] = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {}
    for name, about in stored.items():
        tensors[name] = torch.empty(about.size, dtype=about.properties.dtype)
    dcp.load(tensors, checkpoint_id=folder, no_dist=True)
    # 2. a module and optimisers that hold them
    assert isinstance(module, Backbone)
    with torch.device("meta"):  # no memory, and no random numbers
        whole: nn.Module = Backbone(module.config)
    whole = whole.to_empty(device="cpu")
    for name, tensor in [*whole.named_parameters(), *whole.named_buffers()]:
        tensor.data.copy_(tensors.pop(name))
    optimizers = make_optimizers(whole, config)
    put_averages(optimizers, tensors)  # what is left
    return Learner(whole, optimizers)


def whole_norm(norm: Tensor) -> Tensor:
    """A norm of sharded gradients as a plain tensor, the same in all processes."""
    # Only a DTensor, PyTorch's sharded tensor, has this method.
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def all_rows(rows: Tensor, portion: Portion) -> Tensor:
    """The rows `[B, …]` of a whole batch; each process gives its portion, all equally many."""
    if portion.of == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(portion.of)]
    dist.all_gather(parts, rows.contiguous())  # one portion a process (`check_shared`)
    return torch.stack(parts, dim=1).flatten(0, 1)  # they were dealt like cards


# --- before the first step -----------------------------------------------------------------------


def local_device(name: str) -> str:
    """The device of this process: torchrun numbers the processes of a machine in LOCAL_RANK."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and launched() else name


def launched() -> bool:
    """Whether torchrun, or something that sets the same variables, started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


@contextmanager
def joined(sharding: str, device: str) -> Iterator[Processes]:
    """Inside, this process works together with those that torchrun started beside it.

    `ValueError` if the way to share does not fit how the process was started.
    """
    if sharding not in get_args(Sharding):
        names = ", ".join(get_args(Sharding))
        raise ValueError(f"no sharding is called {sharding!r}; choose one of {names}")
    if sharding == "none":
        if launched() and int(os.environ["WORLD_SIZE"]) > 1:
            raise ValueError(
                "several processes would train the same; share the work by --sharding ddp or fsdp"
            )
        yield Processes(device=device)
        return
    if not dist.is_available():
        raise ValueError(f"this PyTorch cannot share a training; leave --sharding {sharding} out")
    if not launched():
        raise ValueError(
            f"--sharding {sharding} needs several processes; start them with "
            "`torchrun --nproc-per-node N -m minillada train …`"
        )
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"several processes train on cpu or cuda, not on {kind}; use --device cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=torch.device(device))
    else:
        dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), sharding, device)  # type: ignore
    finally:
        dist.destroy_process_group()


def check_shared(preset: Preset, processes: Processes) -> None:
    """`ValueError` if a preset cannot be trained in portions, or not in this way."""
    training, sharding = preset.training, processes.sharding
    portions = processes.count * training.accumulate
    if portions == 1 and sharding == "none":
        return
    if preset.kind == "tokenizer":
        if sharding == "fsdp" or training.accumulate > 1:
            raise ValueError(
                "the codebook moves once a step, by all features of it; train an image tokenizer "
                "with --sharding ddp and without accumulate"
            )
        if training.batch_size % processes.count:
            raise ValueError(
                f"{processes.count} processes cannot share {training.batch_size} images equally; "
                "change batch_size"
            )
        return
    if preset.kind != "backbone":
        raise ValueError(
            f"{preset.name} is neither a backbone nor an image tokenizer, and only these are "
            "trained in portions; leave out --sharding and accumulate"
        )
    if portions > training.batch_size:
        raise ValueError(
            f"{portions} portions cannot share {training.batch_size} examples; accumulate times "
            "processes must be at most batch_size"
        )
    if training.loss.confidence_weight and portions > 1:
        raise ValueError(
            "confidence_weight divides by how many tokens of the whole batch are predicted right, "
            "which no portion knows; set it to 0, or train on one process without accumulate"
        )
    if training.mask_noise and portions > 1:
        raise ValueError(
            "mask_noise takes random numbers for the rows of one whole batch; set it to 0, or "
            "train on one process without accumulate"
        )
    if sharding == "fsdp" and training.optim.optimizer == "muon":
        raise ValueError(
            "Muon needs whole matrices, and fsdp cuts them into pieces; use --sharding ddp, or "
            "--set optimizer=adamw"
        )
    if sharding == "fsdp" and training.compile:
        raise ValueError("compile is not for --sharding fsdp; use --sharding ddp, or turn it off")
