"""Stacked experts: their names in a state dict, and that a forward pass copies none of them."""

import pytest
import torch
import torch.nn.functional as F
from helpers import generator, random_ids, tiny_backbone, tiny_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minillada import experts, moe
from minillada.model import Backbone

COUNT, HIDDEN, INNER = 6, 16, 12
SPARSE = dict(
    num_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, moe_intermediate_size=96
)


def test_every_expert_has_a_name_and_is_a_view():
    stacks = experts.Experts(COUNT, HIDDEN, INNER)
    state = stacks.state_dict(prefix="mlp.")
    assert len(state) == 3 * COUNT and len(list(stacks.parameters())) == 3
    assert list(state)[:3] == [f"mlp.0.{name}.weight" for name in experts.Expert._fields]
    state["mlp.4.down_proj.weight"].fill_(7)
    assert (stacks.down_proj[4] == 7).all() and not (stacks.down_proj[3] == 7).any()
    assert stacks.state_dict(keep_vars=True)["0.up_proj.weight"].requires_grad


def test_a_seed_gives_the_numbers_of_separate_modules():
    torch.manual_seed(3)
    stacks = experts.Experts(COUNT, HIDDEN, INNER)
    torch.manual_seed(3)
    apart = nn.ModuleList(moe.SwiGLU(HIDDEN, INNER) for _ in range(COUNT))
    for key, matrix in apart.state_dict().items():
        assert torch.equal(matrix, stacks.state_dict()[key])
    x = torch.randn(5, HIDDEN, generator=generator())
    assert torch.equal(stacks.apart()[2](x), apart[2](x))


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_comes_back(assign):
    stacks, other = (experts.Experts(COUNT, HIDDEN, INNER) for _ in range(2))
    other.load_state_dict(stacks.state_dict(), assign=assign)
    assert all(torch.equal(a, b) for a, b in zip(stacks.parameters(), other.parameters()))
    assert other.up_proj.data_ptr() != stacks.up_proj.data_ptr()


def test_faults_of_a_state_dict_are_named():
    stacks = experts.Experts(COUNT, HIDDEN, INNER)
    state = stacks.state_dict()
    lost = state.pop("5.up_proj.weight")
    with pytest.raises(RuntimeError, match=r"Missing.*5\.up_proj\.weight"):
        stacks.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected.*6\.up_proj\.weight"):
        stacks.load_state_dict(state | {"5.up_proj.weight": lost, "6.up_proj.weight": lost})
    with pytest.raises(RuntimeError, match=r"5\.up_proj\.weight has shape \[12, 15\], not"):
        stacks.load_state_dict(state | {"5.up_proj.weight": lost[:, 1:]})
    with pytest.raises(RuntimeError, match=r"5\.up_proj\.weight has shape \[16, 12\], not"):
        stacks.load_state_dict(state | {"5.up_proj.weight": lost.T})
    assert stacks.load_state_dict(state, strict=False).missing_keys == ["5.up_proj.weight"]


class LargestTensor(TorchDispatchMode):
    """Watches every operation: the largest new tensor that one of them makes, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        out = operation(*arguments, **(options or {}))
        old = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(arguments)}
        for tensor in tensors_of(out):
            if tensor.untyped_storage().data_ptr() not in old:
                self.largest = max(self.largest, tensor.numel())
        return out


def tensors_of(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_pass_copies_no_weights_of_experts(dtype):
    # One matrix of an expert has more numbers than any activation, so that a copy shows.
    backbone = tiny_backbone(hidden_size=64, **SPARSE).to(dtype)
    with LargestTensor() as watched, torch.no_grad():
        backbone(random_ids(1, 8))
    matrix = backbone.model.layers[1].mlp.experts.gate_proj[0]
    assert 0 < watched.largest < matrix.numel()
    with LargestTensor() as watched:  # and the watch would see one
        torch.stack(list(backbone.model.layers[1].mlp.experts.gate_proj))
    assert watched.largest >= 8 * matrix.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures the memory of a GPU")
def test_a_forward_pass_on_a_gpu_copies_no_weights_of_experts():
    wide = SPARSE | dict(num_experts=64, moe_intermediate_size=512)
    backbone = tiny_backbone(hidden_size=256, **wide).cuda().bfloat16()
    ids = random_ids(1, 8).cuda()
    with torch.no_grad():
        backbone(ids)  # libraries take their memory now
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        backbone(ids)
    stack = backbone.model.layers[1].mlp.experts.gate_proj
    assert torch.cuda.max_memory_allocated() - before < stack.nbytes / 4


def test_weights_keep_the_digits_of_float32():
    """Two experts say the opposite; weights of 1 + 2⁻¹⁰ and 1, alike in bfloat16, leave 2⁻¹⁰."""
    stacks = moe.MixtureOfExperts(tiny_config(**SPARSE)).bfloat16().experts
    with torch.no_grad():
        for stack in (stacks.gate_proj, stacks.up_proj, stacks.down_proj):
            stack[1] = stack[0]
        stacks.down_proj[1] *= -1
    x = torch.randn(9, 16, generator=generator()).bfloat16()
    chosen = torch.tensor([[0, 1]]).expand(9, 2)
    weights = torch.tensor([[1 + 2**-10, 1.0]]).expand(9, 2)
    ways = [experts.combine_dense, experts.combine_grouped]
    ways += [experts.combine_at_once] if hasattr(F, "grouped_mm") else []
    for combine in ways:
        said = combine(stacks, x, chosen[:, :1], torch.ones(9, 1))
        assert said.any() and torch.equal(combine(stacks, x, chosen, weights), said * 2**-10)


def test_products_in_bfloat16_are_summed_in_float32():
    mixture = moe.MixtureOfExperts(tiny_config(**SPARSE)).bfloat16().eval()
    x = torch.randn(9, 16, generator=generator()).bfloat16()
    chosen, weights = mixture.gate(x)
    expected = torch.zeros(9, 16)
    for token in range(9):
        for number, weight in zip(chosen[token].tolist(), weights[token]):
            expected[token] += weight * mixture.experts.apart()[number](x[token]).float()
    for combine in (experts.combine_grouped, experts.combine_dense):
        out = combine(mixture.experts, x, chosen, weights)
        assert out.dtype == torch.bfloat16
        assert torch.allclose(out.float(), expected, rtol=2**-7, atol=1e-3)
    if hasattr(F, "grouped_mm"):  # weights of float32 are multiplied in the type of `x`, too
        wide = moe.MixtureOfExperts(tiny_config(**SPARSE)).eval()
        wide.load_state_dict(mixture.state_dict())
        out = experts.combine_at_once(wide.experts, x, chosen, weights)
        assert out.dtype == torch.bfloat16
        assert torch.allclose(out.float(), expected, rtol=2**-7, atol=1e-3)
    # The shared expert is added after the cast.
    routed = experts.combine(mixture.experts, x, chosen, weights)
    assert torch.equal(mixture(x), routed + mixture.shared_experts(x))


def test_a_model_of_float64_runs():
    backbone, ids = tiny_backbone(**SPARSE), random_ids(2, 8)
    with torch.no_grad():
        expected, exact = backbone(ids), backbone.double()(ids)
    torch.testing.assert_close(exact.float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [9, 0])
def test_weights_of_float64_are_summed_in_float64(rows):
    stacks = experts.Experts(8, hidden=16, inner=12).double()
    x = torch.randn(rows, 16, dtype=torch.double, generator=generator())
    chosen = torch.rand(rows, 8, generator=generator()).topk(2).indices
    weights = torch.rand(rows, 2, dtype=torch.double, generator=generator())
    dense = experts.combine_dense(stacks, x, chosen, weights)
    assert dense.dtype == torch.double
    torch.testing.assert_close(dense, experts.combine_grouped(stacks, x, chosen, weights))


def test_experts_on_meta_need_no_memory():
    with torch.device("meta"):
        backbone = Backbone(tiny_config(**SPARSE | dict(num_experts=4096)))
    assert backbone.model.layers[1].mlp.experts.up_proj.is_meta
    state = tiny_backbone(**SPARSE | dict(num_experts=16)).state_dict()
    with torch.device("meta"):
        empty = Backbone(tiny_config(**SPARSE | dict(num_experts=16)))
    with pytest.raises(RuntimeError, match="has no memory to be read into"):
        empty.load_state_dict(state, assign=True)
