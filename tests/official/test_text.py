"""The official text tokenizer: looked up by string, checked against `config.json`."""

import json
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from minillada import layout
from minillada.official.text import load_vocabulary
from minillada.vocab import BOI, END_IMAGE, EOS, IMAGE, MASK, size_token

SPECIAL = ["<|role_end|>", BOI, EOS, IMAGE, MASK, END_IMAGE, size_token(32), size_token(4)]


def write(folder, special=SPECIAL, **changes):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a fox in the snow", "the fox sleeps"], trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = tokenizer.token_to_id(EOS)
    config = {"vocab_size": 400, "image_token_offset": 350, "pad_token_id": eos} | changes
    (folder / "config.json").write_text(json.dumps(config))
    return tokenizer


def test_ids_are_those_of_the_file(tmp_path):
    tokenizer = write(tmp_path)
    vocab = load_vocabulary(tmp_path)
    assert (vocab.image_token_offset, vocab.codebook_size, vocab.size) == (350, 50, 400)
    assert vocab.mask_id == tokenizer.token_to_id(MASK) and vocab.token(vocab.mask_id) == MASK
    assert vocab.eos_id == tokenizer.token_to_id(EOS)
    assert vocab.is_image().tolist() == [False] * 350 + [True] * 50
    assert torch.equal(vocab.is_text(), ~vocab.is_image())
    text = "a fox, ein Fuchs, 狐 <|image|>"
    assert vocab.decode(vocab.encode(text)) == text
    assert vocab.token_id(IMAGE) not in vocab.encode(text)  # what users type is plain text
    assert vocab.markup(f"{IMAGE}fox")[0] == vocab.token_id(IMAGE)
    assert vocab.decode([vocab.token_id(BOI), 350, 399]) == f"{BOI}<code 0><code 49>"


def test_the_uncondition_mark_is_split_as_the_file_says(tmp_path):
    tokenizer = write(tmp_path)
    vocab = load_vocabulary(tmp_path)
    assert vocab.markup("<uncondition>") == tokenizer.encode("<uncondition>").ids
    assert len(vocab.markup("<uncondition>")) > 1


def test_layouts_can_be_written_with_it(tmp_path):
    write(tmp_path)
    vocab = load_vocabulary(tmp_path)
    codes = torch.arange(16).reshape(4, 4)
    block = layout.image_block(vocab, codes)
    names = [vocab.token(i) for i in block[:4]]
    assert names == [IMAGE, size_token(4), size_token(4), BOI]
    assert block[4:-1] == list(range(350, 366)) and vocab.token(block[-1]) == END_IMAGE
    with pytest.raises(ValueError, match="no token for an image side of 5 codes"):
        layout.image_header(vocab, 5, 4)


@pytest.mark.parametrize("token", [EOS, MASK, IMAGE, END_IMAGE, BOI, size_token(32)])
def test_a_missing_special_token_is_named(tmp_path, token):
    write(tmp_path, [other for other in SPECIAL if other != token])
    with pytest.raises(ValueError, match="no special token <") as error:
        load_vocabulary(tmp_path)
    assert token in str(error.value)


def test_the_released_mask_where_the_file_does_not_name_it(tmp_path):
    special = [token for token in SPECIAL if token != MASK]
    write(tmp_path, special, image_token_offset=157_184, vocab_size=173_568)
    assert load_vocabulary(tmp_path).mask_id == 156_895
    write(tmp_path, image_token_offset=157_184, vocab_size=173_568)
    assert load_vocabulary(tmp_path).mask_id != 156_895  # a name counts more


def forget(folder, key):
    """Take a setting out of `config.json`."""
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_of_text_alone_needs_no_token_of_images(tmp_path):
    tokenizer = write(tmp_path, [MASK, EOS])
    forget(tmp_path, "image_token_offset")
    vocab = load_vocabulary(tmp_path)
    assert (vocab.image_token_offset, vocab.codebook_size, vocab.size) == (400, 0, 400)
    assert vocab.mask_id == tokenizer.token_to_id(MASK)
    write(tmp_path, [EOS], vocab_size=157_184)  # the released number, without a name for the mask
    forget(tmp_path, "image_token_offset")
    assert load_vocabulary(tmp_path).mask_id == 156_895


def test_a_configuration_need_not_say_how_it_pads(tmp_path):
    tokenizer = write(tmp_path)
    forget(tmp_path, "pad_token_id")
    assert load_vocabulary(tmp_path).eos_id == tokenizer.token_to_id(EOS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_token_offset": 200}, r"at id 2\d\d"),
        ({"image_token_offset": 400}, "vocab_size must be larger"),
        ({"image_token_offset": None}, "image_token_offset must be a positive whole number"),
        ({"vocab_size": "400"}, "vocab_size must be a positive whole number"),
        ({"vocab_size": 400.0}, "vocab_size must be a positive whole number"),
        ({"image_token_offset": True}, "image_token_offset must be a positive whole number"),
        ({"pad_token_id": 3}, "different models"),
    ],
)
def test_contradictions(tmp_path, changes, words):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=words):
        load_vocabulary(tmp_path)


def test_names_for_image_codes_do_no_harm(tmp_path):
    tokenizer = write(tmp_path)
    size = tokenizer.get_vocab_size()
    # The last ten special tokens stand where codes are.
    write(tmp_path, [*SPECIAL, *(f"<|code_{k}|>" for k in range(10))], image_token_offset=size)
    assert load_vocabulary(tmp_path).image_token_offset == size


def test_pieces_at_ids_of_codes_are_refused(tmp_path):
    """A plain piece at the first of these ids, and a special token at the first id behind them."""
    size = write(tmp_path).get_vocab_size() - len(SPECIAL)
    write(tmp_path, image_token_offset=size - 1, vocab_size=size + 50)  # its last one is no name
    with pytest.raises(ValueError, match=f"at id {size - 1}, and by config.json only ids below"):
        load_vocabulary(tmp_path)
    write(tmp_path, [*SPECIAL, "<|a|>", "<|b|>"], image_token_offset=size + 8, vocab_size=size + 9)
    with pytest.raises(ValueError, match=rf"'<\|b\|>' at id {size + 9}, and by config.json"):
        load_vocabulary(tmp_path)


def test_a_special_token_at_the_id_of_a_code_is_refused(tmp_path):
    size = write(tmp_path).get_vocab_size()
    special = [token for token in SPECIAL if token != END_IMAGE] + [END_IMAGE]
    write(tmp_path, special, image_token_offset=size - 1)
    with pytest.raises(ValueError, match=r"no special token <\|/image\|>"):
        load_vocabulary(tmp_path)


def test_a_file_that_puts_tokens_before_every_text_is_refused(tmp_path):
    """The official one does not. All prompts would have that token in front, and within."""
    i = write(tmp_path).token_to_id(BOI)
    tokenizer = write(tmp_path, pad_token_id=i)  # as the end of text would then be read
    before = [(BOI, i)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{BOI} $A", special_tokens=before)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has no special token"):
        load_vocabulary(tmp_path)


def test_missing_and_broken_files(tmp_path):
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer file"):
        load_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        load_vocabulary(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        load_vocabulary(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="is not a JSON file"):
        load_vocabulary(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_vocabulary(tmp_path)


def test_damaged_tokenizers_are_refused_or_read(tmp_path):
    write(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            vocab = load_vocabulary(tmp_path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert vocab.token(vocab.eos_id) == EOS
