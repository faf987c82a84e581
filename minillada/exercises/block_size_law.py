"""Exercises of notebook 16, what a block size costs and buys."""

import math

import torch

from .checking import Case, Cases, Chance, exercise


def ends(values: list[float], t: float) -> list[float]:
    """Both ends of Student's interval of a mean."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = t * math.sqrt(variance / n)
    return [mean - half, mean + half]


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for all comparisons together."""
    m, largest = len(p_values), 0.0
    corrected = [0.0] * m
    for place, i in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - place) * p_values[i]))
        corrected[i] = largest
    return corrected


@exercise("correct: three values, a wide interval; every statement about three seeds needs one")
def check_ends(chance: Chance) -> Cases:
    """`function(values: list, t) -> [low, high]`, both ends of the 95 % interval of the mean."""
    some = [2.0 + chance.whole(0, 50) / 100 for _ in range(4)] + [1.5]
    for values, t in (([3.0, 3.2, 3.1], 4.303), (some, 2.776)):
        n = len(values)
        low, high = ends(values, t)
        mean, half = (low + high) / 2, (high - low) / 2
        variance = (half / t) ** 2 * n
        shrunk = half * math.sqrt((n - 1) / n)

        def around(half: float, mean: float = mean) -> list[float]:
            return [mean - half, mean + half]

        mistakes = {
            "the variance divides by n − 1: its mean comes from the same values": around(shrunk),
            "that is where single runs lie; for their mean divide by √n": around(half * n**0.5),
            "divide the standard deviation by √n, not by n": around(half / n**0.5),
            "1.96 is for many values; with few, take `t`": around(half / t * 1.96),
            "the standard deviation is the root of the variance": around(t * variance / n**0.5),
            "those ends lie around 0; they belong around the mean": [-half, half],
            "the lower end comes first": [high, low],
            "that is the mean and its distance from the ends; return both ends": [mean, half],
        }
        yield Case((values, t), [low, high], mistakes)


@exercise("correct: the smallest of m p-values is multiplied by m, the next one by m - 1")
def check_holm(chance: Chance) -> Cases:
    """`function(p_values: list) -> list`, corrected by Holm's rule, in the order they came."""
    some = [0.03, *(chance.whole(2, 60) / 1000 for _ in range(2)), 0.7, 0.9]
    for given in ([0.01, 0.04, 0.03], [0.30, 0.004, 0.02, 0.6], [0.02, 0.5, 0.02], some):
        m = len(given)
        right = holm(given)
        order = sorted(range(m), key=given.__getitem__)
        rank = {i: place for place, i in enumerate(order)}
        stepped = [(m - rank[i]) * p for i, p in enumerate(given)]
        # Products of neighbouring rules, the smallest p-value first.
        more = [given[i] * (m + 1 - rank[i]) for i in order]
        less = [given[i] * (m - 1 - rank[i]) for i in order]
        shares = [given[i] * m / (rank[i] + 1) for i in order]
        mistakes = {
            "the smallest is multiplied by m, the largest by 1; yours by m + 1 and by 2": [
                min(1.0, max(more[: rank[i] + 1])) for i in range(m)
            ],
            "the smallest is multiplied by m, the largest by 1; yours by m − 1 and by 0": [
                min(1.0, max(less[: rank[i] + 1])) for i in range(m)
            ],
            "that goes from the largest down (Hochberg); Holm goes up from the smallest": [
                min(1.0, *(stepped[j] for j in order[rank[i] :])) for i in range(m)
            ],
            "that is Benjamini and Hochberg's rule: it multiplies by m / place": [
                min(1.0, *shares[rank[i] :]) for i in range(m)
            ],
            "entry i of the sorted list belongs to place order[i], not the other way round": [
                sorted(right)[i] for i in order
            ],
            "that is Bonferroni's rule; Holm multiplies only the smallest by m": [
                min(1.0, m * p) for p in given
            ],
            "none may become smaller than the one before in size": [min(1.0, p) for p in stepped],
            "none may become smaller than the one before in size, or larger than 1": stepped,
            "a p-value is at most 1": [
                max(stepped[j] for j in order[: rank[i] + 1]) for i in range(m)
            ],
            "give them back in the order they came, not sorted": sorted(right),
            "the smallest is multiplied by m, not the largest": [
                min(1.0, (rank[i] + 1) * p) for i, p in enumerate(given)
            ],
            "nothing was corrected": given,
        }
        named = {hint: wrong for hint, wrong in mistakes.items() if wrong != right}
        yield Case((given,), torch.tensor(right, dtype=torch.double), named)


@exercise("correct: from [0, 1] all numbers of masks count alike; high rates count few masks less")
def check_counted(chance: Chance) -> Cases:
    """`function(m, rates [T]) -> [m]`: how much blocks with 1, 2, …, m masks count.

    A block of m tokens is masked with a rate t, and each of its masked tokens has the weight 1/t.
    Entry n − 1 is the mean, over the rates, of P(n masks | t) · n / t.
    """
    for m, low in ((4, 0.0), (chance.whole(5, 9), chance.whole(200, 600) / 1000)):
        rates = low + (0.95 - low) * (torch.arange(200, dtype=torch.double) + 0.5) / 200
        n = torch.arange(1, m + 1)[:, None]
        ways = torch.tensor([math.comb(m, k) for k in range(1, m + 1)])[:, None]
        chances = rates**n * (1 - rates) ** (m - n)  # [m, T], of one way
        right = (ways * chances * n / rates).mean(1)
        mistakes = {
            "each masked token has the weight 1/t": (ways * chances * n).mean(1),
            "there are C(m, n) ways to mask n of m tokens": (chances * n / rates).mean(1),
            "masked tokens have the chance t, visible ones 1 − t": (
                (ways * (1 - rates) ** n * rates ** (m - n) * n / rates).mean(1)
            ),
            "entry n − 1 is for n masks: begin with 1, not with 0": torch.cat(
                [torch.zeros(1), (ways * chances * n / rates).mean(1)[:-1]]
            ),
            "n tokens are masked, and each of them counts": (ways * chances / rates).mean(1),
            "average over the rates; that is their sum": (ways * chances * n / rates).sum(1),
            "the tokens that stay visible have the chance 1 − t": (
                ways * rates**n * n / rates
            ).mean(1),
            "average last: the mean of a product is not the product of means": (
                (ways * chances * n).mean(1) / rates.mean()
            ),
        }
        yield Case((m, rates), right, mistakes)
