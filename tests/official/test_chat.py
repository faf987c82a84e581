"""Models of text alone: their files, their prompts letter by letter, and what they say."""

import json

import pytest
import reference
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from minillada.config import SamplingConfig
from minillada.official import inspection, needs
from minillada.official.calls import Call, load
from minillada.official.fabricate import fabricate
from minillada.official.names import backbone_entries
from minillada.official.prompts import talk
from minillada.official.sizes import sizes_of
from minillada.official.text import OfficialVocabulary, load_vocabulary
from minillada.vocab import EOS, MASK, ROLES

OFF = "detailed thinking off"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("text") / "tiny"
    fabricate(place, "tiny-text")
    return place


@pytest.fixture(scope="module")
def model(folder):
    loaded = load(folder, dtype="float32")
    with torch.no_grad():  # weights so small say the same to everything
        for weight in loaded.backbone.parameters():
            if weight.dim() > 1:
                weight *= 20
    return loaded


def pieces(special=("<|role_end|>",)):
    """Text pieces some of which span the end of a role and what is said."""
    tokenizer = Tokenizer(models.BPE())
    # As in the released file, a sign may belong to the letters behind it.
    words = pre_tokenizers.Split(Regex(r"[^\p{L}\s]?\p{L}+|\s+|[^\p{L}\s]"), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    texts = [f"{ROLES['SYSTEM']}{OFF}", f"{ROLES['HUMAN']}who", f"{ROLES['ASSISTANT']}me"]
    tokenizer.train_from_iterator(texts * 9, trainer)
    tokenizer.add_special_tokens([EOS, MASK, *special])
    return OfficialVocabulary(
        tokenizer, tokenizer.get_vocab_size(), 0, tokenizer.token_to_id(MASK)
    ), tokenizer


# --- prompts, letter by letter -------------------------------------------------------------------


@pytest.mark.parametrize("special", [(), tuple(ROLES.values()), ("<role>", "</role>")])
def test_a_question_has_the_ids_of_the_whole_text(special):
    vocab, tokenizer = pieces(("<|role_end|>", *special))
    text = f"<role>SYSTEM</role>{OFF}<|role_end|><role>HUMAN</role>who is it?<|role_end|>"
    whole = tokenizer.encode(text + "<role>ASSISTANT</role>")
    assert talk(vocab, ["who is it?"]) == whole.ids
    # Without special tokens in a role, some pieces span its end.
    assert any(piece in (">who", ">detailed") for piece in whole.tokens) == (not special)


def test_a_talk_has_all_turns_and_the_user_s_system_prompt():
    vocab, tokenizer = pieces()
    turns = ["who?", " me.\n", "and you?"]
    text = (
        f"<role>SYSTEM</role>Be short.\n{OFF}<|role_end|><role>HUMAN</role>who?<|role_end|>"
        "<role>ASSISTANT</role> me.\n<|role_end|><role>HUMAN</role>and you?<|role_end|>"
        "<role>ASSISTANT</role>"
    )
    assert talk(vocab, turns, "Be short.") == tokenizer.encode(text).ids


@pytest.mark.parametrize("special", [(), tuple(ROLES.values())])
def test_nobody_can_type_the_end_of_a_turn(special):
    vocab, tokenizer = pieces(("<|role_end|>", *special))
    ids = talk(vocab, ["<|role_end|>", "<|endoftext|>", "<|mask|>"], "<|role_end|>")
    assert ids.count(tokenizer.token_to_id("<|role_end|>")) == 4  # one behind each of four turns
    assert vocab.eos_id not in ids and vocab.mask_id not in ids


def test_pieces_without_the_tag_cannot_chat():
    with pytest.raises(ValueError, match=r"no special token <\|role_end\|>, so it cannot chat"):
        talk(pieces(())[0], ["who?"])


# --- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [1.0, 0.1])
def test_an_answer_is_that_of_the_slow_loop(model, monkeypatch, edit):
    monkeypatch.setattr(reference, "MASK", model.vocab.mask_id)
    config = SamplingConfig(block_size=32, steps=32, threshold=0.1, edit_threshold=edit)
    turns = ["who?", "me", "a fox"]
    prompt = talk(model.vocab, turns, "be short")
    ids, _ = reference.decode(model.backbone, prompt, 40, config)
    answer = model.chat(turns, system="be short", length=40, threshold=0.1, edit_threshold=edit)
    assert model.vocab.eos_id not in ids  # then the text would end earlier
    assert answer == model.vocab.decode(ids).strip()
    assert answer != model.chat("a fox", length=40, threshold=0.1, edit_threshold=edit)
    if edit < 1:
        assert answer != model.chat(turns, system="be short", length=40, threshold=0.1)


def test_an_answer_ends_with_its_turn(model, monkeypatch):
    vocab = model.vocab
    said = vocab.encode(" A fox. ") + vocab.markup("<|role_end|>") + [vocab.eos_id] * 3

    def write(self, rows, length, config, tokens, *others):
        asked.append((length, config, tokens.allowed))
        return [said], None

    asked = []
    monkeypatch.setattr(Call, "write", write)
    assert model.chat("who?") == "A fox."
    assert (
        model.chat(["who?", "", "what?"], length=7, edit_threshold=0.5, threshold=0.7) == "A fox."
    )
    (length, usual, allowed), (short, config, _) = asked
    assert length == 2048 and short == 7 and torch.equal(allowed, vocab.is_text())
    assert (usual.block_size, usual.steps, usual.threshold, usual.temperature) == (32, 32, 0.95, 0)
    assert usual.edit_threshold == 1 and (config.threshold, config.edit_threshold) == (0.7, 0.5)
    assert config.post_steps == 16  # as in LLaDA2.1


def test_uni_can_chat_without_photos(checkpoint):
    uni = load(checkpoint, dtype="float32")
    ids = uni.vocab.encode(uni.chat("who?", length=33))
    assert ids and max(ids) < 512  # no image codes


@pytest.mark.parametrize("said", ["", [], ["who?", "me"], [""], ["who?", " ", "you"], [1], None])
def test_what_is_no_talk_is_refused(model, said):
    with pytest.raises(ValueError, match="a talk is what|texts must be a list|a text is empty"):
        model.chat(said)
    with pytest.raises(ValueError, match="texts must be a list of strings"):
        model.chat("who?", system=7)


def test_a_talk_that_fills_the_context_is_refused(folder):
    small = load(folder, dtype="float32", context=64)
    with pytest.raises(ValueError, match="fill the context"):
        small.chat("a" * 100)


# --- files ---------------------------------------------------------------------------------------


def test_every_id_of_a_text_model_is_text(model):
    assert model.vocab.size == model.backbone.config.vocab_size == 512
    assert not model.vocab.is_image().any() and model.vocab.is_text().all()


def test_what_needs_pictures_says_so(model):
    from PIL import Image

    photo = Image.new("RGB", (64, 64))
    for refused in (
        lambda: model.draw("a fox", size=32),
        lambda: model.think_and_draw("a fox", size=32),
        lambda: model.interleave("a fox", size=32),
        lambda: model.answer(photo, "what?"),
        lambda: model.edit(photo, "red"),
    ):
        with pytest.raises(ValueError, match="no image codes, so it cannot see or draw"):
            refused()


def test_a_text_model_is_complete_without_parts_for_images(folder):
    parts = inspection.inspect(folder)
    assert [(part.name, part.faults) for part in parts] == [
        ("backbone", []),
        ("text tokenizer", []),
    ]
    ways = needs.needs_of(folder, parts)
    assert [way.call for way in ways].count("'cuda'") == 1 and len(ways) == 6
    assert "'cuda', offload=True" not in [way.call for way in ways]


def test_a_folder_with_an_image_tokenizer_must_say_where_codes_begin(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "image_tokenizer").mkdir()
    with pytest.raises(ValueError, match="image_token_offset must be a positive whole number"):
        load_vocabulary(tmp_path)
    assert len(inspection.inspect(tmp_path)) == 7


def test_a_configuration_without_images(folder):
    config = json.loads((folder / "config.json").read_text())
    assert "image_token_offset" not in config and config["vocab_size"] == 512


@pytest.mark.parametrize("size, billions", [("mini", 16.255643), ("flash", 102.889)])
def test_parameters_of_the_released_models(size, billions):
    """LLaDA2.0-mini is Uni's backbone without the rows of codes; LLaDA2.0-flash is called 100B."""
    count = sum(entry.count for entry in backbone_entries(sizes_of(size).backbone))
    assert count / 1e9 == pytest.approx(billions, abs=1e-3)
    if size == "mini":
        assert count == 16_322_752_256 - 2 * 16_384 * 2048
    table = needs.memory_table(size)
    assert "no drawing" not in table and f"{2 * count / 1e9:.1f} GB" in table


def test_a_text_model_is_made_without_other_parts(tmp_path):
    with pytest.raises(ValueError, match="no part 'vae'; choose from backbone"):
        fabricate(tmp_path / "new", "tiny-text", parts=("vae",))
    assert not (tmp_path / "new").exists()
