"""Exercises of notebook 20, preferences."""

import torch
import torch.nn.functional as F

from .checking import Case, Cases, Chance, exercise


@exercise("correct: this is the loss of preference.preference_loss")
def check_dpo(chance: Chance) -> Cases:
    """`function(better [N], worse [N], beta) -> number`: the mean DPO loss, from the rises."""
    generator = chance.generator(1)
    for beta in (0.1, 0.5):
        better, worse = 4 * torch.randn(2, 6, generator=generator)
        margin = better - worse
        each = -F.logsigmoid(beta * margin)
        mistakes = {
            "the loss must fall when the better drawing rises: better minus worse": (
                -F.logsigmoid(-beta * margin).mean()
            ),
            "the difference is multiplied by beta": -F.logsigmoid(margin).mean(),
            "beta stands inside of the sigmoid": -beta * F.logsigmoid(margin).mean(),
            "a loss is small where the probability is large: minus the logarithm": -each.mean(),
            "that is a probability; take minus its logarithm": (beta * margin).sigmoid().mean(),
            "take the mean over the pairs, not the sum": each.sum(),
            "first the loss of each pair, then the mean": -F.logsigmoid(beta * margin.mean()),
            "that is the loss of each pair; take their mean": each,
            "the worse drawing counts, too": -F.logsigmoid(beta * better).mean(),
        }
        yield Case((better, worse, beta), each.mean(), mistakes)


@exercise("correct: a pair in the wrong order pulls most, and a pair that is sure hardly pulls")
def check_pull(chance: Chance) -> Cases:
    """`function(better [N], worse [N], beta) -> [N]`: how fast each pair's own loss falls.

    That is minus the derivative of the pair's loss with respect to the rise of its better drawing.
    """
    generator = chance.generator(2)
    for beta in (0.1, 0.5):
        better, worse = 6 * torch.randn(2, 6, generator=generator)
        margin = beta * (better - worse)
        right = beta * (-margin).sigmoid()
        mistakes = {
            "a pair in the right order pulls less: check the sign inside the sigmoid": (
                beta * margin.sigmoid()
            ),
            "the chain rule brings a factor beta": (-margin).sigmoid(),
            "that is the derivative; how fast the loss falls is minus that": -right,
            "the pair's own loss, not the mean over all pairs: no division by N": right / 6,
            "that is the loss; take its derivative": -F.logsigmoid(margin),
            "the derivative of the logarithm of the sigmoid has one factor, 1 - sigmoid": (
                beta * margin.sigmoid() * (-margin).sigmoid()
            ),
            "beta stands in the sigmoid, too": beta * (worse - better).sigmoid(),
        }
        yield Case((better, worse, beta), right, mistakes)


def fewest(share: float, wanted: float) -> int:
    """How many drawings it takes until the chance that one of them suits is `wanted`."""
    count, none_suits = 0, 1.0
    while 1 - none_suits < wanted:
        count, none_suits = count + 1, none_suits * (1 - share)
    return count


@exercise("correct: trying again needs no training, but every answer costs that many drawings")
def check_best_of(chance: Chance) -> Cases:
    """`function(share, wanted) -> int`: draw so many and keep the best; the fewest that will do.

    Each drawing suits with probability `share`; with probability `wanted` or more, one must suit.
    """
    pairs = [(0.5, 0.75), (0.5, 0.8)]  # two of 0.5 reach 0.75 exactly; for 0.8 it takes three
    for least, most in ((20, 35), (45, 60)):
        # Shares of 97 and 1,009: no number of drawings reaches `wanted` exactly.
        pairs.append((chance.whole(least, most) / 97, chance.whole(900, 990) / 1009))
    for share, wanted in pairs:
        right = fewest(share, wanted)
        at_once = 1
        while at_once * share < wanted:
            at_once += 1
        mistakes = {
            "round up: with one drawing fewer the chance is too small": right - 1,
            "chances do not add up: two of 0.6 are no 1.2": at_once,
            "1 is too few: one drawing alone suits with probability `share`": 1,
            "a drawing fails with probability 1 - share: how many fail together?": fewest(
                1 - share, wanted
            ),
        }
        yield Case((share, wanted), right, mistakes)
