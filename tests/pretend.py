"""A device that is not there: whatever a GPU would refuse is refused, and all numbers are right.

Tensors "on" it are ordinary tensors of the CPU with a label, so loops that look at values run as
they would anywhere. The labels are carried along by a mode that sees every call of PyTorch.

Notable choices
- Refused are calls that mix both places. Allowed is what a GPU allows: a CPU tensor of a single
  number (0 dimensions), a copy, and CPU indices of a tensor of the device.
- What runs inside one call of PyTorch is not looked at: neither a backward pass nor the layers that
  it computes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

T = Tensor
Place = torch.device | None  # None: the CPU
NO_NUMBERS = {T.numpy, T.__array__}
# Calls that take tensors of both places.
COPIES = {T.copy_, T.data.__set__, T.grad.__set__, torch._has_compatible_shallow_copy_type}
INDEXING = {T.__getitem__, T.__setitem__, T.index_put_, T.index_put, torch.index_put}
# A single number on the CPU is no exception where tensors are put beside each other.
BESIDE = {torch.cat, torch.stack, torch.concat, torch.hstack, torch.vstack}


class MixedDevices(RuntimeError):
    """What a real device would refuse, in words that name the call."""


class PretendDevice(TorchFunctionMode):
    """In this context `device` exists. `float64=False`: as on `mps`, it has no such numbers."""

    def __init__(self, device: str = "cuda", float64: bool = True):
        super().__init__()
        self.place, self.float64 = torch.device(device), float64
        self.calls = 0  # of PyTorch, with at least one tensor of the device

    def __enter__(self) -> PretendDevice:
        # Python makes a parameter without asking a mode, so its label has to be copied here.
        self.make_parameter = nn.Parameter.__new__
        nn.Parameter.__new__ = staticmethod(self.new_parameter)
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        nn.Parameter.__new__ = staticmethod(self.make_parameter)
        super().__exit__(*failure)

    def new_parameter(self, cls: type, data: Any = None, requires_grad: bool = True) -> Tensor:
        """A parameter on the device of its data."""
        parameter = self.make_parameter(cls, data, requires_grad)
        if isinstance(data, Tensor):
            parameter.pretended = place_of(data)
        return parameter

    def __torch_function__(
        self, call: Callable, types: Any, args: Any = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        # 1. questions about a place
        if call == T.device.__get__:
            return place_of(args[0]) or call(*args)
        if call in (T.is_cuda.__get__, T.is_cpu.__get__):
            kind = "cuda" if call == T.is_cuda.__get__ else "cpu"
            return (place_of(args[0]) or torch.device("cpu")).type == kind
        # 2. moves
        if call in (T.to, T.cpu, T.cuda):
            return self.moved(call, args, kwargs)
        # 3. everything else: is it allowed, and where does the result belong?
        given = list(tensors([args, kwargs]))
        place = next(filter(None, map(place_of, given)), None)
        if place is not None:
            self.calls += 1
            self.check(call, args, given)
        if kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            kwargs["device"] = "cpu" if device.type == self.place.type else device
            place = self.place if device.type == self.place.type else None
        if place is not None and kwargs.get("generator") is not None:
            raise MixedDevices(f"{name_of(call)}: a generator of the CPU, numbers of {place}")
        result = call(*args, **kwargs)
        if call in (T.data.__set__, T.grad.__set__) and args[1] is not None:
            args[0].pretended = place_of(args[1])
        return self.labelled(result, place, given)

    def moved(self, call: Callable, args: Any, kwargs: dict) -> Tensor:
        """What `to` and its relatives return, which is the tensor itself if nothing changes."""
        source, *others = args
        if call in (T.cpu, T.cuda):
            others, kwargs = ["cpu" if call == T.cpu else "cuda"], {}
        place = place_of(source)
        for other in (*others, kwargs.get("device")):
            if isinstance(other, Tensor):
                place = place_of(other)
            elif isinstance(other, str | torch.device):
                place = self.place if torch.device(other).type == self.place.type else None
        # The tensor itself stays on the CPU, whatever its label will be.
        others = ["cpu" if isinstance(o, str | torch.device) else o for o in others]
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        result = T.to(source, *others, **kwargs)
        if place != place_of(source) and result is source:
            result = result.clone()  # memory of its own, as a move gives it
        return self.labelled(result, place, [source])

    def labelled(self, result: Any, place: Place, given: list[Tensor]) -> Any:
        """The result, each new tensor in it labelled with its place."""
        for tensor in tensors(result):
            if not any(tensor is other for other in given):
                tensor.pretended = place
            if place is not None and not self.float64 and tensor.dtype == torch.double:
                raise TypeError(f"{self.place} has no float64; use float32, or .cpu() first")
        return result

    def check(self, call: Callable, args: Any, given: list[Tensor]) -> None:
        """`MixedDevices` if a tensor of the CPU is where only tensors of the device may be."""
        if call in NO_NUMBERS:
            raise MixedDevices("a tensor of a device has no NumPy array; call .cpu() first")
        if call in COPIES:
            return
        if call in INDEXING:
            index = list(tensors(args[1]))
            if place_of(args[0]) is None and any(map(place_of, index)):
                raise MixedDevices(f"{name_of(call)}: a tensor of the CPU, indices of {self.place}")
            # A slice is filled by a copy, places that tensors name are not.
            given = [args[0], *tensors(args[2:])] if index else []
        for tensor in given:
            single = tensor.ndim == 0 and call not in BESIDE
            if place_of(tensor) is None and not single:
                shape = list(tensor.shape)
                raise MixedDevices(f"{name_of(call)}: {shape} is on the CPU, not on {self.place}")


def place_of(tensor: Tensor) -> Place:
    """The pretended device of a tensor."""
    return tensor.__dict__.get("pretended")


def tensors(values: Any) -> Iterable[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)


def name_of(call: Callable) -> str:
    return getattr(call, "__name__", str(call))
