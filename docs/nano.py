"""The language model of minillada in one file: network, training loss and decoding.

    python docs/nano.py "a thick seven leaning right"   # draws with the shipped weights
    python docs/nano.py --train 360                     # trains a model from nothing, then draws

Read it from top to bottom. The package does the same with experts, more tasks, more speed and
checked inputs. `tests/docs/test_nano.py` compares both: the same losses, and the same tokens. The
image tokenizer (pixels to codes and back, notebook 02) and the batches come from the package.

Letters: B rows of L tokens, V token ids, T tokens in the cache, R = B times the number of prompts.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torchvision.utils import save_image

WEIGHTS = Path(__file__).resolve().parent.parent / "data" / "weights"

# --- 1. The network: ids to logits (notebook 05) -------------------------------------------------


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x, positions, c):
    """Turn the first numbers of each head by angles that grow with the position (RoPE)."""
    dims = int(c["head_dim"] * c["partial_rotary_factor"])
    frequency = c["rope_theta"] ** (-torch.arange(0, dims, 2) / dims)
    angle = positions[:, None, :, None] * frequency.repeat(2)  # [B or 1, 1, L, dims]
    a, b = x[..., :dims].chunk(2, dim=-1)
    turned = x[..., :dims] * angle.cos() + torch.cat([-b, a], dim=-1) * angle.sin()
    return torch.cat([turned, x[..., dims:]], dim=-1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, width = c, c["head_dim"]
        self.heads = [c["num_attention_heads"], c["num_key_value_heads"], c["num_key_value_heads"]]
        self.query_key_value = linear(c["hidden_size"], sum(self.heads) * width)
        self.query_layernorm = nn.RMSNorm(width, c["rms_norm_eps"])
        self.key_layernorm = nn.RMSNorm(width, c["rms_norm_eps"])
        self.dense = linear(self.heads[0] * width, c["hidden_size"])

    def forward(self, x, positions, mask, past):
        """`past` holds keys and values of T earlier tokens; they are returned with the new ones."""
        parts = self.query_key_value(x).unflatten(-1, (-1, self.c["head_dim"])).transpose(1, 2)
        query, key, value = parts.split(self.heads, dim=1)  # [B, heads, L, head_dim] each
        query = rotate(self.query_layernorm(query), positions, self.c)
        key = rotate(self.key_layernorm(key), positions, self.c)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        # Several query heads share a key head and a value head (`enable_gqa`).
        mixed = F.scaled_dot_product_attention(query, key, value, mask[:, None], enable_gqa=True)
        return self.dense(mixed.transpose(1, 2).flatten(2)), (key, value)


class SwiGLU(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = linear(c["hidden_size"], c["intermediate_size"])
        self.up_proj = linear(c["hidden_size"], c["intermediate_size"])
        self.down_proj = linear(c["intermediate_size"], c["hidden_size"])

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.attention = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = SwiGLU(c)

    def forward(self, x, positions, mask, past):
        mixed, past = self.attention(self.input_layernorm(x), positions, mask, past)
        x = x + mixed  # tokens look at each other
        return x + self.mlp(self.post_attention_layernorm(x)), past  # each token by itself


class Backbone(nn.Module):
    """ids `[B, L]` to logits `[B, L, V]`. The logits at a place are about the token of that place.

    `mask` `[B or 1, L, T + L]` is True where a token (row) sees another one (column).
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = nn.Module()  # only for the official names of the weights
        self.model.word_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        layers = [Layer(config) for _ in range(config["num_hidden_layers"])]
        self.model.layers = nn.ModuleList(layers)
        self.model.norm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.lm_head = linear(config["hidden_size"], config["vocab_size"])
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=config["initializer_range"])

    def forward(self, ids, positions, mask, cache=None):
        """Logits, and the keys and values of every layer, for all T + L tokens."""
        x = self.model.word_embeddings(ids)
        cache, new = cache or [None] * len(self.model.layers), []
        for layer, past in zip(self.model.layers, cache, strict=True):
            x, past = layer(x, positions, mask, past)
            new.append(past)
        return self.lm_head(self.model.norm(x)), new


# --- 2. Training: every block is filled in, in one pass (notebooks 04 and 06) ---------------------


def training_mask(length, size):
    """Who sees whom in `[x_t ; x_0]`: L noisy tokens, then the same L tokens clean."""
    block = (torch.arange(length) // size).repeat(2)  # the block of each token
    clean = torch.arange(2 * length) >= length
    query, key = block[:, None], block[None, :]
    own = (clean[:, None] == clean) & (query == key)  # all see their own block, noisy or clean,
    return (own | (clean & (key < query)))[None]  # and the clean tokens of earlier blocks


def masked_nats(model, ids, masked, size, mask_id):
    """−log p of the right token, in nats, at every place that `masked` `[B, L]` hides: `[N]`."""
    length = ids.shape[1]
    both = torch.cat([ids.masked_fill(masked, mask_id), ids], dim=1)
    positions = torch.arange(length).repeat(2)[None]  # a noisy token stands where its clean one is
    logits, _ = model(both, positions, training_mask(length, size))
    return F.cross_entropy(logits[:, :length][masked], ids[masked], reduction="none")


def hide(targets, size, low=0.3):
    """Which of the `targets` `[B, L]` are hidden, and with which probability t: both `[B, L]`."""
    t = low + (1 - low) * torch.rand(len(targets), targets.shape[1] // size)  # one for each block
    t = t.repeat_interleave(size, dim=1)
    return targets & (torch.rand(t.shape) < t), t


def loss(model, ids, targets, masked, t, size, mask_id):
    """The 1/t loss, in nats a target."""
    # A token is hidden with probability t, so with the weight 1/t each counts 1 on average.
    return (masked_nats(model, ids, masked, size, mask_id) / t[masked]).sum() / targets.sum()


# --- 3. Decoding: block after block, each in several steps (notebook 08) --------------------------


def pick(logits, open_, temperature, generators):
    """A token for every place, and its probability: both `[B, block]`.

    Temperature 0 takes the likeliest token. Otherwise the rows with `open_` places draw samples.
    """
    p = logits.div(temperature or 1).softmax(-1)  # [B, block, V]
    noise = torch.ones_like(p)
    for row in open_.any(1).nonzero().flatten().tolist() if temperature else []:
        noise[row].exponential_(generator=generators[row])
    # If every e is exponentially distributed, the token with the largest p / e is a sample from p.
    token = (p / noise.clamp_min(1e-20)).argmax(-1)
    return token, p.gather(-1, token[..., None])[..., 0]


@torch.no_grad()
def generate(model, prompts, length, mask_id, allowed, generators, steps, **settings):
    """`length` ids after each prompt: `[B, length]`. Row r draws with `generators[r]`.

    `prompts` is `[whole]`, or for guidance `[whole, without words]`, each `[B, P]`. `allowed` `[V]`
    is True for the ids that may be written.
    """
    threshold, temperature, scale = (settings[k] for k in ("threshold", "temperature", "guidance"))
    size, (rows, start) = model.config["block_size"], prompts[0].shape
    # Shorter prompts get padding in front. So all answers begin at one place, and in one block.
    missing = [start - prompt.shape[1] for prompt in prompts]
    padding = torch.tensor(missing).repeat_interleave(rows)[:, None]  # [R, 1]
    ids = torch.cat([F.pad(p, (n, 0), value=mask_id) for p, n in zip(prompts, missing)])
    total = -(-(start + length) // size) * size  # whole blocks
    ids = F.pad(ids, (0, total - start), value=mask_id)  # [R, total]
    free = (torch.arange(total) >= start) & (torch.arange(total) < start + length)

    cache, known = None, 0  # keys and values of the first `known` tokens, which are final
    for first in range(start // size * size, start + length, size):
        here, step = slice(first, first + size), 0
        while (open_ := free[here] & (ids[:rows, here] == mask_id)).any():  # [B, block]
            # 1. One pass over what is not in the cache. A token sees its block and earlier ones.
            index = torch.arange(first + size)
            new = index[known:]
            mask = (new[:, None] // size >= index // size) & (index >= padding)[:, None]
            mask = mask | (new[:, None] == index)  # padding sees itself, else its softmax is 0/0
            positions = (new - padding).clamp_min(0)  # real tokens count from 0
            logits, cache = model(ids[:, known : first + size], positions, mask, cache)
            # The block changes with every step, so only what stands before it stays in the cache.
            cache, known = [(k[:, :, :first], v[:, :, :first]) for k, v in cache], first

            # 2. Guidance: what the words change counts `scale` times.
            whole, *others = logits[:, -size:].chunk(len(prompts))  # [B, block, V] each
            for without in others:
                whole = without + scale * (whole - without)
            whole = whole.masked_fill(~allowed, -math.inf)

            # 3. Commit the surest: a fixed number, and all above the threshold. Others stay masked.
            token, confidence = pick(whole, open_, temperature, generators)
            order = confidence.masked_fill(~open_, -1).argsort(dim=1, descending=True, stable=True)
            count = size // steps + (step < size % steps)
            commit = open_ & ((order.argsort(1) < count) | (confidence > threshold))
            for part in ids.split(rows):  # all prompts share the answer
                part[:, here] = torch.where(commit, token, part[:, here])
            step += 1
    return ids[:rows, start : start + length]


# --- 4. Text and images as one sequence (notebook 03) ---------------------------------------------


class Words:
    """Text pieces; the codes of images are the ids behind them."""

    def __init__(self, codes=512):
        # Special tokens count only where we write them. What a user types is plain text.
        self.special = Tokenizer.from_file(str(WEIGHTS / "mnist-text.json"))
        self.plain = Tokenizer.from_file(str(WEIGHTS / "mnist-text.json"))
        self.plain.encode_special_tokens = True
        self.offset = self.special.get_vocab_size()
        self.mask_id, self.eos_id = map(self.special.token_to_id, ("<|mask|>", "<|endoftext|>"))
        ids = torch.arange(self.offset + codes)
        # No text holds the bytes 0xFE and 0xFF (notebook 13 uses their ids).
        unused = [self.special.token_to_id(chr(byte)) for byte in (0xFE, 0xFF)]
        self.is_code = ids >= self.offset
        self.is_text = ~self.is_code & ~torch.isin(ids, torch.tensor([self.mask_id, *unused]))

    def prompt(self, system, user, header=""):
        """Ids of a system prompt, then of what a user gives (ids), then of our header."""
        before = f"<role>SYSTEM</role> {system} <role>HUMAN</role>"
        after = "<role>ASSISTANT</role>" + header
        return self.special.encode(before).ids + user + self.special.encode(after).ids


IMAGE = "<|image|><|reserved_token_4|><|reserved_token_4|><boi>"  # 4 by 4 codes follow


def draw(model, words, caption, seed=0, count=1, **settings):
    """Codes `[count, 4, 4]` of drawings of one caption."""
    settings = dict(steps=8, threshold=1.0, temperature=1.0, guidance=1.5) | settings
    system = "You are a text-to-image generation assistant."
    users = words.plain.encode(caption).ids, words.special.encode("<uncondition>").ids
    prompts = [torch.tensor([words.prompt(system, user, IMAGE)] * count) for user in users]
    generators = [torch.Generator().manual_seed(seed + row) for row in range(count)]
    ids = generate(model, prompts, 16, words.mask_id, words.is_code, generators, **settings)
    return (ids - words.offset).view(count, 4, 4)


def describe(model, words, codes):
    """The caption of an image, from its codes `[4, 4]`."""
    image = words.special.encode(IMAGE).ids + (codes.flatten() + words.offset).tolist()
    user = image + words.special.encode("<|/image|>").ids
    user += words.plain.encode("Describe the image.").ids
    prompt = torch.tensor([words.prompt("You are a multimodal understanding assistant.", user)])
    settings = dict(steps=16, threshold=0.95, temperature=0.0, guidance=1.0)
    ids = generate(model, [prompt], 16, words.mask_id, words.is_text, [None], **settings)[0]
    return words.special.decode(ids[: (*ids.tolist(), words.eos_id).index(words.eos_id)].tolist())


# --- 5. Use it ------------------------------------------------------------------------------------


def load(name="mnist"):
    """A shipped backbone, with the sizes that its JSON names."""
    info = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    model = Backbone(info["config"])
    model.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))  # float16 there
    return model.eval()


@torch.no_grad()
def start_image_rows(model, codebook, offset):
    """Begin the rows of the image codes at the `codebook` `[K, C]`, instead of at random.

    Similar codes then get similar logits. What is learned about one helps its neighbours at once.
    """
    centred = codebook - codebook.mean(0)
    centred = centred / centred.norm(dim=1).mean()
    size, std = model.config["hidden_size"], model.config["initializer_range"]
    for rows in (model.model.word_embeddings.weight, model.lm_head.weight):
        rows[offset:] = centred @ (torch.randn(codebook.shape[1], size) * std)


def train(tokenizer, steps, rate=3e-3, warmup=50):
    """A small backbone that learns to draw, from the batches of `minillada train mnist-cpu`."""
    from minillada.datasets.pool import stored_pool
    from minillada.datasets.table import MNIST
    from minillada.presets import get_preset
    from minillada.settings import to_dict
    from minillada.training.stream import mixture_batches
    from minillada.vocab import load_vocabulary

    preset, pool = get_preset("mnist-cpu"), stored_pool(MNIST, "train")
    vocab = load_vocabulary(len(tokenizer.embedding))
    model, size = Backbone(to_dict(preset.model)), preset.model.block_size
    start_image_rows(model, tokenizer.embedding, vocab.image_token_offset)
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(steps):
        # The learning rate goes up in a line, then down in half a cosine.
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / warmup) * cosine
        optimizer.zero_grad()
        batches, nats = mixture_batches(tokenizer, vocab, pool, preset, step), 0.0
        for ids, targets, *_ in batches:  # one for each length of sequences
            share = len(ids) / preset.training.batch_size
            masked, t = hide(targets, size)
            part = share * loss(model, ids, targets, masked, t, size, vocab.mask_id)
            part.backward()
            nats += part.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {nats:.2f} nats a token", flush=True)
    return model.eval()


def main(arguments=None):
    from minillada import checkpoint
    from minillada.vq import ImageTokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("caption", nargs="?", default="a thick seven leaning right")
    parser.add_argument("--train", type=int, metavar="STEPS", help="train a model from nothing")
    asked = parser.parse_args(arguments)
    tokenizer, _ = checkpoint.load_model("mnist-tokenizer", ImageTokenizer)
    torch.manual_seed(0)
    model = train(tokenizer, asked.train) if asked.train else load()
    words = Words()
    codes = draw(model, words, asked.caption, count=8)
    path = Path("outputs/nano.png")
    path.parent.mkdir(exist_ok=True)
    save_image(tokenizer.decode(codes), path)
    print(f"saved {path}")
    if not asked.train:  # the short training teaches drawing alone
        print("the first one is", describe(model, words, codes[0]))


if __name__ == "__main__":
    main()
