"""Headers of images that the model writes itself: which size they say."""

from minillada.official.fabricate import text_tokenizer
from minillada.official.prompts import header_grid
from minillada.official.text import OfficialVocabulary
from minillada.vocab import BOI, IMAGE, MASK, size_token


def test_the_size_that_a_header_says():
    tokenizer = text_tokenizer()  # sizes from 1 to 64
    tokenizer.add_special_tokens([size_token(n) for n in (0, 128, 129)])
    vocab = OfficialVocabulary(tokenizer, 512, 64, tokenizer.token_to_id(MASK))

    def grid(high, wide, before="", behind=""):
        sizes = size_token(high) + size_token(wide)
        return header_grid(vocab, vocab.markup(before + IMAGE + sizes + BOI + behind))

    assert grid(3, 5) == (3, 5)  # the height comes first
    assert grid(128, 32) == (128, 32) and grid(64, 64) == (64, 64)  # 4,096 codes at most
    assert grid(128, 33) is None and grid(32, 129) is None
    assert grid(0, 4) is None and grid(4, 0) is None  # no codes at all
    assert grid(3, 65) is None and grid(65, 3) is None  # no token: spelled in letters
    assert grid(3, 5, before="a") is None and grid(3, 5, behind="a") is None
